// Command doctor looks at this host once, or at a snapshot of one, and says
// what is wrong with its connections, why, and what to do.
//
//	go run ./examples/doctor [-from DIR] [-record DIR] [-only NAME,…] [-fail-on SEVERITY] [-json]
//
// It changes nothing. Without privileges it does what it can, and says what it
// could not see. DIR can hold what -record wrote, or text in files of any name:
// conntrack -L, ss -tanopie or netstat -natp, sysctl -a,
// /proc/net/stat/nf_conntrack.
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
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/snapshot"
)

func main() {
	var o options
	flag.StringVar(&o.from, "from", "", "look at the snapshot in `DIR`, not at this host")
	flag.StringVar(&o.record, "record", "", "write a snapshot of this host to the new `DIR`, and look at it")
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
	json               bool
	failOn             detect.Severity
}

// run looks, and reports whether something is as bad as asked for.
func run(ctx context.Context, o options) (bad bool, err error) {
	entries, err := choose(o.only)
	if err != nil {
		return false, err
	}
	v, err := see(ctx, o)
	if err != nil {
		return false, err
	}
	defer v.close()
	detectors, blind := detect.Seeing(v.have(), entries...)
	for _, e := range blind {
		v.note("%s did not look: it needs to see %v", e.Name(), e.Needs)
	}
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
	if err := show(found, o.json); err != nil {
		return false, err
	}
	return len(found) > 0 && found[0].Severity >= o.failOn, err
}

// choose returns the detectors of these names, or all.
func choose(only string) ([]detect.Entry, error) {
	all := detect.All()
	if only == "" {
		return all, nil
	}
	var chosen []detect.Entry
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(e detect.Entry) bool { return strings.EqualFold(e.Name(), strings.TrimSpace(name)) })
		if i < 0 {
			return nil, fmt.Errorf("no detector %q: -list shows them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// see looks at a snapshot or at this host, by way of a snapshot if it is to be
// recorded.
func see(ctx context.Context, o options) (*view, error) {
	if o.from != "" && o.record != "" {
		return nil, errors.New("-from and -record exclude each other")
	}
	if o.from != "" {
		return open(o.from)
	}
	v, err := live(ctx)
	if err != nil || o.record == "" {
		return v, err
	}
	defer v.close()
	if err := snapshot.Record(o.record, v.Host, proc, v.Sockets, v.Flows); err != nil {
		return nil, err
	}
	recorded, err := open(o.record)
	if err == nil {
		recorded.notes = append(v.notes, recorded.notes...)
	}
	return recorded, err
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
