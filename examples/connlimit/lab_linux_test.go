package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/bouncer/replay"
)

// TestFlood is S5: one source holds 120 connections of each family, and is banned
// for 270 s. The database peer with 43, one that works with 62, and one with 62
// that is allowed to are not.
func TestFlood(t *testing.T) {
	replay.Each(t, func(w *replay.Town) {
		bad, db, busy, office, fresh := w.Visitor(1), w.Visitor(2), w.Visitor(3), w.Visitor(4), w.Visitor(5)
		w.Serve(5060, replay.Echo)
		attack4, attack6 := bad.Open(false, 5060, 120), bad.Open(true, 5060, 61)
		good := [][]net.Conn{db.Open(false, 5060, 43), busy.Open(false, 5060, 62), office.Open(true, 5060, 62)}
		for _, c := range good[1] {
			if err := replay.Talk(c, strings.Repeat("request ", 20)); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond) // all have been idle for longer than -silence
		p := replay.Start(w.T, w.Server, w.Args("-silence", "10ms", "-every", "300ms", "-allow", "2001:db8:104::/64")...)
		for _, ipv6 := range []bool{false, true} {
			want := "Conn Cnt: 120 is greater than limit:60"
			if ipv6 {
				want = "Conn Cnt: 61 is greater than limit:60"
			}
			l := p.Await("banned", bad.Source(ipv6))
			until, err := time.Parse(time.RFC3339, l.Until)
			left := until.Sub(l.Time).Round(10 * time.Second)
			if err != nil || left != 270*time.Second || l.Reason != want || !strings.Contains(string(l.Evidence), "IdleFlood") {
				w.Errorf("%+v: %v left: %v", l, left, err)
			}
			if l := p.Await("cut", bad.Source(ipv6)); !l.Cut.Done {
				w.Errorf("cut: %+v", l)
			}
		}
		w.Gone(append(attack4, attack6...))
		switch w.Ban {
		case "nft":
			w.Lists(bad.Addr4().String()+" counter", "timeout 4m", `comment "Conn Cnt: 120 is greater than limit:60"`, "2001:db8:101:: ")
		case "ipset":
			w.Lists("hashsize 1024 maxelem 65536 timeout 300", bad.Addr4().String()+" timeout 2",
				`comment "Conn Cnt: 120 is greater than limit:60"`, "2001:db8:101::/64 timeout 2")
		case "fail2ban":
			w.Lists("-A f2b-connsleuth-270 -s 10.0.1.2/32 -j REJECT ", "-A f2b-connsleuth-270 -s 2001:db8:101::/64 -j REJECT ")
		}
		bad.Banned(false, 5060)
		bad.Banned(true, 5060)
		fresh.Served(5060)
		p.Stop(syscall.SIGTERM)
		for _, conns := range good {
			for _, c := range conns {
				if err := replay.Talk(c, "x"); err != nil {
					w.Fatalf("%v: %v", c.LocalAddr(), err)
				}
			}
		}
		for _, l := range p.Lines() {
			if l.Action != "cut" && l.Prefix != bad.Source(false) && l.Prefix != bad.Source(true) {
				w.Errorf("told: %+v", l)
			}
		}
	})
}

// TestBusy counts all connections, tells people, and does nothing.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	bad := w.Visitor(1)
	w.Serve(5060, replay.Echo)
	conns := bad.Open(false, 5060, 6)
	for _, c := range conns {
		if err := replay.Talk(c, strings.Repeat("request ", 20)); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"-limit 5":                                "",
		"-limit 5 -busy -ports 5061":              "",
		"-limit 6 -busy":                          "",
		"-limit 5 -busy -bantime 0":               "would ban 10.0.1.2/32 until forever: Conn Cnt: 6 is greater than limit:5; it would cut 6 sockets, 6 flows, ",
		"-limit 5 -busy -ports 5060 -backend nft": "would ban 10.0.1.2/32 until 2",
	} {
		p := replay.Start(t, w.Server, append(strings.Fields(args), "-every", "0")...)
		status := p.Wait()
		out, log := p.Text()
		if status != 0 || log != "" || (want == "") != (out == "") || !strings.HasPrefix(out, want) {
			t.Errorf("%s: status %d: %q, %q; want %q", args, status, out, log, want)
		}
	}
	for _, c := range conns {
		if err := replay.Talk(c, "x"); err != nil {
			t.Errorf("after a dry run: %v", err)
		}
	}
}

// TestNotPermitted: to act takes CAP_NET_ADMIN, and the error says so.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	p := replay.StartPlain(t, w.Server, w.Args("-backend", "nft", "-every", "0")...)
	status := p.Wait()
	if _, log := p.Text(); status != 1 || !strings.Contains(log, "CAP_NET_ADMIN") {
		t.Errorf("status %d: %q", status, log)
	}
}

// TestNoEffect: a set that no rule refers to bans nobody, which is told, with the
// rule.
func TestNoEffect(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	p := replay.Start(t, w.Server, w.Args("-backend", "ipset", "-every", "0")...)
	status := p.Wait()
	if l, ok := p.Find("note", ""); status != 0 || !ok || !strings.Contains(l.Error, "iptables -") {
		t.Errorf("status %d: %+v", status, l)
	}
}
