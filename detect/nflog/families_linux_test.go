package nflog

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// ruled makes h log by nft's text, or skips.
func ruled(t *testing.T, h *lab.Host, text string) {
	t.Helper()
	lab.Tool(t, "nft")
	if _, err := h.Exec(t.Context(), "nft", text); err != nil {
		t.Skipf("no such rules here: %v", err)
	}
}

// ip runs ip(8) with each line of arguments, or skips.
func ip(t *testing.T, h *lab.Host, lines ...[]string) {
	t.Helper()
	lab.Tool(t, "ip")
	for _, args := range lines {
		if _, err := h.Exec(t.Context(), "ip", args...); err != nil {
			t.Skipf("not here: %v", err)
		}
	}
}

// wantUDP expects a datagram for port 9 with the Ethernet header that it came
// with.
func wantUDP(t *testing.T, p Packet, err error, family Family, hook Hook) {
	t.Helper()
	h, bad := packet.Decode(p.Payload)
	if err != nil || p.Family != family || p.Hook != hook || p.Prefix != "here " || p.In == 0 || bad != nil || h.DstPort != 9 ||
		len(p.HwAddr) != 6 || p.HwType != 1 || len(p.LinkHeader) != 14 || string(p.LinkHeader[6:12]) != string(p.HwAddr) {
		t.Errorf("%v: got %+v, %v; %v, %v", family, p, err, h, bad)
	}
}

func TestLiveIngress(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	ruled(t, server, `add table inet t; add chain inet t c { type filter hook ingress device "client" priority 0; }; `+
		`add rule inet t c udp dport 9 log prefix "here " group 5`)
	next := pull(t, listenAt(t, server, Config{Groups: []uint16{5}}))
	for addr, family := range map[netip.Addr]Family{server.Addr4(): IPv4, server.Addr6(): IPv6} {
		sendUDP(t, client, netip.AddrPortFrom(addr, 9), 1)
		p, err := next()
		wantUDP(t, p, err, family, Ingress)
	}
}

// A message of the netdev family is one that go-nflog alone misreads, and in
// this group, one that ends the process.
func TestLiveNetdev(t *testing.T) { readers(t, liveNetdev) }

func liveNetdev(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	ruled(t, server, `add table netdev t; add chain netdev t c { type filter hook ingress device "client" priority 0; }; `+
		`add rule netdev t c udp dport 9 log prefix "here " group 256`)
	next := pull(t, listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{256}}))
	family := NetDev
	if goNflog {
		family = 0
	}
	for _, a := range []netip.Addr{server.Addr4(), server.Addr6()} {
		sendUDP(t, client, netip.AddrPortFrom(a, 9), 1)
		p, err := next()
		wantUDP(t, p, err, family, 0)
	}
}

// A frame on a bridge, with a VLAN tag.
func TestLiveBridge(t *testing.T) { readers(t, liveBridge) }

func liveBridge(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	ip(t, server, []string{"link", "add", "br0", "type", "bridge"}, []string{"link", "set", "client", "master", "br0"},
		[]string{"link", "set", "br0", "up"})
	ruled(t, server, `add table bridge t; add chain bridge t c { type filter hook prerouting priority 0; }; `+
		`add rule bridge t c vlan id 7 log prefix "here " group 5`)
	next := pull(t, listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{5}}))
	sendFrame(t, client, "server", tagged)
	p, err := next()
	family := Bridge
	if goNflog {
		family = 0
	}
	wantUDP(t, p, err, family, Prerouting)
	if !p.HasVLAN || p.VLAN.Proto != unix.ETH_P_8021Q || p.VLAN.TCI != 0x6007 || p.PhysIn == 0 || p.In == p.PhysIn {
		t.Errorf("got %+v", p)
	}
}

// tagged is a frame of VLAN 7, priority 3, with a datagram from
// 198.18.7.1:40000 to 198.18.7.2:9.
var tagged = []byte{
	2, 0, 0, 0, 0x77, 2, 2, 0, 0, 0, 0x77, 1, 0x81, 0, 0x60, 7, 8, 0,
	0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 7, 1, 198, 18, 7, 2,
	0x9c, 0x40, 0, 9, 0, 8, 0, 0,
}

// sendFrame sends a frame out of an interface.
func sendFrame(t *testing.T, from *lab.Host, name string, frame []byte) {
	t.Helper()
	err := from.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLiveARP(t *testing.T) { readers(t, liveARP) }

func liveARP(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	ruled(t, server, `add table arp t; add chain arp t c { type filter hook input priority 0; }; `+
		`add rule arp t c log prefix "who " group 5`)
	next := pull(t, listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{5}}))
	ip(t, client, []string{"neigh", "flush", "nud", "permanent"}, []string{"neigh", "flush", "nud", "all"})
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), 1)
	p, err := next()
	const arpLen = 28 // of a request for an IPv4 address on Ethernet
	if err != nil || (p.Family != ARP) != goNflog || p.Hook != 0 || p.Prefix != "who " || p.HwProtocol != unix.ETH_P_ARP ||
		p.In == 0 || len(p.Payload) < arpLen {
		t.Errorf("got %+v, %v", p, err)
	}
}

// The largest packet is as large as an attribute can be.
func TestLiveLargest(t *testing.T) { readers(t, liveLargest) }

func liveLargest(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rule := udpRule(nft.Log{})
	rule.Verdict = nft.Accept
	rules(t, client, nft.Output, rule)
	next := pull(t, listenAt(t, client, Config{GoNflog: goNflog, Groups: []uint16{group}, Snaplen: 1 << 20, Threshold: 3}))
	const largest = 65535 - 20 - 8
	for _, n := range []int{largest, 10, largest} {
		// A socket of its own: the answer to the last one is an error for the next.
		c, err := client.Dial(t.Context(), "udp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), 9), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(make([]byte, n))
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		p, err := next()
		if err != nil || len(p.Payload) != min(n+28, maxSnaplen) {
			t.Errorf("%d bytes of %d, %v", len(p.Payload), n+28, err)
		}
	}
}
