package cut_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scene is a server with two visitors, each with a link of its own.
type scene struct {
	t               *testing.T
	n               *lab.Network
	server, bad, db *lab.Host
	ipv6            bool
	ct              *conntrack.Conn
	diag            *sockdiag.Conn
	cutter          *cut.Cutter
}

// inScenes runs a test in IPv4 and in IPv6.
func inScenes(t *testing.T, test func(*scene)) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := lab.New(t)
			s := &scene{t: t, n: n, ipv6: ipv6, server: n.MustHost(t, "server"), bad: n.MustHost(t, "bad"), db: n.MustHost(t, "db")}
			ok(t, n.Link(s.server, s.bad, lab.Near4, lab.Near6))
			ok(t, n.Link(s.server, s.db, lab.Far4, lab.Far6))
			track(t, s.server)
			s.ct, s.diag = dial(t, s.server)
			s.cutter = &cut.Cutter{Conntrack: s.ct, Sockets: s.diag, Proc: s.server.FS()}
			test(s)
		})
	}
}

// track has a host track connections.
func track(t *testing.T, h *lab.Host) {
	t.Helper()
	ok(t, h.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.Established, Verdict: nft.Accept}}},
	}}))
}

func dial(t *testing.T, h *lab.Host) (*conntrack.Conn, *sockdiag.Conn) {
	t.Helper()
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	ok(t, err)
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
	ok(t, err)
	t.Cleanup(func() {
		for _, c := range []io.Closer{ct, diag} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return ct, diag
}

// of returns the address that h has towards another.
func (s *scene) of(h, towards *lab.Host) netip.Addr {
	v4, v6 := h.Addrs(towards)
	if s.ipv6 {
		return v6
	}
	return v4
}

// pipe is both ends of a connection.
type pipe struct{ client, server net.Conn }

// connect makes a connection and sends a line each way.
func (s *scene) connect(from, to *lab.Host, port uint16) pipe {
	s.t.Helper()
	at := netip.AddrPortFrom(s.of(to, from), port)
	l, err := to.Listen("tcp", at)
	ok(s.t, err)
	c, err := from.Dial(s.t.Context(), "tcp", netip.AddrPort{}, at, nil)
	ok(s.t, err)
	d, err := l.Accept()
	ok(s.t, err)
	for _, c := range []io.Closer{l, c, d} {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	p := pipe{c, d}
	ok(s.t, p.talk())
	return p
}

// talk sends a line each way, and returns why it does not come.
func (p pipe) talk() error {
	for from, to := range map[net.Conn]net.Conn{p.client: p.server, p.server: p.client} {
		deadline := time.Now().Add(10 * time.Second)
		if err := errors.Join(from.SetDeadline(deadline), to.SetDeadline(deadline)); err != nil {
			return err
		}
		if _, err := io.WriteString(from, "hello\n"); err != nil {
			return err
		}
		if _, err := io.ReadFull(to, make([]byte, 6)); err != nil {
			return err
		}
	}
	return nil
}

// over waits until an end is told that the connection is.
func over(t *testing.T, c net.Conn) {
	t.Helper()
	ok(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("read: %v; want the connection reset", err)
	}
}

// TestSources: what the source made ends, in a dry run nothing does, and what
// this host made to it and what others have goes on.
func TestSources(t *testing.T) {
	inScenes(t, func(s *scene) {
		t := s.t
		bad := ban.Host(s.of(s.bad, s.server))
		attacks := []pipe{s.connect(s.bad, s.server, 443), s.connect(s.bad, s.server, 444)}
		listening := s.connect(s.bad, s.server, 445)
		own := s.connect(s.server, s.bad, 5432)
		other := s.connect(s.db, s.server, 446)
		_ = listening

		p, err := s.cutter.Preview(t.Context(), bad)
		ok(t, err)
		if p.Sockets != 3 || p.Flows != 3 || p.OutboundSockets != 1 || p.OutboundFlows != 1 || p.Forwarded != 0 || len(p.Services) != 3 ||
			p.Services[0] != (cut.Service{Proto: conntrack.ProtoTCP, Port: 443, Flows: 1}) {
			t.Errorf("Preview: %v", p)
		}
		r, err := s.cutter.Sources(t.Context(), &cut.Options{DryRun: true}, bad)
		ok(t, err)
		if r.Sockets.WouldDestroy != 3 || r.Flows.WouldDelete != 3 || r.Done() {
			t.Errorf("dry run: %v", r)
		}
		for _, p := range []pipe{attacks[0], attacks[1], listening, own, other} {
			ok(t, p.talk())
		}

		r, err = s.cutter.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Sockets.Destroyed != 3 || r.Flows.Deleted+r.Flows.Gone != 3 || !r.Done() ||
			r.Left != (cut.Left{OutboundSockets: 1, OutboundFlows: 1}) {
			t.Errorf("cut: %v", r)
		}
		for _, p := range append(attacks, listening) {
			over(t, p.server)
			over(t, p.client)
		}
		ok(t, own.talk())
		ok(t, other.talk())

		r, err = s.cutter.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Sockets.Total() != 0 || r.Flows.Total() != 0 || !r.Done() {
			t.Errorf("cut again: %v", r)
		}
		r, err = s.cutter.Sources(t.Context(), &cut.Options{Outbound: true}, bad)
		ok(t, err)
		if r.Sockets.Destroyed != 1 || !r.Done() || r.Left != (cut.Left{}) {
			t.Errorf("cut outbound: %v", r)
		}
		over(t, own.client)
		ok(t, other.talk())
		if !strings.Contains(r.String(), "left: 0 sockets") {
			t.Errorf("String %q", r)
		}
	})
}

// TestPrefix: a prefix holds all of its hosts, and no other.
func TestPrefix(t *testing.T) {
	inScenes(t, func(s *scene) {
		bits := 24
		if s.ipv6 {
			bits = 64
		}
		near, err := s.of(s.bad, s.server).Prefix(bits)
		ok(s.t, err)
		attack, other := s.connect(s.bad, s.server, 443), s.connect(s.db, s.server, 443)
		r, err := s.cutter.Sources(s.t.Context(), nil, near)
		ok(s.t, err)
		if r.Sockets.Destroyed != 1 || !r.Done() {
			s.t.Errorf("cut: %v", r)
		}
		over(s.t, attack.server)
		ok(s.t, other.talk())
	})
}

// TestSessions: the peer of a live session is protected while it lasts.
func TestSessions(t *testing.T) {
	inScenes(t, func(s *scene) {
		admin := s.connect(s.db, s.server, 22)
		s.connect(s.bad, s.server, 443)
		b := ban.Guard{System: cut.Sessions(s.diag, 22, 2222)}.Protect(new(ban.Memory))
		entry := ban.Entry{Prefix: ban.Host(s.of(s.db, s.server)), Until: ban.Forever}
		if err := b.Ban(s.t.Context(), entry); !errors.Is(err, ban.ErrGuarded) || !strings.Contains(err.Error(), "live session on port 22") {
			s.t.Errorf("Ban of a live session: %v", err)
		}
		ok(s.t, b.Ban(s.t.Context(), ban.Entry{Prefix: ban.Host(s.of(s.bad, s.server)), Until: ban.Forever}))
		ok(s.t, errors.Join(admin.client.Close(), admin.server.Close()))
		for deadline := time.Now().Add(10 * time.Second); b.Ban(s.t.Context(), entry) != nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				s.t.Fatal("protected after the session ended")
			}
		}
	})
}

// TestForwarded: what a router forwards is left to the ban, and deleted when
// asked for.
func TestForwarded(t *testing.T) {
	inScenes(t, func(s *scene) {
		t := s.t
		ok(t, s.n.Router(s.server, s.bad, s.db))
		masquerade := nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
			{Name: "post", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
				{OutIface: "db", Verdict: nft.Masquerade},
			}},
		}}
		ok(t, s.server.Rules(t.Context(), masquerade))
		at := netip.AddrPortFrom(s.of(s.db, s.server), 443)
		l, err := s.db.Listen("tcp", at)
		ok(t, err)
		defer l.Close()
		c, err := s.bad.Dial(t.Context(), "tcp", netip.AddrPort{}, at, nil)
		ok(t, err)
		defer c.Close()
		d, err := l.Accept()
		ok(t, err)
		defer d.Close()
		bad := ban.Host(s.of(s.bad, s.server))
		r, err := s.cutter.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Flows.Total() != 0 || r.Left != (cut.Left{Forwarded: 1}) || !r.Done() {
			t.Errorf("cut: %v", r)
		}
		ok(t, pipe{c, d}.talk())
		r, err = s.cutter.Sources(t.Context(), &cut.Options{Forwarded: true}, bad)
		ok(t, err)
		if r.Flows.Deleted != 1 || r.Left != (cut.Left{}) {
			t.Errorf("cut forwarded: %v", r)
		}
	})
}

