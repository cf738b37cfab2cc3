// Command timewait bans sources that leave many connections in TIME_WAIT behind:
// at each look, every connection of a source that is new in TIME_WAIT on one of
// the ports counts, and who comes to -maxretry of them within -findtime is banned
// for ever, or for -bantime. By default it only says what it would do. With -hits
// it writes a line for each, for a jail of fail2ban to count, and bans nobody.
//
//	go run ./examples/timewait [-apply] [-backend NAME] [-ports 80,443] [-allow PREFIXES]
//	go run ./examples/timewait -apply -hits /var/log/connsleuth-hits.log
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
	"github.com/connsleuth/connsleuth/internal/bouncer"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	var flags bouncer.Flags
	flags.Register(flag.CommandLine, 0) // with an end they came straight back
	var loop bouncer.Loop
	loop.Register(flag.CommandLine, 10*time.Minute)
	ports := bouncer.Ports{80, 443}
	flag.Var(&ports, "ports", "`PORTS` of this host to look at, joined by commas")
	jail := ban.Jail{MaxRetry: 40, FindTime: 750 * time.Second}
	flag.IntVar(&jail.MaxRetry, "maxretry", jail.MaxRetry, "`N` connections earn a ban")
	flag.DurationVar(&jail.FindTime, "findtime", jail.FindTime, "`TIME` in which they are counted together")
	hits := flag.String("hits", "", "with -apply, append a line for each connection to `FILE`, for fail2ban's jail connsleuth-hits, and ban nobody")
	bouncer.Main("bans sources that leave many connections in TIME_WAIT behind.", func(ctx context.Context) error {
		jail.BanTime, jail.Forever, jail.Ignore = flags.BanTime, flags.BanTime == 0, flags.Allow
		if err := jail.Check(); err != nil {
			return bouncer.Usagef("%w", err)
		}
		if len(ports) == 0 || jail.MaxRetry == 0 || jail.FindTime == 0 {
			return bouncer.Usagef("-ports, -maxretry and -findtime must not be empty or 0")
		}
		w := &watch{ports: ports, jail: jail}
		if *hits != "" && flags.Apply {
			return record(ctx, loop, w, *hits)
		}
		return run(ctx, flags, loop, w)
	})
}

func run(ctx context.Context, flags bouncer.Flags, loop bouncer.Loop, w *watch) error {
	b, err := bouncer.Open(ctx, flags, os.Stdout)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Adopt(ctx, time.Now(), &w.jail); err != nil {
		return err
	}
	return loop.Run(ctx, func(ctx context.Context, now time.Time) error {
		hits, err := w.look(ctx, b.Sockets)
		if err != nil {
			return err
		}
		refused, err := b.Ban(ctx, w.jail.Add(now, hits...)...)
		for _, p := range refused {
			w.jail.Pardon(p) // it is not banned: count it anew
		}
		return err
	})
}

// record writes down who is to be counted. Whom fail2ban is to ignore is for its
// ignoreip to say, besides -allow.
func record(ctx context.Context, loop bouncer.Loop, w *watch, file string) error {
	diag, err := sockdiag.Dial(nil)
	if err != nil {
		return err
	}
	defer diag.Close()
	return loop.Run(ctx, func(ctx context.Context, now time.Time) error {
		hits, err := w.look(ctx, diag)
		if err != nil {
			return err
		}
		var lines []byte
		for _, h := range hits {
			allowed := slices.ContainsFunc(w.jail.Ignore, func(p netip.Prefix) bool { return p.Contains(h.Source) })
			for n := 0; n < h.Count && !allowed; n++ {
				lines = fail2ban.AppendHit(lines, now, h.Source)
			}
		}
		return bouncer.Append(file, lines)
	})
}

// ends are those of a connection.
type ends struct{ local, remote netip.AddrPort }

// watch is what goes on from look to look.
type watch struct {
	ports []uint16
	jail  ban.Jail
	seen  map[ends]bool // by the look before: TIME_WAIT lasts a minute
}

// look counts the connections of each source that are new in TIME_WAIT, and keeps
// three of them as evidence.
func (w *watch) look(ctx context.Context, diag *sockdiag.Conn) ([]ban.Hit, error) {
	counts, rows, seen := make(map[netip.Addr]int), make(map[netip.Addr][]sockdiag.Socket), make(map[ends]bool)
	for _, port := range w.ports {
		q := sockdiag.Query{States: sockdiag.States(sockdiag.TimeWait), LocalPort: port}
		for s, err := range diag.All(ctx, q) {
			if err != nil {
				return nil, err
			}
			seen[ends{s.Local, s.Remote}] = true
			source := s.Remote.Addr()
			if w.seen[ends{s.Local, s.Remote}] {
				continue
			}
			if counts[source]++; len(rows[source]) < 3 {
				rows[source] = append(rows[source], s)
			}
		}
	}
	w.seen = seen
	var hits []ban.Hit
	for source, n := range counts {
		evidence, err := json.Marshal(rows[source])
		if err != nil {
			return nil, err
		}
		hits = append(hits, ban.Hit{Source: source, Count: n, Reason: fmt.Sprintf("%d in TIME_WAIT", n), Evidence: string(evidence)})
	}
	return hits, nil
}
