// Command rates bans sources that open connections to one port too fast: 200 in
// 30 s or 128 in 600 s, as the tracker's events tell, which see connections that
// are too short for any snapshot. By default it only says what it would do.
//
//	go run ./examples/rates [-apply] [-backend NAME] [-limits 200/30s,128/600s] [-for TIME]
//
// It takes CAP_NET_ADMIN. An event of a first packet does not tell whether its
// source is forged: let nobody be banned on its word alone who matters (-allow).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/bouncer"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 10*time.Minute)
	var rate detect.Rate
	flag.Func("limits", "`LIMITS` that are not normal any more (default 200/30s,128/600s)", func(text string) (err error) {
		rate.Limits, err = limits(text)
		return err
	})
	var ports bouncer.Ports
	flag.Var(&ports, "ports", "`PORTS` to look at, joined by commas; all if empty")
	length := flag.Duration("for", 0, "`TIME` to watch; 0 is no end")
	bouncer.Main("bans sources that open connections to one port too fast.", func(ctx context.Context) error {
		rate.Allow, rate.Ports = flags.Allow, ports
		if *length < 0 {
			return bouncer.Usagef("-for %v: want 0 or more", *length)
		}
		if *length > 0 {
			var stop func()
			ctx, stop = context.WithTimeout(ctx, *length)
			defer stop()
		}
		return run(ctx, flags, rate)
	})
}

// limits reads 200/30s,128/600s.
func limits(text string) (out []detect.RateLimit, err error) {
	for word := range strings.SplitSeq(text, ",") {
		count, within, _ := strings.Cut(word, "/")
		n, err1 := strconv.ParseUint(count, 10, 64)
		d, err2 := time.ParseDuration(within)
		if err1 != nil || err2 != nil || n == 0 || d < time.Second {
			return nil, fmt.Errorf("%q is no rate such as 200/30s", word)
		}
		out = append(out, detect.RateLimit{Count: n, Within: d})
	}
	return out, nil
}

func run(ctx context.Context, flags bouncer.Flags, rate detect.Rate) error {
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Conntrack == nil {
		return fmt.Errorf("there are no events without conntrack: %w", b.Blind)
	}
	own, err := ban.Own(b.Proc)
	if err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, p := range own {
		addrs = append(addrs, p.Prefix.Addr())
	}
	rates := rate.Start(addrs...)
	ready := func() { fmt.Fprintln(os.Stderr, "rates: watching") }
	for e, err := range b.Conntrack.Events(ctx, &conntrack.EventOptions{Types: []conntrack.EventType{conntrack.EventNew}, Ready: ready}) {
		switch {
		case errors.Is(err, conntrack.ErrOverrun):
			b.Note("connections were not counted", err)
			continue
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		now := time.Now()
		if f, fast := rates.Add(now, &e); fast {
			if err := punish(ctx, b, f, flags.Until(now)); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

// punish bans the sources of a finding.
func punish(ctx context.Context, b *bouncer.Bouncer, f detect.Finding, until ban.Until) error {
	evidence, err := json.Marshal(f)
	if err != nil {
		return err
	}
	var entries []ban.Entry
	for _, source := range f.Sources {
		entries = append(entries, ban.Entry{Prefix: source, Until: until, Reason: f.Cause, Evidence: string(evidence)})
	}
	_, err = b.Ban(ctx, entries...)
	return err
}
