// Command rates bans sources that open connections to one port too fast: 200 in
// 30 s or 128 in 600 s, as the tracker's events tell, which see connections that
// are too short for any snapshot. By default it only says what it would do.
//
//	go run ./examples/rates [-apply] [-backend NAME] [-limits 200/30s,128/600s] [-for TIME]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/bouncer"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 0)
	var rate detect.Rate
	flag.Func("limits", "`LIMITS` that are not normal any more (default 200/30s,128/600s)", func(text string) (err error) {
		rate.Limits, err = limits(text)
		return err
	})
	bantime := flag.Duration("bantime", 10*time.Minute, "`TIME` that a ban lasts")
	length := flag.Duration("for", 0, "`TIME` to watch; 0 is no end")
	flag.Parse()
	rate.Allow = flags.Allow

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *length > 0 {
		ctx, stop = context.WithTimeout(ctx, *length)
		defer stop()
	}
	if err := run(ctx, flags, rate, *bantime); err != nil {
		fmt.Fprintln(os.Stderr, "rates:", err)
		os.Exit(1)
	}
}

// limits reads 200/30s,128/600s.
func limits(text string) (out []detect.RateLimit, err error) {
	for word := range strings.SplitSeq(text, ",") {
		count, within, _ := strings.Cut(word, "/")
		n, err1 := strconv.ParseUint(count, 10, 64)
		d, err2 := time.ParseDuration(within)
		if err1 != nil || err2 != nil || n == 0 || d <= 0 {
			return nil, fmt.Errorf("%q is no rate such as 200/30s", word)
		}
		out = append(out, detect.RateLimit{Count: n, Within: d})
	}
	return out, nil
}

func run(ctx context.Context, flags bouncer.Flags, rate detect.Rate, bantime time.Duration) error {
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Conntrack == nil {
		return errors.New("conntrack events take CAP_NET_ADMIN")
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
	events := &conntrack.EventOptions{Types: []conntrack.EventType{conntrack.EventNew}, Ready: func() { fmt.Fprintln(os.Stderr, "watching") }}
	for e, err := range b.Conntrack.Events(ctx, events) {
		switch {
		case errors.Is(err, conntrack.ErrOverrun):
			fmt.Fprintln(os.Stderr, "rates: connections were not counted:", err)
			continue
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		now := time.Now()
		f, fast := rates.Add(now, &e)
		if !fast {
			continue
		}
		var entries []ban.Entry
		for _, source := range f.Sources {
			entries = append(entries, ban.Entry{Prefix: source, Until: ban.For(now, bantime), Reason: f.Cause})
		}
		if err := b.Ban(ctx, entries); err != nil {
			return err
		}
	}
	return nil
}
