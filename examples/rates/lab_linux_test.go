package main

import (
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/bouncer/replay"
)

// TestFlood is S11: 200 connections in 30 s, none of which any snapshot shows, and
// with the default limits 128 in 10 minutes.
func TestFlood(t *testing.T) {
	replay.Each(t, func(w *replay.Town) {
		bad, near := w.Visitor(1), w.Visitor(2)
		w.Serve(80, replay.HangUp)
		w.Serve(5060, replay.Echo)
		count, text, args := 128, "128 connections to port 80 within 10m0s", w.Args()
		if w.Ban != "memory" {
			count, text, args = 200, "200 connections to port 80 within 30s", w.Args("-limits", "200/30s")
		}
		p := replay.Start(w.T, w.Server, args...)
		p.Says("watching")
		for _, ipv6 := range []bool{false, true} {
			held := bad.Open(ipv6, 5060, 1)
			near.Come(ipv6, 80, 100)
			bad.Come(ipv6, 80, count-1)
			if l, ok := p.Find("banned", bad.Source(ipv6)); ok {
				w.Errorf("banned early: %+v", l)
			}
			_, _ = bad.Dial(ipv6, 80, replay.Patience) // cut, maybe before it knows that it is connected
			source := bad.Addr4().String()
			if ipv6 {
				source = bad.Source(true)
			}
			if l := p.Await("banned", bad.Source(ipv6)); l.Reason != source+" opened "+text || len(l.Evidence) == 0 {
				w.Errorf("%+v", l)
			}
			// Without a ban the last of them are still coming.
			if l := p.Await("cut", bad.Source(ipv6)); !l.Cut.Done && w.Ban != "memory" {
				w.Errorf("%+v", l)
			}
			w.Gone(held)
			bad.Banned(ipv6, 5060)
		}
		near.Served(5060)
		if w.Ban == "fail2ban" {
			text = "-A f2b-connsleuth-600 -s " + bad.Source(false) // which has no reasons
		}
		w.Lists(text)
		p.Stop(syscall.SIGTERM)
		for _, l := range p.Lines() {
			if l.Prefix == near.Source(false) || l.Prefix == near.Source(true) || l.Action == "note" {
				w.Errorf("told: %+v", l)
			}
		}
	})
}

// TestFor ends by itself, and without the capability says what it takes.
func TestFor(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	p := replay.Start(t, w.Server, "-for", "100ms")
	if status := p.Wait(); status != 0 {
		_, log := p.Text()
		t.Errorf("status %d: %s", status, log)
	}
	p = replay.StartPlain(t, w.Server, "-for", "1m", "-json")
	if status := p.Wait(); status != 1 {
		t.Errorf("without the capability: status %d", status)
	}
	p.Says("CAP_NET_ADMIN")
}

func TestLimits(t *testing.T) {
	for _, text := range []string{"", "200", "200/", "/30s", "0/30s", "200/0s", "200/30s,", "200/10ms", "-1/30s"} {
		if got, err := limits(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	got, err := limits("200/30s,128/600s")
	if err != nil || len(got) != 2 || got[0].String() != "200 in 30s" || got[1].String() != "128 in 10m0s" {
		t.Errorf("%v, %v", got, err)
	}
}
