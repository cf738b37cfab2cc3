// Command doctor looks at this host once, or at a snapshot of one, and says
// what is wrong with its connections, why, and what to do.
//
//	go run ./examples/doctor [-from DIR] [-record DIR] [-over DURATION] [-log DURATION] [-only NAME,…] [-fail-on SEVERITY] [-json] [-list]
//
// It changes nothing. Without privileges it does what it can, and says what it
// could not see. DIR can hold what -record wrote, or text in files of any name:
// conntrack -L, ss -tanopie or netstat -natp, sysctl -a, dmesg, and more that
// package snapshot lists.
//
// Its exit status is 0 when there is nothing of that severity, 1 when there is,
// and 2 when it could not look.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/detect"
)

func main() {
	var o options
	flag.StringVar(&o.from, "from", "", "look at the snapshot in `DIR`, not at this host")
	flag.StringVar(&o.record, "record", "", "write a snapshot of this host to the new `DIR`, and look at it")
	flag.DurationVar(&o.over, "over", time.Second, "see what counts within `DURATION`; 0 is not at all")
	flag.DurationVar(&o.log, "log", time.Hour, "read the kernel's log of the last `DURATION`; 0 is not at all")
	flag.StringVar(&o.only, "only", "", "look with these detectors only: `NAME,…`")
	flag.BoolVar(&o.json, "json", false, "write one JSON object a line and finding")
	list := flag.Bool("list", false, "list the detectors")
	o.failOn = detect.Warning
	flag.TextVar(&o.failOn, "fail-on", o.failOn, "exit with 1 at this `SEVERITY` and above: info, warning, critical")
	flag.Parse()
	if *list {
		for _, e := range detect.All() {
			fmt.Printf("%-12s %s\n", e.Name(), e.About)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	bad, err := run(ctx, o)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "doctor:", err)
		os.Exit(2)
	case bad:
		os.Exit(1)
	}
}

type options struct {
	from, record, only string
	over, log          time.Duration
	json               bool
	failOn             detect.Severity
}

// run looks, and reports whether something is as bad as asked for.
func run(ctx context.Context, o options) (bad bool, err error) {
	entries := detect.All()
	if o.only != "" {
		if entries, err = detect.Named(strings.Split(o.only, ",")...); err != nil {
			return false, fmt.Errorf("%w: -list shows them", err)
		}
	}
	v, err := see(ctx, o)
	if err != nil {
		return false, err
	}
	defer v.close()
	sees, err := v.Sees()
	if err != nil {
		return false, err
	}
	if v.Flows != nil && sees&detect.NeedFlows == 0 {
		v.note("no connection is tracked: there is no flow")
	}
	detectors, blind := detect.Seeing(sees, entries...)
	v.blind(sees, blind)
	if len(detectors) == 0 {
		return false, errors.New("no detector could look:\n  " + strings.Join(v.notes, "\n  "))
	}
	found, err := detect.Scan(v.Host, v.Sockets, v.Flows, detectors...)
	for _, s := range v.Skipped() {
		v.note("left out: %v", s)
	}
	for _, n := range v.notes {
		fmt.Fprintln(os.Stderr, "doctor:", n)
	}
	bad = len(found) > 0 && found[0].Severity >= o.failOn
	return bad, errors.Join(err, show(found, o.json))
}

// show writes the findings, the worst first.
func show(found []detect.Finding, asJSON bool) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, f := range found {
		var err error
		switch {
		case asJSON:
			err = out.Encode(f)
		case f.Severity > detect.Info:
			_, err = fmt.Println(f.Text())
		default:
			_, err = fmt.Println(f)
		}
		if err != nil {
			return err
		}
	}
	if len(found) == 0 && !asJSON {
		fmt.Println("nothing found")
	}
	return nil
}
