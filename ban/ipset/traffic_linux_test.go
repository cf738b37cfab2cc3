package ipset_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// scene is a server with two visitors, each with a link of its own, and the
// rules that Rules wants.
type scene struct {
	*testing.T
	server, bad, db *lab.Host
	ipv6            bool
	sets            *ipset.Sets
}

func newScene(t *testing.T, ipv6 bool) *scene {
	t.Helper()
	n := lab.New(t)
	s := &scene{T: t, ipv6: ipv6, server: n.MustHost(t, "server"), bad: n.MustHost(t, "bad"), db: n.MustHost(t, "db")}
	ok(t, n.Link(s.server, s.bad, lab.Near4, lab.Near6))
	ok(t, n.Link(s.server, s.db, lab.Far4, lab.Far6))
	lab.Tool(t, "iptables")
	s.sets = open(t, s.server, ipset.Config{Name: "banned", Counters: true})
	if err := s.sets.Enforcing(t.Context()); !errors.Is(err, ban.ErrNotEnforcing) {
		t.Errorf("Enforcing without rules: %v; want ErrNotEnforcing", err)
	}
	for _, rule := range s.sets.Rules() {
		run(t, s.server, rule)
	}
	ok(t, s.sets.Enforcing(t.Context()))
	return s
}

// of returns the address that h has towards another.
func (s *scene) of(h, towards *lab.Host) netip.Addr {
	v4, v6 := h.Addrs(towards)
	if s.ipv6 {
		return v6
	}
	return v4
}

// connect makes a connection, and returns both ends.
func (s *scene) connect(from, to *lab.Host, port uint16) [2]net.Conn {
	s.Helper()
	at := netip.AddrPortFrom(s.of(to, from), port)
	l, err := to.Listen("tcp", at)
	ok(s, err)
	s.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", netip.AddrPort{}, at, nil)
	ok(s, err)
	s.Cleanup(func() { _ = c.Close() })
	d, err := l.Accept()
	ok(s, err)
	s.Cleanup(func() { _ = d.Close() })
	return [2]net.Conn{c, d}
}

// say sends a byte.
func (s *scene) say(c net.Conn) {
	s.Helper()
	_, err := c.Write([]byte("x"))
	ok(s, err)
}

// hears waits for a byte.
func hears(c net.Conn, wait time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

const patience = 20 * time.Second

// goesOn checks both ways of a connection.
func (s *scene) goesOn(pair [2]net.Conn) {
	s.Helper()
	for i := range pair {
		s.say(pair[i])
		ok(s, hears(pair[1-i], patience))
	}
}

// dropped waits until the kernel has counted more packets of a prefix.
func (s *scene) dropped(p netip.Prefix, before uint64) uint64 {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		packets, bytes, err := s.sets.Dropped(s.Context(), p)
		ok(s, err)
		if packets > before && bytes >= packets*40 {
			return packets
		}
		if time.Now().After(deadline) {
			s.Fatalf("%v: %d packets of %d bytes dropped, want more than %d", p, packets, bytes, before)
		}
	}
}

// TestTraffic: what a banned source has open and opens stops; what others have
// and what the server opened to it goes on; unban and the end restore it.
func TestTraffic(t *testing.T) {
	for name, tt := range map[string]struct {
		ipv6 bool
		ban  func(netip.Addr) netip.Prefix
	}{
		"IPv4":       {false, ban.Host},
		"IPv4 range": {false, func(netip.Addr) netip.Prefix { return lab.Near4 }},
		"IPv6":       {true, ban.Host},
		"IPv6 /64":   {true, func(netip.Addr) netip.Prefix { return lab.Near6 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.ipv6)
			p := tt.ban(s.of(s.bad, s.server))
			in, out, other := s.connect(s.bad, s.server, 80), s.connect(s.server, s.bad, 81), s.connect(s.db, s.server, 82)
			s.goesOn(in)
			ok(t, s.sets.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever}))

			s.say(in[0])
			n := s.dropped(p, 0)
			if err := hears(in[1], 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("what the banned source sent arrives: %v", err)
			}
			s.refusesNew()
			s.dropped(p, n)
			s.goesOn(out)
			s.goesOn(other)

			ok(t, s.sets.Unban(t.Context(), p))
			ok(t, hears(in[1], patience))
			s.goesOn(in)

			ok(t, s.sets.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.For(time.Now(), time.Second)}))
			s.say(in[0])
			ok(t, hears(in[1], patience)) // after the end
			s.goesOn(in)
		})
	}
}

// refusesNew checks that the banned source cannot connect.
func (s *scene) refusesNew() {
	s.Helper()
	at := netip.AddrPortFrom(s.of(s.server, s.bad), 80) // where something listens
	ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := s.bad.Dial(ctx, "tcp", netip.AddrPort{}, at, nil)
	if err == nil {
		_ = c.Close()
		s.Error("the banned source connects")
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.Errorf("the banned source is answered: %v", err)
	}
}
