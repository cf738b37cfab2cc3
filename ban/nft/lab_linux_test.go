package nft_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
	rules "github.com/connsleuth/connsleuth/internal/nft"
)

// pipe is both ends of a TCP connection.
type pipe struct{ from, to net.Conn }

// connect makes a connection to port 7 and has it talk.
func connect(t *testing.T, from, to *lab.Host, addr netip.Addr, local netip.AddrPort) pipe {
	t.Helper()
	at := netip.AddrPortFrom(addr, 7)
	l, err := to.Listen("tcp", at)
	ok(t, err)
	defer l.Close() //nolint:errcheck // nothing is lost
	c, err := from.Dial(t.Context(), "tcp", local, at, nil)
	ok(t, err)
	d, err := l.Accept()
	ok(t, err)
	t.Cleanup(func() { _, _ = c.Close(), d.Close() })
	p := pipe{c, d}
	p.talks(t)
	return p
}

const (
	patience = 20 * time.Second
	// silence is how long nothing must come where nothing can: a packet takes no
	// time here, and TCP repeats the first ones after 0.2 and 0.6 seconds.
	silence = time.Second
)

// talks wants a byte from each end to arrive at the other.
func (p pipe) talks(t *testing.T) {
	t.Helper()
	for _, way := range []pipe{p, {p.to, p.from}} {
		_, err := way.from.Write([]byte{1})
		ok(t, err)
		ok(t, way.to.SetReadDeadline(time.Now().Add(patience)))
		if _, err := io.ReadFull(way.to, make([]byte, 1)); err != nil {
			t.Fatalf("%v to %v: %v", way.from.LocalAddr(), way.from.RemoteAddr(), err)
		}
	}
}

// dead wants nothing to arrive that the end from sends, and then, once healed
// was called, all of it.
func (p pipe) dead(t *testing.T, heal func()) {
	t.Helper()
	_, err := p.from.Write([]byte{1})
	ok(t, err)
	ok(t, p.to.SetReadDeadline(time.Now().Add(silence)))
	if n, err := p.to.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatalf("a banned source is heard: %v", p.from.LocalAddr())
	}
	if heal == nil {
		return
	}
	heal()
	ok(t, p.to.SetReadDeadline(time.Now().Add(patience))) // until it is sent again
	if _, err := io.ReadFull(p.to, make([]byte, 1)); err != nil {
		t.Errorf("after the ban: %v", err)
	}
	p.talks(t)
}

// refused wants no new connection.
func refused(t *testing.T, from, to *lab.Host, addr netip.Addr, local netip.AddrPort) {
	t.Helper()
	at := netip.AddrPortFrom(addr, 8)
	l, err := to.Listen("tcp", at)
	ok(t, err)
	defer l.Close() //nolint:errcheck // nothing is lost
	ctx, cancel := context.WithTimeout(t.Context(), silence)
	defer cancel()
	if c, err := from.Dial(ctx, "tcp", local, at, nil); err == nil {
		_ = c.Close()
		t.Errorf("a banned source connects: %v", c.LocalAddr())
	}
}

// family is which addresses a test has.
type family struct {
	name string
	addr func(v4, v6 netip.Addr) netip.Addr
	ban  func(netip.Addr) netip.Prefix
}

var families = []family{
	{"IPv4", func(v4, _ netip.Addr) netip.Addr { return v4 }, ban.Host},
	{"IPv6", func(_, v6 netip.Addr) netip.Addr { return v6 }, func(a netip.Addr) netip.Prefix {
		return netip.PrefixFrom(a, 64).Masked()
	}},
}