// TestSocketsFirst shows why: an entry that goes before its socket comes back
// the other way round, made by this host.
func TestSocketsFirst(t *testing.T) {
	inScenes(t, func(s *scene) {
		t := s.t
		p := s.connect(s.bad, s.server, 443)
		// One of nobody's rules: the server drops what the source sends.
		bad := ban.Host(s.of(s.bad, s.server))
		ok(t, s.server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
			{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.Established | nft.New, Src: bad, Verdict: nft.Drop}}},
		}}))
		flow, err := s.ct.Get(t.Context(), tuple(p.server).Invert(), 0)
		ok(t, err)
		ok(t, s.ct.Delete(t.Context(), flow))
		_, err = io.WriteString(p.server, "data\n")
		ok(t, err)
		deadline := time.Now().Add(10 * time.Second)
		for {
			flow, err = s.ct.Get(t.Context(), tuple(p.server), 0)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if flow.Original != tuple(p.server) {
			t.Errorf("the entry is %v; want one that this host made", flow)
		}
		// Cut in the right order, with its entry the wrong way round.
		r, err := s.cutter.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Sockets.Destroyed != 1 || r.Flows.Total() != 1 || !r.Done() || r.Left.OutboundFlows != 0 {
			t.Errorf("cut: %v", r)
		}
	})
}

