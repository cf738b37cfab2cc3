// Command prohibited tells live why packets are refused on this host: one line
// for each refused flow, with the cause, how sure that is, and a count.
//
//	go run ./examples/prohibited [-json] [-group N,…] [-dry-run] [-for DURATION] [-top N]
//
// It makes a table of nftables of its own, whose rules only log, and removes it
// when it ends: -dry-run shows it. With -group it reads what existing rules log.
// It takes CAP_NET_ADMIN.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/detect/reject"
)

func main() {
	cfg := &reject.Config{}
	flag.Func("group", "read NFLOG group `N` instead of making rules; repeatable, or a list with commas", func(list string) error {
		for n := range strings.SplitSeq(list, ",") {
			g, err := strconv.ParseUint(n, 10, 16)
			if err != nil {
				return fmt.Errorf("%q is no group from 0 to 65535", n)
			}
			cfg.Groups = append(cfg.Groups, uint16(g))
		}
		return nil
	})
	asJSON := flag.Bool("json", false, "write one JSON object a line and verdict")
	dryRun := flag.Bool("dry-run", false, "show what would be added to the host, and end")
	limit := flag.Duration("for", 0, "end after this `DURATION`")
	top := flag.Int("top", 0, "show the `N` flows that are refused most: refreshed on a terminal, or else at the end")
	flag.Parse()
	if len(cfg.Groups) == 0 {
		cfg.Install = &reject.Install{}
	}
	var err error
	if *dryRun {
		err = plan(cfg)
	} else {
		err = run(cfg, *limit, newView(os.Stdout, *asJSON, *top))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prohibited:", err)
		os.Exit(1)
	}
}

func plan(cfg *reject.Config) error {
	if cfg.Install == nil {
		fmt.Println("# nothing: with -group, rules that exist are used")
		return nil
	}
	p, err := cfg.Plan()
	fmt.Print(p)
	return err
}

// run shows verdicts until a signal, the time limit or an error ends it.
func run(cfg *reject.Config, limit time.Duration, v *view) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Ready = func() {
		fmt.Fprintln(os.Stderr, "prohibited: watching")
		if limit > 0 {
			time.AfterFunc(limit, stop)
		}
	}
	var last error
	for verdict, err := range reject.Watch(ctx, cfg) {
		if err == nil {
			v.show(verdict)
			continue
		}
		if last != nil {
			fmt.Fprintln(os.Stderr, "prohibited:", last) // not the end: something was missed
		}
		last = err
	}
	v.end()
	if errors.Is(last, context.Canceled) {
		return nil
	}
	return last
}

// newView shows verdicts on a terminal in place, and elsewhere one a line.
func newView(f *os.File, asJSON bool, top int) *view {
	info, err := f.Stat()
	v := &view{out: f, top: top, live: !asJSON && err == nil && info.Mode()&os.ModeCharDevice != 0}
	if asJSON {
		v.json = json.NewEncoder(f)
		v.json.SetEscapeHTML(false)
	}
	return v
}

// line writes a verdict as a person reads it: when, what, why, what to do. A
// terminal cuts its end off.
func line(w io.Writer, v reject.Verdict) {
	what := "this host"
	switch {
	case v.Flow.Dst.IsValid():
		what = v.Evidence.Packet.Value.String()
	case v.Flow.Src.IsValid():
		what = v.Flow.Src.String()
	}
	fmt.Fprintf(w, "%s  %s  %s\n", v.Last.Format(time.TimeOnly), what, v.Line())
}
