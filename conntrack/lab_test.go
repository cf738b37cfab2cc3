package conntrack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

func TestMain(m *testing.M) { lab.Main(m) }

// patience bounds what a test waits for.
const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dialHost opens a Conn to a host's table.
func dialHost(t testing.TB, h *lab.Host) *Conn {
	t.Helper()
	c, err := Dial(&Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

// emptyTable is the table of a host that tracks nothing: it holds what the
// test creates.
func emptyTable(t testing.TB) (*Conn, *lab.Host) {
	t.Helper()
	h := lab.New(t).MustHost(t, "host")
	return dialHost(t, h), h
}

// tuple is a tuple of src, dst "address:port".
func tuple(proto Proto, src, dst string) Tuple {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return Tuple{Proto: proto, Src: s.Addr(), SrcPort: s.Port(), Dst: d.Addr(), DstPort: d.Port()}
}

// entry is a flow to create, without translation.
func entry(t Tuple) Flow {
	return Flow{Original: t, Reply: t.Invert(), Timeout: 100 * time.Second, TCP: TCPInfo{State: TCPEstablished}}
}

// create makes entries and returns them as the kernel has them.
func create(t testing.TB, c *Conn, flows ...Flow) []Flow {
	t.Helper()
	var made []Flow
	for _, f := range flows {
		if err := c.Create(within(t), f); err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		got, err := c.Get(within(t), f.Original, max(f.Zone, f.OriginalZone))
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		made = append(made, got)
	}
	return made
}

// must is for what the test is not about.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

const (
	portOpen       = 80
	portTranslated = 81 // sent to portOpen by the client
	portDropped    = 82
)

// stage is a client that tracks its connections, and a server.
type stage struct {
	t              *testing.T
	client, server *lab.Host
	listeners      map[bool]net.Listener // by "is IPv4"
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, listeners: make(map[bool]net.Listener)}
	s.client, s.server = lab.Two(t)
	must(t, s.client.SetSysctl("net.netfilter.nf_conntrack_acct", "1"),
		s.client.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"),
		s.client.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "100"), // not to expire meanwhile
		s.client.Rules(within(t), s.tracking()),
		s.server.Rules(within(t), nft.Table{Family: nft.INet, Name: "drop", Chains: []nft.Chain{{
			Name: "in", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, DstPort: portDropped, Verdict: nft.Drop}},
		}}}))
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := s.server.Listen(network, netip.AddrPortFrom(netip.Addr{}, portOpen))
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
		s.listeners[network == "tcp4"] = l
	}
	return s
}

func (s *stage) tracking() nft.Table {
	return nft.Table{Family: nft.INet, Name: "track", Chains: []nft.Chain{
		{Name: "out", Hook: nft.Output, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Accept}}},
		{Name: "nat", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDstNAT, Rules: []nft.Rule{{
			Proto: nft.TCP, DstPort: portTranslated, Dst: netip.PrefixFrom(s.server.Addr4(), 32),
			Verdict: nft.DNAT, To: netip.AddrPortFrom(s.server.Addr4(), portOpen),
		}}},
	}}
}

// connect makes a TCP connection and returns its two ends.
func (s *stage) connect(to netip.Addr, port uint16) (client, server *net.TCPConn) {
	s.t.Helper()
	c, err := s.client.Dial(within(s.t), "tcp", netip.AddrPort{}, netip.AddrPortFrom(to, port), nil)
	must(s.t, err)
	a, err := s.listeners[to.Is4()].Accept()
	must(s.t, err)
	s.t.Cleanup(func() { _, _ = c.Close(), a.Close() }) // closed already, most of them
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

// talk sends a byte each way.
func (s *stage) talk(a, b net.Conn) {
	s.t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		_, err := way[0].Write([]byte("x"))
		must(s.t, err)
		_, err = io.ReadFull(way[1], make([]byte, 1))
		must(s.t, err)
	}
}

// tcp brings connections into the states that packets lead to and stay in.
func (s *stage) tcp(to netip.Addr) {
	s.t.Helper()
	s.talk(s.connect(to, portOpen)) // ESTABLISHED

	c, a := s.connect(to, portOpen) // CLOSE_WAIT: the server does not answer the FIN with its own
	must(s.t, c.CloseWrite())
	_, err := io.ReadAll(a)
	must(s.t, err)

	c, a = s.connect(to, portOpen) // TIME_WAIT
	must(s.t, c.CloseWrite(), a.Close())
	_, err = io.ReadAll(c)
	must(s.t, err)

	c, _ = s.connect(to, portOpen) // CLOSE: a RST
	must(s.t, c.SetLinger(0), c.Close())

	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Millisecond) // SYN_SENT
	defer cancel()
	if _, err := s.client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(to, portDropped), nil); err == nil {
		s.t.Fatal("connected to a port whose packets are dropped")
	}
}

// udp sends a datagram that is answered and one that is not.
func (s *stage) udp(to netip.Addr) {
	s.t.Helper()
	for _, answered := range []bool{true, false} {
		p, err := s.server.ListenPacket("udp", netip.AddrPortFrom(to, 0))
		must(s.t, err)
		s.t.Cleanup(func() { must(s.t, p.Close()) })
		c, err := s.client.Dial(within(s.t), "udp", netip.AddrPort{}, p.LocalAddr().(*net.UDPAddr).AddrPort(), nil)
		must(s.t, err)
		s.t.Cleanup(func() { must(s.t, c.Close()) })
		_, err = c.Write([]byte("question"))
		must(s.t, err)
		b := make([]byte, 16)
		_, from, err := p.ReadFrom(b)
		must(s.t, err)
		if !answered {
			continue
		}
		_, err = p.WriteTo([]byte("answer"), from)
		must(s.t, err)
		_, err = c.Read(b)
		must(s.t, err)
	}
}

// echo sends an ICMP or ICMPv6 echo request through a raw socket and waits for
// the answer.
func (s *stage) echo(network string, to netip.Addr, request, answer byte) {
	s.t.Helper()
	var c net.PacketConn
	err := s.client.Do(func() (err error) {
		c, err = net.ListenPacket(network, "")
		return err
	})
	must(s.t, err)
	defer func() { must(s.t, c.Close()) }()
	// Type, code, checksum, identifier, sequence number. Of ICMPv6 the kernel
	// fills the checksum in.
	sum := ^(uint16(request)<<8 + 0x1234 + 1)
	packet := []byte{request, 0, byte(sum >> 8), byte(sum), 0x12, 0x34, 0, 1}
	_, err = c.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()})
	must(s.t, err, c.SetReadDeadline(time.Now().Add(patience)))
	for b := make([]byte, 64); ; {
		n, _, err := c.ReadFrom(b)
		must(s.t, err)
		if n > 0 && b[0] == answer {
			return
		}
	}
}
