// Kernels runs the lab tests of this module on other Linux kernels, under
// software emulation, and prints what passed, failed and was skipped on each.
//
// Usage, from the module:
//
//	go run ./internal/ci/kernels [flags] [packages]
//
// Without packages it takes every package whose tests use internal/lab,
// directly or through a helper. Plain programs join them with -run; their
// verdict is their exit status:
//
//	go run ./internal/ci/kernels -run './examples/incident -scenario all'
//
// The kernels are Debian's cloud kernels, downloaded and unpacked but never
// installed, and kept in the user's cache directory. As root on Debian or
// Ubuntu the tool installs the emulator and the few other programs it needs;
// as any other user it says what is missing. No virtualisation is needed.
//
// A line "SUPPORT: <feature>: yes|no", optionally followed by " (<text>)", in
// the output of any test becomes a cell of a Markdown table, features against
// kernels, which -table, -check and -update write, compare and renew.
//
// The exit status is 0 only when every program passed on every kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// errFailed means that the report already says what is wrong.
var errFailed = errors.New("failed")

type options struct {
	packages []string
	programs []string // package and arguments, as given to -run
	kernels  []string // series: "6.1"
	host     bool
	timeout  time.Duration
	parallel int
	logDir   string
	verbose  bool
	table    string
	check    string
	update   string
}

func main() {
	opts, err := parseFlags(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opts, os.Stdout)
	stop()
	if err != nil {
		if !errors.Is(err, errFailed) {
			note("%v", err)
		}
		os.Exit(1)
	}
}

func parseFlags(args []string, usage io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("kernels", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.Usage = func() {
		fmt.Fprintln(usage, "usage: go run ./internal/ci/kernels [flags] [packages]")
		fs.PrintDefaults()
	}
	series := fs.String("kernels", "6.1,6.12", "comma-separated kernel `series` to run on")
	fs.Func("run", "also build and run this program, `'PKG ARGS…'` (repeatable)", func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New("no package")
		}
		o.programs = append(o.programs, s)
		return nil
	})
	fs.BoolVar(&o.host, "host", false, "run everything on this machine's own kernel too")
	fs.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up on one kernel after this long")
	fs.IntVar(&o.parallel, "parallel", 1, "emulate this many kernels at the same time")
	fs.StringVar(&o.logDir, "log", "", "keep the console logs in this `directory` (default: a temporary one, kept on failure)")
	fs.BoolVar(&o.verbose, "v", false, "show the consoles while they run")
	fs.StringVar(&o.table, "table", "", "write the table of SUPPORT lines to this `file`")
	fs.StringVar(&o.check, "check", "", "fail if the table in this `file` differs")
	fs.StringVar(&o.update, "update", "", "renew the table in this `file`, if every program passed")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.packages = fs.Args()
	o.kernels = strings.FieldsFunc(*series, func(r rune) bool { return r == ',' || r == ' ' })
	if err := o.validate(); err != nil {
		fmt.Fprintln(usage, "kernels:", err)
		return o, err
	}
	return o, nil
}

func (o *options) validate() error {
	for i, s := range o.kernels {
		if !seriesPattern.MatchString(s) {
			return fmt.Errorf("-kernels: %q is not a kernel series like 6.1", s)
		}
		if slices.Contains(o.kernels[:i], s) {
			return fmt.Errorf("-kernels: %s is given twice", s)
		}
	}
	switch {
	case len(o.kernels) == 0 && !o.host:
		return errors.New("-kernels: no kernel to run on")
	case o.parallel < 1:
		return errors.New("-parallel: must be at least 1")
	case o.timeout <= 0:
		return errors.New("-timeout: must be positive")
	}
	return nil
}

func run(ctx context.Context, o options, out io.Writer) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("needs Linux on amd64, this is %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	work, err := os.MkdirTemp("", "connsleuth-kernels-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	jobs, err := buildJobs(ctx, work, o.packages, o.programs)
	if err != nil {
		return err
	}
	logDir, tidy, err := openLogDir(o.logDir)
	if err != nil {
		return err
	}
	b := &bench{jobs: jobs, work: work, logDir: logDir, timeout: o.timeout, verbose: o.verbose}
	reports, err := b.runAll(ctx, o)
	if err != nil {
		return errors.Join(err, tidy(true))
	}
	passed := printReport(out, reports)
	if passed {
		err = publishSupport(out, reports, o)
	} else {
		err = publishFailed(out, reports, o)
	}
	return errors.Join(err, tidy(passed))
}

// openLogDir makes the directory of the console logs. The temporary one is
// removed by tidy(true).
func openLogDir(dir string) (string, func(passed bool) error, error) {
	if dir != "" {
		return dir, func(bool) error { return nil }, os.MkdirAll(dir, 0o755)
	}
	dir, err := os.MkdirTemp("", "connsleuth-consoles-")
	return dir, func(passed bool) error {
		if passed {
			return os.RemoveAll(dir)
		}
		return nil
	}, err
}

// note tells the user what goes on; the report alone goes to standard output.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "kernels: "+format+"\n", args...)
}
