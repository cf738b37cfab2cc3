package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/bouncer/replay"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// TestFlood is S4: of three sources in each family that leave connections in
// TIME_WAIT on port 443, those that come to 40 are banned for ever.
func TestFlood(t *testing.T) {
	replay.Each(t, func(w *replay.Town) {
		bad, near, few := w.Visitor(1), w.Visitor(2), w.Visitor(3)
		w.Serve(443, replay.HangUp)
		w.Serve(5060, replay.Echo)
		p := replay.Start(w.T, w.Server, w.Args("-every", "100ms")...)
		held := bad.Open(false, 5060, 1)
		near.Come(false, 443, 39)
		for _, ipv6 := range []bool{false, true} {
			few.Come(ipv6, 443, 5)
			bad.Come(ipv6, 443, 45)
			l := insist(p, "banned", bad, ipv6)
			var rows []sockdiag.Socket
			if err := json.Unmarshal(l.Evidence, &rows); err != nil || l.Until != "forever" || len(rows) == 0 || rows[0].State != sockdiag.TimeWait {
				w.Errorf("%+v: evidence %s: %v", l, l.Evidence, err)
			}
			p.Await("cut", bad.Source(ipv6))
		}
		w.Gone(held)
		if l, ok := p.Find("banned", near.Source(false)); ok {
			w.Fatalf("banned with 39 connections: %+v", l)
		}
		insist(p, "banned", near, false)
		p.Stop(syscall.SIGTERM)
		for _, l := range p.Lines() {
			if l.Prefix == few.Source(false) || l.Prefix == few.Source(true) || l.Prefix == near.Source(true) || l.Action == "note" {
				w.Errorf("told: %+v", l)
			}
		}
		bad.Banned(false, 5060)
		bad.Banned(true, 5060)
		few.Served(5060)
		switch w.Ban {
		case "nft":
			w.Lists(bad.Addr4().String()+" counter", "2001:db8:101:: counter")
		case "ipset":
			w.Lists(bad.Addr4().String()+" timeout 0 ", "2001:db8:101::/64 timeout 0 ")
		case "fail2ban":
			w.Lists("-A f2b-connsleuth -s 10.0.1.2/32 -j REJECT ", "-A f2b-connsleuth -s 2001:db8:101::/64 -j REJECT ")
		}
	})
}

// insist has a visitor come, after a moment, until that is told: one that comes
// from a port which the server still has in TIME_WAIT takes the place of that
// connection, and is not counted.
func insist(p *replay.Program, action string, v *replay.Visitor, ipv6 bool) (l replay.Line) {
	next := time.Now().Add(time.Second)
	p.Until(action+" "+v.Source(ipv6), func() (ok bool) {
		if l, ok = p.Find(action, v.Source(ipv6)); !ok && time.Now().After(next) {
			next = next.Add(50 * time.Millisecond)
			comes(v, ipv6)
		}
		return ok
	})
	return l
}

// comes makes a connection, if it is let in, until the server hangs up.
func comes(v *replay.Visitor, ipv6 bool) {
	if c, err := v.Dial(ipv6, 443, time.Second); err == nil {
		_ = replay.Over(c) // by the server, or cut
		_ = c.Close()
	}
}

// TestHits: a line for each connection, which fail2ban counts with the parameters
// of S4: it bans at the 40th, in both families, and not whom it is told to ignore.
func TestHits(t *testing.T) {
	t.Parallel()
	w := replay.WithLog(t)
	bad, near, few, db := w.Visitor(1), w.Visitor(2), w.Visitor(3), w.Visitor(9)
	w.Serve(443, replay.HangUp)
	w.Serve(5060, replay.Echo)
	p := replay.Start(t, w.Server, "-apply", "-json", "-every", "100ms", "-hits", w.Jailer.Path(replay.Hits), "-allow", "10.0.3.0/24")
	near.Come(false, 443, 39)
	for _, ipv6 := range []bool{false, true} {
		db.Come(ipv6, 443, 45)
		bad.Come(ipv6, 443, 45)
	}
	few.Come(false, 443, 45)
	few.Come(true, 443, 5)
	bad.Shut(false, 443)
	bad.Shut(true, 443)
	w.Jailed("connsleuth-hits", bad.Addr4().String(), bad.Addr6().String())
	for _, v := range []*replay.Visitor{near, few, db} {
		v.Served(5060)
		v.Come(false, 443, 1)
		v.Come(true, 443, 1)
	}
	near.Shut(false, 443) // by its 40th
	w.Jailed("connsleuth-hits", near.Addr4().String())
	near.Come(true, 443, 1)
	p.Stop(syscall.SIGTERM)
	if lines := p.Lines(); len(lines) > 0 {
		t.Errorf("told: %+v", lines)
	}
	lines, err := os.ReadFile(w.Jailer.Path(replay.Hits))
	if n := strings.Count(string(lines), "[10.0.1.2]\n"); err != nil || n < 40 || strings.Contains(string(lines), "[10.0.3.") {
		t.Errorf("%v: %d lines of 10.0.1.2, or some of whom -allow has", err, n)
	}
}

// TestDryRun: without -apply and without any capability it says what it would do.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	bad := w.Visitor(1)
	w.Serve(443, replay.HangUp)
	w.Serve(22, replay.Echo)
	p := replay.StartPlain(t, w.Server, "-json", "-every", "100ms", "-maxretry", "3", "-bantime", "1h")
	p.Await("note", "")
	bad.Come(true, 443, 5)
	l := insist(p, "would-ban", bad, true)
	if until, err := time.Parse(time.RFC3339, l.Until); err != nil || !until.After(l.Time.Add(59*time.Minute)) {
		t.Errorf("would ban until %s: %v", l.Until, err)
	}
	var preview struct{ Sockets, Flows int }
	if err := json.Unmarshal(l.Preview, &preview); err != nil || preview.Sockets == 0 || preview.Flows != 0 {
		t.Errorf("preview %s: %v", l.Preview, err)
	}
	// One with a live session on port 22 is not.
	bad.Open(false, 22, 1)
	bad.Come(false, 443, 5)
	p.Await("refused", bad.Source(false))
	p.Stop(syscall.SIGINT)
}

// TestRefusedCountsAnew: who was protected and is not any more, is banned when it
// goes on.
func TestRefusedCountsAnew(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	bad := w.Visitor(1)
	w.Serve(443, replay.HangUp)
	w.Serve(22, replay.Echo)
	session := bad.Open(false, 22, 1)[0]
	p := replay.Start(t, w.Server, w.Args("-every", "100ms", "-maxretry", "3")...)
	bad.Come(false, 443, 5)
	p.Await("refused", bad.Source(false))
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(replay.Patience); time.Now().Before(end); {
		for range 3 {
			comes(bad, false)
		}
		if _, ok := p.Find("banned", bad.Source(false)); ok {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("never banned")
}

// TestUsage: arguments that make no sense are told, with status 2.
func TestUsage(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	for _, args := range [][]string{
		{"apply"}, {"-every", "-1s"}, {"-bantime", "-1s"}, {"-maxretry", "0"}, {"-maxretry", "-1"}, {"-backend", "iptables"},
		{"-ports", ""}, {"-ports", "0"}, {"-allow", "192.0.2.0/33"}, {"-findtime", "0"},
	} {
		p := replay.Start(t, w.Server, append(args, "-rounds", "1")...)
		if status := p.Wait(); status != 2 {
			out, log := p.Text()
			t.Errorf("%q: status %d: %s%s", args, status, out, log)
		}
	}
}
