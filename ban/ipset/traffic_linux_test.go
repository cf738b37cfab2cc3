package ipset_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// where is a place for the rules: which iptables(8) adds them to which chain.
type where struct {
	chain  string
	flavor string // legacy, nft; the machine's own if empty
}

// scene is a server with two visitors, each with a link of its own. The rules that
// Rules wants are on the server, or on a router in front of it that translates
// addresses both ways.
type scene struct {
	*testing.T
	server, bad, db *lab.Host
	guard           *lab.Host // who has the sets
	ipv6            bool
	where           where
	lock            string
	sets            *ipset.Sets
}

func newScene(t *testing.T, ipv6 bool, at where) *scene {
	t.Helper()
	n := lab.New(t)
	s := &scene{T: t, ipv6: ipv6, where: at, lock: filepath.Join(t.TempDir(), "lock"), server: n.MustHost(t, "server"), bad: n.MustHost(t, "bad"), db: n.MustHost(t, "db")}
	s.guard = s.server
	if at.chain == "FORWARD" {
		s.guard = n.MustHost(t, "router")
		ok(t, n.Link(s.guard, s.server, netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8:3::/64")))
		ok(t, n.Router(s.guard, s.server))
	}
	ok(t, n.Link(s.guard, s.bad, lab.Near4, lab.Near6))
	ok(t, n.Link(s.guard, s.db, lab.Far4, lab.Far6))
	s.iptables("iptables -S")
	s.sets = open(t, s.guard, ipset.Config{Name: "banned", Counters: true})
	s.enforcing(false)
	for _, rule := range s.sets.Rules(at.chain) {
		s.iptables(rule)
	}
	s.enforcing(true)
	if s.guard != s.server {
		s.translate()
	}
	return s
}

// iptables runs a command of iptables or ip6tables. Where the kernel has none of
// the flavor the test is skipped.
func (s *scene) iptables(line string) {
	s.Helper()
	program, args, _ := strings.Cut(line, " ")
	if s.where.flavor != "" {
		program += "-" + s.where.flavor
	}
	// iptables-legacy wants a lock, which may be only root's.
	words := []string{"XTABLES_LOCKFILE=" + s.lock, lab.Tool(s, program), "-w"}
	_, err := s.guard.Exec(s.Context(), "env", append(words, strings.Fields(args)...)...)
	if err != nil && strings.Contains(err.Error(), "Table does not exist") {
		s.Skip(err)
	}
	ok(s, err)
}

// translate makes what comes to the router go to the server, and what the server
// opens come from the router.
func (s *scene) translate() {
	s.Helper()
	to4, to6 := s.server.Addrs(s.guard)
	for program, to := range map[string]netip.Addr{"iptables": to4, "ip6tables": to6} {
		for _, visitor := range []*lab.Host{s.bad, s.db} {
			s.iptables(fmt.Sprintf("%s -t nat -A PREROUTING -i %s -p tcp -j DNAT --to-destination %v", program, visitor.Name(), to))
			s.iptables(fmt.Sprintf("%s -t nat -A POSTROUTING -o %s -j MASQUERADE", program, visitor.Name()))
		}
	}
}

func (s *scene) enforcing(want bool) {
	s.Helper()
	if err := s.sets.Enforcing(s.Context()); want && err != nil || !want && !errors.Is(err, ban.ErrNotEnforcing) {
		s.Errorf("Enforcing: %v; want %v", err, want)
	}
}

// ends returns the addresses at which one host finds another and at which that
// one listens: a router's and the server's differ.
func (s *scene) ends(from, to *lab.Host, port uint16) (at, listen netip.AddrPort) {
	if from == s.server {
		from = s.guard
	}
	listener := to
	if to == s.server {
		to = s.guard
	}
	at = netip.AddrPortFrom(s.of(to, from), port)
	if listener == to {
		return at, at
	}
	return at, netip.AddrPortFrom(s.of(listener, to), port)
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
	at, listen := s.ends(from, to, port)
	l, err := to.Listen("tcp", listen)
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
	range4 := func(netip.Addr) netip.Prefix { return lab.Near4 }
	range6 := func(netip.Addr) netip.Prefix { return lab.Near6 }
	for name, tt := range map[string]struct {
		where
		ipv6 bool
		ban  func(netip.Addr) netip.Prefix
	}{
		"IPv4":                        {where{"INPUT", ""}, false, ban.Host},
		"IPv4 range":                  {where{"INPUT", ""}, false, range4},
		"IPv6":                        {where{"INPUT", ""}, true, ban.Host},
		"IPv6 /64":                    {where{"INPUT", ""}, true, range6},
		"legacy, IPv4":                {where{"INPUT", "legacy"}, false, ban.Host},
		"legacy, IPv6 /64":            {where{"INPUT", "legacy"}, true, range6},
		"legacy, forwarded, IPv4":     {where{"FORWARD", "legacy"}, false, ban.Host},
		"legacy, forwarded, IPv6 /64": {where{"FORWARD", "legacy"}, true, range6},
		"nft, forwarded, IPv4 range":  {where{"FORWARD", "nft"}, false, range4},
		"nft, forwarded, IPv6":        {where{"FORWARD", "nft"}, true, ban.Host},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.ipv6, tt.where)
			p := tt.ban(s.of(s.bad, s.guard))
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

			if tt.flavor == "" { // which does not matter here
				ok(t, s.sets.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.For(time.Now(), time.Second)}))
				s.say(in[0])
				ok(t, hears(in[1], patience)) // after the end
				s.goesOn(in)
			}

			ok(t, s.sets.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever}))
			for _, rule := range s.sets.Rules(tt.chain) {
				s.iptables(strings.Replace(rule, " -I ", " -D ", 1))
			}
			s.enforcing(false)
			s.goesOn(in)
		})
	}
}

// refusesNew checks that the banned source cannot connect.
func (s *scene) refusesNew() {
	s.Helper()
	at, _ := s.ends(s.bad, s.server, 80) // where something listens
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
