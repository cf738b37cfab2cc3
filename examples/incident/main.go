// Command incident stages real incidents between private hosts on this
// machine's kernel, finds and explains them with the packages of this library,
// remedies them, and proves that the remedy works. It needs no root.
//
//	go run ./examples/incident [-scenario NAME|all] [-ipv6] [-json] [-list]
//
// Its exit status is 0 only if every step was verified on the kernel.
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

	"github.com/connsleuth/connsleuth/internal/incidents"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// atOnce is how many scenarios play side by side: most of them wait.
const atOnce = 6

func main() {
	name := flag.String("scenario", "all", "`NAME` of the incident, or all")
	ipv6 := flag.Bool("ipv6", false, "stage it over IPv6")
	asJSON := flag.Bool("json", false, "write one JSON object a line and step")
	list := flag.Bool("list", false, "list the incidents")
	flag.Parse()
	if *list {
		for _, s := range incidents.Scenarios {
			fmt.Printf("%-16s %s\n", s.Name, s.Title)
		}
		return
	}
	if err := run(*name, *ipv6, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "incident:", err)
		os.Exit(1)
	}
}

func run(name string, ipv6, asJSON bool) error {
	scenarios := incidents.Scenarios
	if name != "all" {
		s, err := incidents.Find(name)
		if err != nil {
			return fmt.Errorf("%w: -list shows them", err)
		}
		scenarios = []incidents.Scenario{s}
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	tell := incidents.Text(os.Stdout)
	if asJSON {
		tell = lines(os.Stdout)
	}
	failed, done := 0, 0
	for _, err := range incidents.Play(ctx, scenarios, ipv6, atOnce, tell) {
		switch {
		case err == nil:
			done++
			continue
		case !errors.Is(err, errors.ErrUnsupported):
			failed++
		}
		fmt.Fprintln(os.Stderr, "incident:", err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed", failed, len(scenarios))
	}
	if !asJSON {
		fmt.Printf("\n%d incidents reproduced, detected, explained and remedied on this kernel\n", done)
	}
	return nil
}

// lines writes the results as JSON, one object a line.
func lines(w io.Writer) func(incidents.Report) {
	type object struct {
		Scenario   string   `json:"scenario"`
		Step       string   `json:"step"`
		OK         bool     `json:"ok"`
		Detail     string   `json:"detail"`
		Seconds    float64  `json:"seconds"`
		Cause      string   `json:"cause,omitempty"`
		Confidence string   `json:"confidence,omitempty"`
		Facts      []string `json:"facts,omitempty"`
		Fix        []string `json:"fix,omitempty"`
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	return func(r incidents.Report) {
		if r.Kind != incidents.Result {
			return
		}
		o := object{Scenario: r.Scenario, Step: string(r.Step), OK: r.OK, Detail: r.Text, Seconds: r.At.Seconds()}
		if v := r.Verdict; v != nil {
			o.Cause, o.Confidence, o.Facts, o.Fix = string(v.Cause), v.Confidence.String(), v.Facts, v.Fix
		}
		_ = out.Encode(o) // a closed pipe ends the program by SIGPIPE
	}
}
