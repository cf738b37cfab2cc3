// Command doctor looks at this host once and tells what is wrong with its
// connections, the worst first: cause, evidence, and what to do.
//
//	go run ./examples/doctor [-only NAMES] [-fail-on SEVERITY] [-json] [-list]
//
// Its exit status is 0 if nothing was found at that severity or above, 1 if
// something was, and 2 if it could not look. Without privileges it does what it
// can, and says what it could not see.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/detect"
)

type detector struct {
	name  string
	flows bool // it is wrong without flows
	find  func(detect.Host) []detect.Finding
}

// detectors are what it looks for, with the incidents' own thresholds. Those
// that need flows are left out where flows cannot be seen.
var detectors = []detector{
	{"Ghosts", true, with(detect.Ghosts{})},
	{"LostFlows", true, with(detect.LostFlows{})},
	{"PerSource", false, with(detect.PerSource{})},
	{"IdleFlood", false, with(detect.IdleFlood{})},
	{"SynFlood", false, with(detect.SynFlood{})},
	{"OutboundScan", false, with(detect.OutboundScan{})},
	{"Leaks", false, with(detect.Leaks{})},
	{"AcceptQueue", false, with(detect.AcceptQueue{})},
	{"Pressure", false, with(detect.Pressure{})},
	{"PortReuse", true, with(detect.PortReuse{})},
	{"PortSpace", true, with(detect.PortSpace{})},
	{"Descriptors", false, with(detect.Descriptors{})},
	{"Census", false, with(detect.Census{})},
}

func with(d detect.Detector) func(detect.Host) []detect.Finding {
	return func(h detect.Host) []detect.Finding { return detect.Find(h, d) }
}

var severities = map[string]detect.Severity{
	"info": detect.Info, "warning": detect.Warning, "critical": detect.Critical,
}

func main() {
	only := flag.String("only", "", "`NAMES` of detectors, joined by commas; all if empty")
	failOn := flag.String("fail-on", "warning", "`SEVERITY` from which findings make the exit status 1: info, warning, critical")
	asJSON := flag.Bool("json", false, "write one JSON object a line and finding")
	list := flag.Bool("list", false, "list the detectors")
	flag.Parse()
	if *list {
		for _, d := range detectors {
			fmt.Println(d.name)
		}
		return
	}
	worst, err := run(*only, *asJSON)
	least, known := severities[*failOn]
	switch {
	case !known:
		err = fmt.Errorf("-fail-on %q: want info, warning or critical", *failOn)
		fallthrough
	case err != nil:
		fmt.Fprintln(os.Stderr, "doctor:", err)
		os.Exit(2)
	case worst >= least:
		os.Exit(1)
	}
}

// run tells what it finds, and returns the worst severity.
func run(only string, asJSON bool) (worst detect.Severity, err error) {
	var names []string
	if only != "" {
		names = strings.Split(only, ",")
	}
	for _, name := range names {
		if !slices.ContainsFunc(detectors, func(d detector) bool { return d.name == name }) {
			return 0, fmt.Errorf("-only: no detector %q: -list shows them", name)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	seen, err := look(ctx)
	if err != nil {
		return 0, err
	}
	for _, blind := range seen.blind {
		fmt.Fprintln(os.Stderr, "not seen:", blind)
	}
	var found []detect.Finding
	for _, d := range detectors {
		if (names == nil || slices.Contains(names, d.name)) && (seen.flows || !d.flows) {
			found = append(found, d.find(seen.host)...)
		}
	}
	slices.SortStableFunc(found, func(a, b detect.Finding) int { return int(b.Severity) - int(a.Severity) })
	for _, f := range found {
		worst = max(worst, f.Severity)
		if err := tell(f, asJSON); err != nil {
			return 0, err
		}
	}
	if len(found) == 0 && !asJSON {
		fmt.Println("nothing found")
	}
	return worst, nil
}

func tell(f detect.Finding, asJSON bool) error {
	if !asJSON {
		fmt.Printf("%v: %s (%s, %v)\n  cause: %s\n", f.Severity, f.Subject, f.Detector, f.Confidence, f.Cause)
		for _, line := range evidence(f) {
			fmt.Println("  seen: ", line)
		}
		for _, fix := range f.Fix {
			fmt.Println("  fix:  ", fix)
		}
		return nil
	}
	return json.NewEncoder(os.Stdout).Encode(object{
		f.Detector, f.Severity.String(), f.Confidence.String(), f.Subject, f.Count, f.Limit, f.Cause, f.Fix, evidence(f),
	})
}

// object is a finding in JSON.
type object struct {
	Detector   string   `json:"detector"`
	Severity   string   `json:"severity"`
	Confidence string   `json:"confidence"`
	Subject    string   `json:"subject"`
	Count      uint64   `json:"count"`
	Limit      uint64   `json:"limit"`
	Cause      string   `json:"cause"`
	Fix        []string `json:"fix"`
	Evidence   []string `json:"evidence"`
}
