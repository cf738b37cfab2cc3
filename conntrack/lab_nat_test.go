package conntrack

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// translated is an entry of UDP from the client to a port of the server that NAT
// sends to another port, from another source port.
func translated(client, server netip.Addr, status Status) Flow {
	f := Flow{Timeout: 100 * time.Second, Status: status}
	f.Original = Tuple{Proto: ProtoUDP, Src: client, SrcPort: 4000, Dst: server, DstPort: 7000}
	f.Reply = f.Original.Invert()
	f.Reply.SrcPort, f.Reply.DstPort = 8000, 5000
	return f
}

// TestCreateNATRoundTrip makes translated entries of each protocol and family,
// and makes them again of what the kernel shows of them.
func TestCreateNATRoundTrip(t *testing.T) {
	c, _ := emptyTable(t)
	both := translated(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.1"), natted)
	source, destination, tcp, echo := both, both, both, entry(tupleEcho)
	source.Status, source.Reply.SrcPort = SrcNAT, 7000
	destination.Status, destination.Reply.DstPort = DstNAT|SeenReply|Assured, 4000
	destination.Reply.Src = netip.MustParseAddr("10.0.0.3")
	tcp.Original.Proto, tcp.Reply.Proto, tcp.TCP.State = ProtoTCP, ProtoTCP, TCPEstablished
	v6 := translated(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), natted)
	v6.Reply.Src, v6.Reply.Dst = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::9")
	echo.Status, echo.Reply.Dst, echo.Reply.ICMPID = SrcNAT, netip.MustParseAddr("192.0.2.1"), 77
	for name, f := range map[string]Flow{"both": both, "source": source, "destination": destination, "TCP": tcp, "IPv6": v6, "ICMP": echo} {
		made := create(t, c, f)[0]
		if asCreated(made) != asCreated(f) || made.Status&(natted|SeenReply|Assured) != f.Status || !made.Status.has(SrcNATDone|DstNATDone) {
			t.Errorf("%s: %v, %v; want %v", name, made, made.Status, f)
		}
		must(t, c.Delete(within(t), made))
		again := create(t, c, made)[0]
		if again.ID = made.ID; static(again) != static(made) {
			t.Errorf("%s again: %+v, want %+v", name, plain(again), plain(made))
		}
		must(t, c.Flush(within(t)))
	}
	both.Status = SrcNAT // the destination is translated as well
	if err := c.Create(within(t), both); !isOp(err, "create") {
		t.Errorf("status that the tuples belie: %v", err)
	}
}

func (s Status) has(bits Status) bool { return s&bits == bits }

// TestCreateNATTraffic sends packets through entries made, and finds out what
// translates them: the status bits, not the tuples, and only where there is a
// NAT chain, be it empty.
func TestCreateNATTraffic(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     Status
		chain      bool
		translated bool
	}{
		{"with the bits and a chain", natted, true, true},
		{"without a chain", natted, false, false},
		{"without the bits", 0, true, false},
	} {
		for _, v6 := range []bool{false, true} {
			client, server := lab.Two(t)
			from, to := client.Addr4(), server.Addr4()
			if v6 {
				from, to = client.Addr6(), server.Addr6()
			}
			must(t, client.Rules(within(t), natTable(tt.chain)))
			must(t, dialHost(t, client).Create(within(t), translated(from, to, tt.status)))
			port, seen, wait := uint16(7000), uint16(4000), 100*time.Millisecond
			if tt.translated {
				port, seen, wait = 8000, 5000, patience
			}
			got, answered := exchange(t, client, server, from, to, port, wait)
			if got != seen || tt.translated && !answered {
				t.Errorf("%s, IPv6 %v: came from port %d, want %d; answered: %v", tt.name, v6, got, seen, answered)
			}
			if !tt.translated {
				t.Logf("SUPPORT: answers are dropped where the reply tuple is not what packets become: %s", yesNo(!answered))
			}
		}
	}
}

func natTable(chain bool) nft.Table {
	table := nft.Table{Family: nft.INet, Name: "track", Chains: []nft.Chain{
		{Name: "out", Hook: nft.Output, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Accept}}},
	}}
	if chain {
		table.Chains = append(table.Chains,
			nft.Chain{Name: "dnat", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDstNAT},
			nft.Chain{Name: "snat", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT})
	}
	return table
}

// exchange sends a datagram to port 7000, has it answered by who listens at
// port, and returns the source port seen there, and whether the answer came.
func exchange(t *testing.T, client, server *lab.Host, from, to netip.Addr, port uint16, wait time.Duration) (seen uint16, answered bool) {
	t.Helper()
	l, err := server.ListenPacket("udp", netip.AddrPortFrom(to, port))
	must(t, err)
	defer func() { must(t, l.Close()) }()
	c, err := client.Dial(within(t), "udp", netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(to, 7000), nil)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	must(t, l.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte("ask"))
	must(t, err)
	b := make([]byte, 16)
	_, peer, err := l.ReadFrom(b)
	must(t, err)
	_, err = l.WriteTo([]byte("answer"), peer)
	must(t, err, c.SetDeadline(time.Now().Add(wait)))
	_, err = c.Read(b)
	return peer.(*net.UDPAddr).AddrPort().Port(), err == nil
}