// TestInput: at a server, the connections of a banned source stop, old and new
// ones; those that the server opens to it, and those of others, go on. In IPv6
// the whole /64 is banned.
func TestInput(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := lab.New(t)
			server, bad, good := n.MustHost(t, "server"), n.MustHost(t, "bad"), n.MustHost(t, "good")
			ok(t, n.Link(server, bad, lab.Near4, lab.Near6))
			ok(t, n.Link(server, good, lab.Far4, lab.Far6))
			ok(t, server.Rules(t.Context(), rules.Table{Family: rules.INet, Name: "filter", Chains: []rules.Chain{
				{Name: "input", Hook: rules.Input, Rules: []rules.Rule{{CTState: rules.Established, Verdict: rules.Accept}}},
			}}))
			b := open(t, server, nft.Config{Counters: true})
			here, from := f.addr(server.Addrs(bad)), f.addr(bad.Addrs(server))
			old := connect(t, bad, server, here, netip.AddrPort{})
			own := connect(t, server, bad, from, netip.AddrPort{})
			other := connect(t, good, server, f.addr(server.Addrs(good)), netip.AddrPort{})

			prefix := f.ban(from)
			ok(t, b.Ban(t.Context(), ban.Entry{Prefix: prefix, Until: ban.Forever}))
			ok(t, b.Enforcing(t.Context()))
			old.dead(t, func() {
				packets, bytes, err := b.Dropped(t.Context(), prefix)
				if err != nil || packets == 0 || bytes < 40*packets {
					t.Errorf("Dropped %d packets, %d bytes: %v", packets, bytes, err)
				}
				refused(t, bad, server, here, netip.AddrPort{})
				if more, _, err := b.Dropped(t.Context(), prefix); err != nil || more <= packets {
					t.Errorf("Dropped %d packets, and then %d: %v", packets, more, err)
				}
				own.talks(t)
				other.talks(t)
				connect(t, server, bad, from, netip.AddrPort{}).talks(t)
				ok(t, b.Unban(t.Context(), prefix))
			})
			connect(t, bad, server, here, netip.AddrPort{})

			// A ban that ends by itself.
			ok(t, b.Ban(t.Context(), ban.Entry{Prefix: prefix, Until: ban.For(time.Now(), 2*silence)}))
			old.dead(t, func() {})
		})
	}
}

// TestInvalid: packets that belong to no connection do not pass either, such as
// those of a connection that was deleted where tracking picks up none midway.
func TestInvalid(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	b := open(t, server, nft.Config{})
	ok(t, server.SetSysctl("net.netfilter.nf_conntrack_tcp_loose", "0"))
	c := connect(t, client, server, server.Addr4(), netip.AddrPort{})
	if _, err := server.Exec(t.Context(), "conntrack", "-F"); err != nil {
		t.Skip(err)
	}
	c.talks(t) // it is not tracked, and passes
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: ban.Host(client.Addr4()), Until: ban.Forever}))
	c.dead(t, nil)
}

// TestForward: at a router that translates addresses both ways.
func TestForward(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			bad, router, server := lab.Three(t)
			v4, v6 := router.Addrs(bad)
			public, inside := f.addr(v4, v6), f.addr(server.Addr4(), server.Addr6())
			ok(t, router.Rules(t.Context(), rules.Table{Family: rules.INet, Name: "nat", Chains: []rules.Chain{
				{Name: "in", Type: rules.NAT, Hook: rules.Prerouting, Priority: rules.PriorityDstNAT, Rules: []rules.Rule{
					{Dst: ban.Host(public), Proto: rules.TCP, DstPort: 7, Verdict: rules.DNAT, To: netip.AddrPortFrom(inside, 0)},
				}},
				{Name: "out", Type: rules.NAT, Hook: rules.Postrouting, Priority: rules.PrioritySrcNAT, Rules: []rules.Rule{
					{OutIface: "client", Verdict: rules.Masquerade},
				}},
			}}))
			b := open(t, router, nft.Config{})
			from := f.addr(bad.Addrs(router))
			old := forwarded(t, bad, server, public, inside)
			own := connect(t, server, bad, from, netip.AddrPort{}) // masqueraded
			ok(t, b.Ban(t.Context(), ban.Entry{Prefix: f.ban(from), Until: ban.Forever}))
			old.dead(t, func() {
				own.talks(t)
				connect(t, server, bad, from, netip.AddrPort{})
				ok(t, b.Unban(t.Context(), f.ban(from)))
			})
		})
	}
}

// forwarded is connect to an address that the router translates.
func forwarded(t *testing.T, from, to *lab.Host, public, inside netip.Addr) pipe {
	t.Helper()
	l, err := to.Listen("tcp", netip.AddrPortFrom(inside, 7))
	ok(t, err)
	defer l.Close() //nolint:errcheck // nothing is lost
	c, err := from.Dial(t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(public, 7), nil)
	ok(t, err)
	d, err := l.Accept()
	ok(t, err)
	t.Cleanup(func() { _, _ = c.Close(), d.Close() })
	p := pipe{c, d}
	p.talks(t)
	return p
}

