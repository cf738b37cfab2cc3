package nflog

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const group = 5

// rules makes h log what the rules match, at one hook.
func rules(t testing.TB, h *lab.Host, hook nft.Hook, rs ...nft.Rule) {
	t.Helper()
	err := h.Rules(t.Context(), nft.Table{
		Family: nft.INet, Name: "log",
		Chains: []nft.Chain{{Name: "log", Hook: hook, Rules: rs}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listen is Listen on h until the test ends.
func listenAt(t testing.TB, h *lab.Host, cfg Config) *Reader {
	t.Helper()
	cfg.NetNS = h.NetNS()
	r, err := Listen(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// sendUDP sends n datagrams from one host to another.
func sendUDP(t testing.TB, from *lab.Host, to netip.AddrPort, n int) {
	t.Helper()
	c, err := from.Dial(t.Context(), "udp", netip.AddrPort{}, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write([]byte("connsleuth")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

func udpRule(log nft.Log) nft.Rule {
	log.Group = group
	return nft.Rule{Proto: nft.UDP, DstPort: 9, Log: &log, Counter: true, Verdict: nft.Drop}
}

func TestLivePacket(t *testing.T) { readers(t, livePacket) }

func livePacket(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, udpRule(nft.Log{Prefix: "why not: "}))
	next := pull(t, listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}}))
	var fastest time.Duration
	stamped := false
	for seq, a := range []netip.Addr{server.Addr4(), server.Addr6(), server.Addr4(), server.Addr6(), server.Addr4()} {
		start := time.Now()
		sendUDP(t, client, netip.AddrPortFrom(a, 9), 1)
		p, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); seq == 0 || took < fastest {
			fastest = took
		}
		proto := uint16(unix.ETH_P_IP)
		if a.Is6() {
			proto = unix.ETH_P_IPV6
		}
		if p.Hook != Input || p.HwProtocol != proto || p.Prefix != "why not: " || p.Seq != uint32(seq) || p.HasUID ||
			p.HasCTInfo || p.In == 0 || p.Out != 0 || p.Mark != 0 {
			t.Errorf("got %+v", p)
		}
		if d := time.Since(p.Time); !p.Time.IsZero() && (d < 0 || d > 5*time.Second) {
			t.Errorf("received %v ago", d)
		}
		stamped = stamped || !p.Time.IsZero()
		h, err := packet.Decode(p.Payload)
		if err != nil || h.Dst != a || h.DstPort != 9 || h.Proto != nft.UDP || h.PayloadLen != 10 {
			t.Errorf("the payload is %v, %v", h, err)
		}
	}
	t.Logf("SUPPORT: time of each packet in NFLOG: %s", yes(stamped))
	t.Logf("a packet arrived within %v of being sent", fastest)
	if fastest > 200*time.Millisecond {
		t.Errorf("the fastest packet took %v", fastest)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// The hooks after Forward have no time; Snaplen cuts.
func TestLiveOutput(t *testing.T) { readers(t, liveOutput) }

func liveOutput(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rule := udpRule(nft.Log{})
	rule.Verdict = nft.Accept
	rules(t, client, nft.Output, rule)
	next := pull(t, listenAt(t, client, Config{GoNflog: goNflog, Groups: []uint16{group}, Snaplen: 24}))
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), 1)
	p, err := next()
	if err != nil {
		t.Fatal(err)
	}
	if p.Hook != Output || !p.Time.IsZero() || p.In != 0 || p.Out == 0 || len(p.Payload) != 24 || !p.HasUID {
		t.Errorf("got %+v", p)
	}
}

// A UID on Input is the proof of a live socket.
func TestLiveUID(t *testing.T) { readers(t, liveUID) }

func liveUID(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, nft.Rule{Proto: nft.TCP, DstPort: 80, Log: &nft.Log{Group: group}})
	r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
	ln, err := server.Listen("tcp4", netip.AddrPortFrom(netip.Addr{}, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := client.Dial(t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), 80), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	next := pull(t, r)
	if p := nextTCP(t, next, packet.SYN); p.HasUID {
		t.Errorf("a SYN for a listening socket has a UID: %+v", p)
	}
	write(t, c)
	if p := nextTCP(t, next, packet.PSH); !p.HasUID || p.UID != 0 || p.GID != 0 {
		t.Errorf("data for a live socket: UID %d, GID %d, %t; want 0, 0, true", p.UID, p.GID, p.HasUID)
	}
	if _, err := s.Read(make([]byte, 100)); err != nil { // with data unread, Close would reset
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, c)
	if p := nextTCP(t, next, packet.PSH); p.HasUID {
		t.Errorf("data for a closed socket has a UID: %+v", p)
	}
}

func write(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("connsleuth")); err != nil {
		t.Fatal(err)
	}
}

// nextTCP skips to a packet with one of the flags.
func nextTCP(t *testing.T, next func() (Packet, error), flags packet.TCPFlags) Packet {
	t.Helper()
	for {
		p, err := next()
		if err != nil {
			t.Fatal(err)
		}
		h, err := packet.Decode(p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if h.Flags&flags != 0 {
			return p
		}
	}
}

// Connection tracking tells group 0 why a packet is invalid.
func TestLiveInvalid(t *testing.T) { readers(t, liveInvalid) }

func liveInvalid(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, nft.Rule{CTState: nft.Invalid, Verdict: nft.Drop})
	for name, value := range map[string]string{
		"net.netfilter.nf_conntrack_log_invalid": "6",
		"net.netfilter.nf_conntrack_checksum":    "0",
		"net.netfilter.nf_log.2":                 "nfnetlink_log",
		"net.netfilter.nf_log.10":                "nfnetlink_log",
	} {
		if err := server.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	next := pull(t, listenAt(t, server, Config{Groups: []uint16{0}, GoNflog: goNflog, Threshold: 50}))
	for _, a := range []netip.Addr{server.Addr4(), server.Addr6()} {
		sendRaw(t, client, a, scan)
		p, err := next()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %q", a, p.Prefix)
		h, err := packet.Decode(p.Payload)
		if !strings.HasPrefix(p.Prefix, "nf_ct_proto_6: invalid tcp flag combination") || p.Hook != 0 || err != nil || h.Dst != a || h.SrcPort != 40000 {
			t.Errorf("got %+v: %v, %v", p, h, err)
		}
	}
}

// scan is a TCP segment from port 40000 to 80 with SYN and FIN.
var scan = []byte{
	0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1,
	0x50, byte(packet.SYN | packet.FIN), 0, 0, 0, 0, 0, 0,
}

// sendRaw sends a TCP segment as it is.
func sendRaw(t *testing.T, from *lab.Host, to netip.Addr, segment []byte) {
	t.Helper()
	err := from.Do(func() error {
		family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.AsSlice())})
		if to.Is6() {
			family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, segment, 0, addr)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every packet that does not arrive is counted.
func TestLiveLoss(t *testing.T) { readers(t, liveLoss) }

func liveLoss(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, udpRule(nft.Log{}))
	r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}, ReadBuffer: 1})
	to := netip.AddrPortFrom(server.Addr4(), 9)
	sendUDP(t, client, to, 3000) // while nobody ranges
	var received, lost uint64
	overrun := false
	drain := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		for _, err := range r.Packets(ctx) {
			var l *Lost
			switch {
			case errors.As(err, &l):
				lost += l.Count
				overrun = overrun || l.Overrun
			case errors.Is(err, context.DeadlineExceeded):
			case err != nil:
				t.Fatal(err)
			default:
				received++
			}
		}
	}
	drain()
	sendUDP(t, client, to, 1) // tells how many went before it
	drain()
	const sent = 3001
	if received+lost != sent || lost == 0 || !overrun {
		t.Errorf("received %d and lost %d of %d, overrun told: %t", received, lost, sent, overrun)
	}
	c, err := server.Counters(t.Context(), nft.INet, "log", "log")
	if err != nil || c[0].Packets != sent {
		t.Errorf("the rule counted %+v, %v, want %d packets", c, err, sent)
	}
	t.Logf("received %d, lost %d", received, lost)
}

