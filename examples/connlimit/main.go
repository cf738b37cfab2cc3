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
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/bouncer"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 270*time.Second)
	var loop bouncer.Loop
	loop.Register(flag.CommandLine, 5*time.Minute)
	var ports bouncer.Ports
	flag.Var(&ports, "ports", "`PORTS` of this host to look at, joined by commas; all if empty")
	limit := flag.Uint64("limit", 60, "`N` connections of a source are normal")
	busy := flag.Bool("busy", false, "count connections that carry data, too")
	silence := flag.Duration("silence", time.Minute, "`TIME` without data after which a connection is idle")
	bouncer.Main("bans sources that hold many connections and do nothing with them.", func(ctx context.Context) error {
		if *limit == 0 || *silence <= 0 {
			return bouncer.Usagef("-limit %d -silence %v: want more than 0", *limit, *silence)
		}
		sources := detect.Sources{Ports: ports, Allow: flags.Allow}
		return run(ctx, flags, loop, detector(sources, *limit, *busy, *silence))
	})
}

// detector judges each source by what it does itself: a network is not banned for
// some sources in it.
func detector(sources detect.Sources, limit uint64, busy bool, silence time.Duration) detect.Detector {
	sources.Many = -1
	if busy {
		return detect.PerSource{Sources: sources, State: sockdiag.Established, Limit: limit}
	}
	return detect.IdleFlood{Sources: sources, Limit: limit, Silence: silence}
}

func run(ctx context.Context, flags bouncer.Flags, loop bouncer.Loop, detector detect.Detector) error {
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	return loop.Run(ctx, func(ctx context.Context, now time.Time) error {
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
					Prefix: source, Until: flags.Until(now), Evidence: string(evidence),
					Reason: fmt.Sprintf("Conn Cnt: %d is greater than limit:%d", f.Count, f.Limit),
				})
			}
		}
		_, err = b.Ban(ctx, entries...)
		return err
	})
}
