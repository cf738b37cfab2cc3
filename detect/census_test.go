package detect

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func TestCensus(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	for _, tt := range []struct {
		state    sockdiag.State
		n, other int // other are ESTABLISHED
		want     Severity
	}{
		{sockdiag.Established, 100_000, 0, 0},
		{sockdiag.Listen, 2000, 0, 0},
		{sockdiag.SynSent, 500, 0, 0}, {sockdiag.SynSent, 501, 0, Warning},
		{sockdiag.SynRecv, 600, 2400, 0}, {sockdiag.SynRecv, 601, 2399, Warning},
		{sockdiag.CloseWait, 500, 0, 0}, {sockdiag.CloseWait, 501, 100, Warning},
		{sockdiag.FinWait1, 501, 5000, 0}, {sockdiag.FinWait1, 501, 100, Warning},
		{sockdiag.LastAck, 501, 100, Info},
		{sockdiag.Closing, 100, 0, 0}, {sockdiag.Closing, 101, 9000, Info},
		{sockdiag.FinWait2, 5000, 0, 0}, {sockdiag.FinWait2, 5001, 5100, 0}, {sockdiag.FinWait2, 5001, 4900, Info},
		{sockdiag.TimeWait, 50000, 0, 0}, {sockdiag.TimeWait, 50001, 49000, Info}, {sockdiag.TimeWait, 50001, 50002, 0},
	} {
		rows := slices.Concat(pileOf(tt.n, tt.state), pileOf(tt.other, sockdiag.Established))
		found := Find(Host{Sockets: rows}, Census{})
		if tt.want == 0 {
			if len(found) != 0 {
				t.Errorf("%v, %d and %d: %v", tt.state, tt.n, tt.other, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Severity != tt.want || found[0].Count != uint64(tt.n) || found[0].Limit >= found[0].Count ||
			found[0].Subject != "sockets in "+tt.state.String() || len(found[0].Fix) == 0 ||
			!mentions(found[0].Cause, fmt.Sprintf("%d of %d connections are %v: ", tt.n, tt.n+tt.other, tt.state)) {
			t.Errorf("%v, %d and %d: %v", tt.state, tt.n, tt.other, found)
		}
	}
}

func tcpFlows(n int, state conntrack.TCPState) []conntrack.Flow {
	flows := make([]conntrack.Flow, n)
	for i := range flows {
		flows[i] = conntrack.Flow{
			Original: conntrack.Tuple{Proto: conntrack.ProtoTCP, SrcPort: uint16(i)},
			TCP:      conntrack.TCPInfo{State: state}, Fields: conntrack.FieldTCP,
		}
	}
	return flows
}

// The flows of a state are told of when its sockets do not pile up: on a
// router.
func TestCensusFlows(t *testing.T) {
	flows := slices.Concat(tcpFlows(5001, conntrack.TCPSynSent), tcpFlows(20000, conntrack.TCPEstablished))
	found := examineFlows(t, Host{Flows: flows})
	if len(found) != 1 || found[0].Subject != "flows in SYN_SENT" || found[0].Limit != 5000 {
		t.Errorf("got %v", found)
	}
	if found := examineFlows(t, Host{Flows: flows[1:]}); len(found) != 0 {
		t.Errorf("got %v", found)
	}
	h := Host{Flows: tcpFlows(5001, conntrack.TCPSynRecv)}
	for _, router := range []bool{false, true} {
		if router {
			h.Sockets = pileOf(1, sockdiag.Listen)
		}
		found := examineFlows(t, h)
		if len(found) != 1 || mentions(text(found[0].Fix), onServer) != router || mentions(text(found[0].Fix), "sysctl") == router {
			t.Errorf("router %v: %v", router, found)
		}
	}
	found = examineFlows(t, Host{Flows: flows, Sockets: pileOf(501, sockdiag.SynSent)})
	if len(found) != 1 || found[0].Subject != "sockets in SYN_SENT" {
		t.Errorf("got %v", found)
	}
}

// examineFlows is of a census of a fifth.
func examineFlows(t *testing.T, h Host) []Finding {
	t.Helper()
	return examine(t, Census{Share: 0.19}, h)
}

// The port where most of them are is named, if something listens there.
func TestCensusPort(t *testing.T) {
	rows := slices.Concat(pileOf(30, sockdiag.CloseWait), pileOf(40, sockdiag.CloseWait, toBackend),
		[]sockdiag.Socket{listener(sockdiag.IPv4, "0.0.0.0:443", 0, 128), listener(sockdiag.IPv4, "0.0.0.0:80", 0, 128)})
	found := examine(t, Census{Limit: 50, Share: 0.5}, Host{Sockets: rows})
	if len(found) != 1 || !mentions(found[0].Cause, "70 of 70 connections are CLOSE_WAIT, 30 of them on port 443: ") {
		t.Errorf("got %v", found)
	}
}

func TestCounts(t *testing.T) {
	h := Host{
		Sockets: slices.Concat(pileOf(3, sockdiag.Established), pileOf(2, sockdiag.TimeWait), pileOf(4, sockdiag.State(99)), pileOf(1, sockdiag.Close),
			pileOf(5, sockdiag.Established, func(_ int, s *sockdiag.Socket) { s.Protocol = sockdiag.UDP }),
			[]sockdiag.Socket{listener(sockdiag.IPv4, "0.0.0.0:443", 0, 128), listener(sockdiag.IPv6, "[::]:443", 0, 128), listener(sockdiag.IPv4, "0.0.0.0:80", 0, 128)}),
		Flows: slices.Concat(tcpFlows(2, conntrack.TCPTimeWait), tcpFlows(1, conntrack.TCPState(77)),
			[]conntrack.Flow{{Original: conntrack.Tuple{Proto: conntrack.ProtoUDP}}, {Original: conntrack.Tuple{Proto: conntrack.ProtoTCP}}}),
	}
	c := &Counts{Others: [256]uint64{1: 9}} // of an earlier pass
	sockets, flows := sequence(h.Sockets), sequence(h.Flows)
	if found, err := Scan(Host{}, sockets, flows, c, Census{}); found != nil || err != nil {
		t.Errorf("got %v, %v", found, err)
	}
	var want Counts
	want.Sockets[sockdiag.Established], want.Sockets[sockdiag.TimeWait], want.Sockets[0], want.Sockets[sockdiag.Listen], want.Sockets[sockdiag.Close] = 3, 2, 4, 3, 1
	want.Flows[conntrack.TCPTimeWait], want.Flows[conntrack.TCPNone] = 2, 2
	want.Others[conntrack.ProtoUDP] = 1
	if c.Sockets != want.Sockets || c.Flows != want.Flows || c.Others != want.Others {
		t.Errorf("got %+v", c)
	}
	if c.Sockets.Total() != 13 || c.Sockets.Connections() != 9 || c.Flows.Total() != 4 {
		t.Errorf("got %d, %d, %d", c.Sockets.Total(), c.Sockets.Connections(), c.Flows.Total())
	}
	ports := c.Listeners()
	if len(ports) != 2 || ports[0].Port != 443 || ports[0].SocketCounts[sockdiag.Listen] != 2 || ports[0].Total() != 12 || ports[1].Port != 80 {
		t.Errorf("got %v", ports)
	}
}

func sequence[T any](rows []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Once the keys exist, a row costs no memory.
func TestPileAllocs(t *testing.T) {
	rows := slices.Concat(
		[]sockdiag.Socket{listener(sockdiag.IPv4, "0.0.0.0:443", 129, 128)},
		waiters(100, sockdiag.IPv4, "10.1.32.70:443", 0), pileOf(100, sockdiag.CloseWait), pileOf(100, sockdiag.FinWait1, orphaned),
	)
	h := Host{Files: []OpenFiles{openFiles(5, 1000, 1024, 1024)}, Holders: map[uint32][]sockdiag.Holder{1: {{Process: sockdiag.Process{PID: 5}}}}}
	flows := tcpFlows(100, conntrack.TCPTimeWait)
	for _, d := range []Detector{Leaks{}, AcceptQueue{}, Descriptors{}, Census{}, new(Counts)} {
		look := d.Look(&h)
		pass := func() {
			for i := range rows {
				if rows[i].State != sockdiag.Listen { // a full listener is kept
					look.Socket(&rows[i])
				}
			}
			for i := range flows {
				if look.Flow != nil {
					look.Flow(&flows[i])
				}
			}
		}
		look.Socket(&rows[0])
		pass()
		if n := testing.AllocsPerRun(10, pass); n != 0 {
			t.Errorf("%s: %v allocations", d.Name(), n)
		}
	}
}

// Sources beyond the bound are counted, and not told apart.
func TestPeersBound(t *testing.T) {
	var p peers
	for i := range maxPeers + 10 {
		p.add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if n := p.add(netip.AddrFrom4([4]byte{10})); n != 2 || len(p.of) != maxPeers || p.rest != 10 || p.add(netip.Addr{}) != 0 {
		t.Errorf("got %d; %d, %d", n, len(p.of), p.rest)
	}
}

func TestPeersAbove(t *testing.T) {
	var p peers
	for i := range 40 {
		for range i + 1 {
			p.add(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		}
	}
	some := p.above(37)
	if len(some) != 3 || p.text(some) != "40 of 10.0.0.39, 39 of 10.0.0.38, 38 of 10.0.0.37" || len(p.above(40)) != 0 || len(p.above(0)) != 10 {
		t.Errorf("got %v: %s", some, p.text(some))
	}
}

// Each detector beside the pass that it cannot do without.
func BenchmarkPiles(b *testing.B) {
	h := busy(busyFlows)
	for i := range h.Sockets {
		if i%10 == 0 {
			h.Sockets[i].State = sockdiag.CloseWait
		}
	}
	for _, d := range []Detector{Leaks{}, AcceptQueue{}, Census{}, new(Counts)} {
		b.Run(d.Name(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Find(h, d)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(h.Sockets)), "ns/socket")
		})
	}
}

// An empty host has no trouble.
func TestPilesZeroHost(t *testing.T) {
	if found := Find(Host{}, Leaks{}, AcceptQueue{}, Descriptors{}, Census{}); found != nil {
		t.Error(found)
	}
}