// A lone packet does not wait longer than FlushInterval for others.
func TestLiveThreshold(t *testing.T) { readers(t, liveThreshold) }

func liveThreshold(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, udpRule(nft.Log{}))
	next := pull(t, listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}, Threshold: 10, FlushInterval: 50 * time.Millisecond}))
	to := netip.AddrPortFrom(server.Addr4(), 9)
	start := time.Now()
	sendUDP(t, client, to, 1)
	if _, err := next(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 30*time.Millisecond || took > 800*time.Millisecond {
		t.Errorf("a lone packet took %v, want about 50 ms", took)
	}
	sendUDP(t, client, to, 25)
	for seq := range uint32(25) {
		if p, err := next(); err != nil || p.Seq != seq+1 {
			t.Fatalf("got packet %d, %v, want %d", p.Seq, err, seq+1)
		}
	}
}

func TestLiveConntrack(t *testing.T) { readers(t, liveConntrack) }

func liveConntrack(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	r, err := Listen(&Config{NetNS: server.NetNS(), Groups: []uint16{group}, Conntrack: WithConntrack})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Log("SUPPORT: conntrack data in NFLOG: no")
		if !strings.Contains(err.Error(), "CONFIG_NETFILTER_NETLINK_GLUE_CT") {
			t.Error(err)
		}
		listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}}) // the group is free to fall back
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Log("SUPPORT: conntrack data in NFLOG: yes")
	log := &nft.Log{Group: group}
	rules(t, server, nft.Input,
		nft.Rule{CTState: nft.New, Proto: nft.UDP, Log: log, Verdict: nft.Drop},
		nft.Rule{CTState: nft.Invalid, Log: log, Verdict: nft.Drop})
	next := pull(t, r)
	for seq := range uint32(2) {
		sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), 1)
		p, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if !p.HasCTInfo || p.CTInfo != New || !hasTuple(p.Conntrack) || p.Seq != seq {
			t.Errorf("got %+v", p)
		}
	}
	sendRaw(t, client, server.Addr4(), scan)
	if p, err := next(); err != nil || p.HasCTInfo || p.Conntrack != nil {
		t.Errorf("an invalid packet: %+v, %v", p, err)
	}
}

