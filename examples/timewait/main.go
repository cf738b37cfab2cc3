// Command timewait bans sources that leave many connections in TIME_WAIT behind:
// at each look, every connection of a source in TIME_WAIT on one of the ports
// counts, and who comes to -maxretry of them within -findtime is banned for ever,
// or for -bantime. By default it only says what it would do.
//
//	go run ./examples/timewait [-apply] [-backend NAME] [-ports 80,443] [-allow PREFIXES]
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/bouncer"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 10*time.Minute)
	ports := bouncer.Ports{80, 443}
	flag.Var(&ports, "ports", "`PORTS` of this host to look at, joined by commas")
	jail := ban.Jail{MaxRetry: 40, FindTime: 750 * time.Second}
	flag.IntVar(&jail.MaxRetry, "maxretry", jail.MaxRetry, "`N` connections earn a ban")
	flag.DurationVar(&jail.FindTime, "findtime", jail.FindTime, "`TIME` in which they are counted together")
	flag.DurationVar(&jail.BanTime, "bantime", 0, "`TIME` that a ban lasts; 0 is for ever: with an end they came straight back")
	flag.Parse()
	jail.Forever, jail.Ignore = jail.BanTime == 0, flags.Allow

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flags, ports, &jail); err != nil {
		fmt.Fprintln(os.Stderr, "timewait:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, flags bouncer.Flags, ports []uint16, jail *ban.Jail) error {
	if err := jail.Check(); err != nil {
		return err
	}
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Adopt(ctx, time.Now(), jail); err != nil {
		return err
	}
	return b.Every(ctx, func(ctx context.Context, now time.Time) error {
		hits, err := waiting(ctx, b.Sockets, ports)
		if err != nil {
			return err
		}
		return b.Ban(ctx, jail.Add(now, hits...))
	})
}

// waiting counts the connections in TIME_WAIT of each source.
func waiting(ctx context.Context, diag *sockdiag.Conn, ports []uint16) ([]ban.Hit, error) {
	counts := make(map[netip.Addr]int)
	for _, port := range ports {
		q := sockdiag.Query{States: sockdiag.States(sockdiag.TimeWait), LocalPort: port}
		for s, err := range diag.All(ctx, q) {
			if err != nil {
				return nil, err
			}
			counts[s.Remote.Addr()]++
		}
	}
	var hits []ban.Hit
	for source, n := range counts {
		hits = append(hits, ban.Hit{Source: source, Count: n, Reason: fmt.Sprintf("%d in TIME_WAIT", n)})
	}
	return hits, nil
}
