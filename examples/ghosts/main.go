// Command ghosts sweeps ghost entries away: ESTABLISHED, [UNREPLIED], and of no
// socket, they make this host refuse the next connection from the same port. By
// default it only says what it would delete.
//
//	go run ./examples/ghosts [-apply] [-every TIME -rounds N] [-json]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	apply := flag.Bool("apply", false, "delete them")
	asJSON := flag.Bool("json", false, "write one JSON object a line and ghost")
	every := flag.Duration("every", 0, "`TIME` between two sweeps; 0 is one sweep")
	rounds := flag.Int("rounds", 0, "`N` sweeps and no more; 0 is no end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for n := 1; ; n++ {
		if err := sweep(ctx, *apply, *asJSON); err != nil {
			fmt.Fprintln(os.Stderr, "ghosts:", err)
			os.Exit(1)
		}
		if *every <= 0 || n == *rounds {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(*every):
		}
	}
}

func sweep(ctx context.Context, apply, asJSON bool) error {
	ct, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer ct.Close()
	diag, err := sockdiag.Dial(nil)
	if err != nil {
		return err
	}
	defer diag.Close()
	// Ghosts compares entries with sockets: it needs both whole.
	findings, err := detect.Scan(detect.Host{Now: time.Now()}, diag.All(ctx, sockdiag.Query{}), ct.All(ctx, nil), detect.Ghosts{})
	if err != nil {
		return err
	}
	var ghosts []conntrack.Flow
	for _, f := range findings {
		ghosts = append(ghosts, f.Evidence.Flows...)
		if !asJSON {
			fmt.Println(f)
			continue
		}
		if err := json.NewEncoder(os.Stdout).Encode(f.Evidence.Flows); err != nil {
			return err
		}
	}
	report, err := ct.DeleteAll(ctx, slices.Values(ghosts), &conntrack.DeleteOptions{DryRun: !apply})
	fmt.Fprintln(os.Stderr, report)
	return err
}