// hasTuple reports whether there is a CTA_TUPLE_ORIG among the attributes.
func hasTuple(b []byte) (found bool) {
	a := nfnl.Walk(b)
	for a.Next() {
		found = found || a.Type == 1
	}
	return found && a.Err() == nil
}

// Rules of the netdev family: a message go-nflog alone misreads, and in this
// group, one that ends the process.
func TestLiveNetdev(t *testing.T) { readers(t, liveNetdev) }

func liveNetdev(t *testing.T, goNflog bool) {
	lab.Tool(t, "nft")
	client, server := lab.Two(t)
	_, err := server.Exec(t.Context(), "nft", `add table netdev t; add chain netdev t c { type filter hook ingress device "client" priority 0; }; `+
		`add rule netdev t c udp dport 9 log prefix "early " group 256`)
	if err != nil {
		t.Skipf("no netdev rules here: %v", err)
	}
	next := pull(t, listenAt(t, server, Config{Groups: []uint16{256}}))
	for _, a := range []netip.Addr{server.Addr4(), server.Addr6()} {
		sendUDP(t, client, netip.AddrPortFrom(a, 9), 1)
		p, err := next()
		if err != nil {
			t.Fatal(err)
		}
		h, err := packet.Decode(p.Payload)
		if p.Hook != 0 || p.Prefix != "early " || p.In == 0 || err != nil || h.Dst != a || h.DstPort != 9 {
			t.Errorf("got %+v: %v, %v", p, h, err)
		}
	}
}