// TestPorts: of a ban with a scope, other ports know nothing.
func TestPorts(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	b := open(t, server, nft.Config{Ports: []nft.Port{{Proto: 6, Port: 8}, {Proto: 17, Port: 53}}})
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: ban.Host(client.Addr4()), Until: ban.Forever}))
	ok(t, b.Enforcing(t.Context()))
	connect(t, client, server, server.Addr4(), netip.AddrPort{}) // port 7
	refused(t, client, server, server.Addr4(), netip.AddrPort{}) // port 8
}

// TestNeighbour: a banned neighbour can be found yet, so that what is opened to it
// works in IPv6 too.
func TestNeighbour(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	b := open(t, server, nft.Config{})
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: netip.PrefixFrom(client.Addr6(), 64).Masked(), Until: ban.Forever}))
	if _, err := server.Exec(t.Context(), "ip", "-6", "neigh", "del", client.Addr6().String(), "dev", "client"); err != nil {
		t.Skip(err)
	}
	connect(t, server, client, client.Addr6(), netip.AddrPort{})
}

// nftTool is "nft" on a host.
func nftTool(t *testing.T, h *lab.Host, args ...string) string {
	t.Helper()
	lab.Tool(t, "nft")
	out, err := h.Exec(t.Context(), "nft", args...)
	ok(t, err)
	return string(out)
}

// TestTool: nft(8) shows what was banned, for how long and why.
func TestTool(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b := open(t, h, nft.Config{Counters: true, Log: &nft.Log{Group: 3, Prefix: "banned: "}})
	long := "say \"why\"\nand: " + strings.Repeat("é", 300)
	ok(t, b.Ban(t.Context(),
		ban.Entry{Prefix: netip.MustParsePrefix("203.0.113.7/32"), Until: ban.For(time.Now(), 2*time.Hour), Reason: "Conn Cnt: 684 is greater than limit:60"},
		ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Until: ban.Forever, Reason: long},
		ban.Entry{Prefix: netip.MustParsePrefix("2001:db8:7::/64"), Until: ban.Forever},
		ban.Entry{Prefix: netip.MustParsePrefix("2001:db8::1/128"), Until: ban.Forever}))
	ok(t, b.Enforcing(t.Context()))
	text := strings.ReplaceAll(nftTool(t, h, "list", "table", "inet", "connsleuth"), "== @", "@") // by version
	for _, want := range []string{
		"set ipv4_32 {", "type ipv4_addr", "flags timeout",
		`203.0.113.7 counter packets 0 bytes 0 timeout 2h expires `, `comment "Conn Cnt: 684 is greater than limit:60"`,
		`198.51.100.0 counter packets 0 bytes 0 comment "say 'why' and: ` + strings.Repeat("é", 52) + `"`,
		"2001:db8:7:: counter", "2001:db8::1 counter",
		"type filter hook input priority filter - 10; policy accept;", "type filter hook forward priority filter - 10; policy accept;",
		"ct direction reply accept", "ct state untracked meta l4proto ipv6-icmp accept", "jump banned",
		`ip saddr @ipv4_32 log prefix "banned: " group 3 drop`, `ip saddr & 255.255.255.0 @ipv4_24 log prefix "banned: " group 3 drop`,
		`ip6 saddr & ffff:ffff:ffff:ffff:: @ipv6_64 log prefix "banned: " group 3 drop`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	// And what nft(8) bans is listed, with its end.
	nftTool(t, h, "add", "element", "inet", "connsleuth", "ipv4_32", "{ 192.0.2.9 timeout 30m comment \"by hand\" }")
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		left, _ := e.Until.Left(time.Now())
		if e.Prefix == netip.MustParsePrefix("192.0.2.9/32") && (e.Reason != "by hand" || left < 29*time.Minute || left > 31*time.Minute) {
			t.Errorf("listed as %v", e)
		}
	}
	// What it banned for ever gets an end.
	nftTool(t, h, "add", "element", "inet", "connsleuth", "ipv4_32", "{ 192.0.2.10 }")
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("192.0.2.10/32"), Until: ban.For(time.Now(), time.Hour)}))
	if text := nftTool(t, h, "list", "set", "inet", "connsleuth", "ipv4_32"); !strings.Contains(text, "192.0.2.10 counter packets 0 bytes 0 timeout ") {
		t.Error(text)
	}
	if _, _, err := b.Dropped(t.Context(), netip.MustParsePrefix("192.0.2.11/32")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dropped of a host that is not banned: %v", err)
	}
}
