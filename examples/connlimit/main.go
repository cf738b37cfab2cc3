// Command connlimit bans sources that hold more connections than -limit, for
// -bantime: of those that carry nothing, or of all with -busy. By default it only
// says what it would do.
//
//	go run ./examples/connlimit [-apply] [-backend NAME] [-limit 60] [-allow PREFIXES]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/bouncer"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 5*time.Minute)
	var ports bouncer.Ports
	flag.Var(&ports, "ports", "`PORTS` of this host to look at, joined by commas; all if empty")
	limit := flag.Uint64("limit", 60, "`N` connections of a source are normal")
	busy := flag.Bool("busy", false, "count connections that carry data, too")
	silence := flag.Duration("silence", time.Minute, "`TIME` without data after which a connection is idle")
	bantime := flag.Duration("bantime", 270*time.Second, "`TIME` that a ban lasts")
	flag.Parse()

	sources := detect.Sources{Ports: ports, Allow: flags.Allow}
	var detector detect.Detector = detect.IdleFlood{Sources: sources, Limit: *limit, Silence: *silence}
	if *busy {
		detector = detect.PerSource{Sources: sources, State: sockdiag.Established, Limit: *limit}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flags, detector, *bantime); err != nil {
		fmt.Fprintln(os.Stderr, "connlimit:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, flags bouncer.Flags, detector detect.Detector, bantime time.Duration) error {
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Every(ctx, func(ctx context.Context, now time.Time) error {
		sockets := b.Sockets.All(ctx, sockdiag.Query{Info: true})
		findings, err := detect.Scan(detect.Host{Now: now}, sockets, nil, detector)
		if err != nil {
			return err
		}
		var entries []ban.Entry
		for _, f := range findings {
			evidence, err := json.Marshal(f)
			if err != nil {
				return err
			}
			for _, source := range f.Sources {
				entries = append(entries, ban.Entry{
					Prefix: source, Until: ban.For(now, bantime), Evidence: string(evidence),
					Reason: fmt.Sprintf("Conn Cnt: %d is greater than limit:%d", f.Count, f.Limit),
				})
			}
		}
		return b.Ban(ctx, entries)
	})
}
