package detect

import (
	"iter"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// bench is a busy and healthy router that serves web pages as well: the first
// of its flows are those of its sockets, the others pass through it, of which
// one in three is translated, and one in four of UDP.
type bench struct{ sockets, flows int }

// client is who has the i-th connection: each client has four, those of IPv6
// have a /64 each.
func (bench) client(i int) netip.AddrPort {
	n, port := uint32(i/4)*2654435761, uint16(1024+i%50000) // scattered
	if i/4%2 == 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{11 + byte(n>>24)%80, byte(n >> 16), byte(n >> 8), byte(n)}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 9}), port)
}

// benchStates are of connections, in equal parts, at the socket and in the
// tracker.
var benchStates = [...]struct {
	socket sockdiag.State
	flow   conntrack.TCPState
}{
	{sockdiag.Established, conntrack.TCPEstablished}, {sockdiag.Established, conntrack.TCPEstablished},
	{sockdiag.Established, conntrack.TCPEstablished}, {sockdiag.Established, conntrack.TCPEstablished},
	{sockdiag.TimeWait, conntrack.TCPTimeWait}, {sockdiag.TimeWait, conntrack.TCPTimeWait},
	{sockdiag.TimeWait, conntrack.TCPTimeWait}, {sockdiag.SynRecv, conntrack.TCPSynRecv},
	{sockdiag.CloseWait, conntrack.TCPCloseWait}, {sockdiag.FinWait2, conntrack.TCPFinWait},
	{sockdiag.Established, conntrack.TCPEstablished}, {sockdiag.Established, conntrack.TCPEstablished},
	{sockdiag.Established, conntrack.TCPEstablished},
}

func (b bench) rows(t testing.TB) (Host, iter.Seq2[sockdiag.Socket, error], iter.Seq2[conntrack.Flow, error]) {
	h := Host{Now: now, Settings: settings(t, nil), Usage: conntrack.Usage{Count: uint64(b.flows), Max: 1 << 21, Buckets: 1 << 20}}
	return h, b.eachSocket, b.eachFlow
}

func (b bench) eachSocket(yield func(sockdiag.Socket, error) bool) {
	l := listener443()
	if !yield(l, nil) {
		return
	}
	for i := range b.sockets {
		far, state := b.client(i), benchStates[i%len(benchStates)].socket
		s := sockdiag.Socket{
			Family: sockdiag.IPv4, Protocol: sockdiag.TCP, State: state, Inode: uint32(i + 2), Cookie: uint64(i),
			Local: near(far), Remote: far, Timer: sockdiag.TimerKeepalive, Expires: time.Minute,
			Fields: sockdiag.FieldInfo, Info: sockdiag.TCPInfo{BytesReceived: 4000, LastDataSent: time.Second, LastDataRecv: time.Second, LastAckRecv: time.Second},
		}
		if state == sockdiag.TimeWait || state == sockdiag.SynRecv {
			s.Inode, s.Fields, s.Info, s.Timer = 0, 0, sockdiag.TCPInfo{}, sockdiag.TimerOn
		}
		if !yield(s, nil) {
			return
		}
	}
}

func (b bench) eachFlow(yield func(conntrack.Flow, error) bool) {
	f := conntrack.Flow{
		Status: conntrack.SeenReply | conntrack.Assured,
		Fields: conntrack.FieldStatus | conntrack.FieldTCP | conntrack.FieldTimeout,
	}
	const young = time.Minute // of SYN_RECV, by its whole timeout
	outer := netip.MustParseAddr("203.0.113.1")
	for i := range b.flows {
		far := b.client(i)
		to := near(far)
		f.Fields |= conntrack.FieldTCP
		f.Timeout, f.TCP.State = young, benchStates[i%len(benchStates)].flow
		if f.TCP.State == conntrack.TCPEstablished {
			f.Timeout = 100 * time.Hour
		}
		if i >= b.sockets { // to one of a thousand services
			a := to.Addr().As16()
			a[13], a[14], a[15] = 113, byte(i%250), byte(2+i%4)
			to = netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), 443)
		}
		f.Original = conntrack.Tuple{Src: far.Addr(), Dst: to.Addr(), SrcPort: far.Port(), DstPort: to.Port(), Proto: conntrack.ProtoTCP}
		switch {
		case i < b.sockets:
		case i%4 == 0:
			f.Original.Proto, f.Original.DstPort, f.TCP.State = conntrack.ProtoUDP, 53, conntrack.TCPNone
			f.Fields &^= conntrack.FieldTCP
		case i%3 == 0 && far.Addr().Is4():
			f.Reply = f.Original.Invert()
			f.Reply.Dst = outer
			if !yield(f, nil) {
				return
			}
			continue
		}
		f.Reply = f.Original.Invert()
		if !yield(f, nil) {
			return
		}
	}
}

// everyone is all detectors.
func everyone() (all []Detector) {
	for _, e := range All() {
		all = append(all, e.Detector)
	}
	return all
}

// cost is what a pass of detectors takes: time for each row by a clock, and how
// much the heap has grown when all rows were looked at.
func (b bench) cost(t testing.TB, clock func() time.Duration, detectors ...Detector) (spent time.Duration, grown uint64) {
	t.Helper()
	host, sockets, flows := b.rows(t)
	before, start := heap(), clock()
	weigh := atEnd(func() {
		spent = clock() - start
		grown = max(heap(), before) - before
		start = clock()
	})
	found, err := Scan(host, sockets, flows, append([]Detector{weigh}, detectors...)...)
	spent += clock() - start
	if err != nil || len(found) > 0 && found[0].Severity > Info { // Audit has its wishes
		t.Fatalf("%v, %v", found, err)
	}
	return spent / time.Duration(b.sockets+b.flows), grown
}

// atEnd is called when all rows were looked at, before what follows it.
type atEnd func()

func (atEnd) Name() string { return "atEnd" }

func (f atEnd) Look(*Host) Look {
	return Look{Findings: func() []Finding { f(); return nil }}
}

// What all detectors together keep is what All says, and rows cost next to no
// allocation.
func TestAllMemory(t *testing.T) {
	rows := bench{10_000, 100_000}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, grown := rows.cost(t, func() time.Duration { return 0 }, everyone()...)
	runtime.ReadMemStats(&after)
	t.Logf("%.1f MB, %d allocations", float64(grown)/1e6, after.Mallocs-before.Mallocs)
	if most := uint64(8<<20 + 250*rows.sockets + 60*rows.flows); grown > most {
		t.Errorf("the heap grew by %d bytes, want %d at most", grown, most)
	}
	if n := after.Mallocs - before.Mallocs; n > uint64(rows.sockets+rows.flows)/10 {
		t.Errorf("%d allocations", n)
	}
}
