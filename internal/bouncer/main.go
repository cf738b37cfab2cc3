package bouncer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// usageError is an argument that makes no sense.
type usageError struct{ error }

// Usagef is the error of arguments that make no sense.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Main runs a program that takes flags only, and says with -h what it is about.
// SIGINT and SIGTERM end the context. The exit status is 0; 1 where run failed,
// with its error on standard error; 2 for arguments that make no sense.
func Main(about string, run func(context.Context) error) {
	name := filepath.Base(os.Args[0])
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "%s %s\n\nFlags:\n", name, about)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Usagef("%q: there are no arguments but flags: see -h", flag.Arg(0))
	if flag.NArg() == 0 {
		err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(status(err))
	}
}

func status(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

// Append appends lines to a log, all at once, so that who reads it reads no part of
// one. A new log is its writer's, mode 0600.
func Append(log string, lines []byte) error {
	f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Close())
}

// Loop is how often to look.
type Loop struct {
	Every  time.Duration
	Rounds int
}

// Register defines the flags, with how often to look by default.
func (l *Loop) Register(fs *flag.FlagSet, every time.Duration) {
	fs.DurationVar(&l.Every, "every", every, "`TIME` between two looks; 0 looks once")
	fs.IntVar(&l.Rounds, "rounds", 0, "`N` looks and no more; 0 is no end")
}

// Run calls look at once and then every so often, until ctx ends or there were
// as many rounds as wanted. An error of look ends it; that ctx ended is none.
func (l *Loop) Run(ctx context.Context, look func(context.Context, time.Time) error) error {
	if l.Every < 0 || l.Rounds < 0 {
		return Usagef("-every %v -rounds %d: want 0 or more", l.Every, l.Rounds)
	}
	tick := time.NewTicker(max(l.Every, 1))
	defer tick.Stop()
	for n := 1; ; n++ {
		err := look(ctx, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || n == l.Rounds || l.Every == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