// tuple is that of the packets that an end sends.
func tuple(c net.Conn) conntrack.Tuple {
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return conntrack.Tuple{
		Src: local.Addr().Unmap(), Dst: remote.Addr().Unmap(), SrcPort: local.Port(), DstPort: remote.Port(), Proto: conntrack.ProtoTCP,
	}
}

// TestParts: a Cutter without one of the two does the other.
func TestParts(t *testing.T) {
	inScenes(t, func(s *scene) {
		t := s.t
		bad := ban.Host(s.of(s.bad, s.server))
		first := s.connect(s.bad, s.server, 443)
		sockets := &cut.Cutter{Sockets: s.diag}
		// Its listener goes on: without entries it tells who made the connection.
		p, err := sockets.Preview(t.Context(), bad)
		ok(t, err)
		if p.Sockets != 1 || p.Flows != 0 || len(p.Services) != 1 {
			t.Errorf("Preview of sockets: %v", p)
		}
		r, err := sockets.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Sockets.Destroyed != 1 || !r.Done() {
			t.Errorf("cut of sockets: %v", r)
		}
		over(t, first.server)
		s.connect(s.bad, s.server, 444)
		flows := &cut.Cutter{Conntrack: s.ct, Proc: s.server.FS()}
		r, err = flows.Sources(t.Context(), nil, bad)
		ok(t, err)
		if r.Flows.Deleted == 0 || r.Sockets.Total() != 0 {
			t.Errorf("cut of flows: %v", r)
		}
	})
}
