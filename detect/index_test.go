package detect

import (
	"iter"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// peer is the far end of the i-th of many connections: of IPv6, every other.
func peer(i int) netip.AddrPort {
	port := uint16(1024 + i%50000)
	if i%2 == 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}), port)
}

func near(far netip.AddrPort) netip.AddrPort {
	if far.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 443)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}), 443)
}

// manySockets yields the sockets of the first n connections.
func manySockets(n int) iter.Seq2[sockdiag.Socket, error] {
	return func(yield func(sockdiag.Socket, error) bool) {
		for i := range n {
			far := peer(i)
			s := sockdiag.Socket{Family: sockdiag.IPv4, State: sockdiag.Established, Inode: 1, Local: near(far), Remote: far}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// manyFlows yields the flows of the first n connections: those past the sockets
// are of no socket, as forwarded ones are.
func manyFlows(n int) iter.Seq2[conntrack.Flow, error] {
	return func(yield func(conntrack.Flow, error) bool) {
		f := conntrack.Flow{
			TCP:     conntrack.TCPInfo{State: conntrack.TCPEstablished},
			Timeout: 100 * time.Hour, Status: conntrack.SeenReply | conntrack.Assured,
			Fields: conntrack.FieldStatus | conntrack.FieldTCP | conntrack.FieldTimeout,
		}
		for i := range n {
			far := peer(i)
			to := near(far)
			f.Original = conntrack.Tuple{Src: far.Addr(), Dst: to.Addr(), SrcPort: far.Port(), DstPort: to.Port(), Proto: conntrack.ProtoTCP}
			f.Reply = f.Original.Invert()
			if !yield(f, nil) {
				return
			}
		}
	}
}

// barePass looks at every row and does nothing.
type barePass struct{}

func (barePass) Name() string { return "barePass" }

func (barePass) Look(*Host) Look {
	var n int
	return Look{
		Socket: func(s *sockdiag.Socket) {
			if s.State == sockdiag.Listen {
				n++
			}
		},
		Flow: func(f *conntrack.Flow) {
			if unreplied(f) {
				n++
			}
		},
	}
}

// pass has d look at sockets and flows, and returns how long each row took.
func pass(b *testing.B, d Detector, sockets, flows int) time.Duration {
	b.Helper()
	start := time.Now()
	found, err := Scan(Host{Now: now}, manySockets(sockets), manyFlows(flows), d)
	if err != nil || len(found) != 0 {
		b.Fatalf("%d findings, %v", len(found), err)
	}
	return time.Since(start) / time.Duration(sockets+flows)
}

// Each detector beside the bare pass over the same rows, in the same run.
func BenchmarkIndex(b *testing.B) {
	const sockets, flows = 100_000, 1_000_000
	for _, d := range []Detector{Ghosts{}, LostFlows{}, PortReuse{}, PortSpace{}} {
		b.Run(d.Name(), func(b *testing.B) {
			var least, spent time.Duration
			for b.Loop() {
				least += pass(b, barePass{}, sockets, flows)
				spent += pass(b, d, sockets, flows)
			}
			b.ReportMetric(float64(spent-least)/float64(b.N), "ns-added/row")
			b.ReportMetric(float64(least)/float64(b.N), "ns-bare/row")
		})
	}
}

// What an index takes of memory for each socket, as the documentation says.
func TestIndexMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	if size := reflect.TypeFor[carrier]().Size(); size > 128 {
		t.Errorf("a carrier has %d bytes", size)
	}
	for _, tt := range []struct {
		d    Detector
		most uint64
	}{{Ghosts{}, 30}, {LostFlows{}, 140}, {PortReuse{}, 40}} {
		for _, n := range []int{30_000, 3 << 14, 3<<14 + 1} { // 3/4 of 65536: the index is full, and has grown
			got := retained(t, tt.d, n)
			t.Logf("%s: %d bytes for each of %d sockets", tt.d.Name(), got, n)
			if got > tt.most {
				t.Errorf("%s: %d bytes for each of %d sockets, want %d at most", tt.d.Name(), got, n, tt.most)
			}
		}
	}
}

// What Pressure and PortSpace keep is bounded whatever comes.
func TestBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	for _, tt := range []struct {
		d    Detector
		most uint64
	}{{Pressure{}, 1 << 20}, {PortSpace{}, 10 << 20}} {
		h := Host{Now: now, Usage: fullTable}
		before := heap()
		look := tt.d.Look(&h)
		for f := range manyFlows(200_000) { // each from another source, of IPv6 to another /64
			f.Reply.Src, f.Reply.Dst = f.Original.Src, f.Original.Dst
			look.Flow(&f)
		}
		got := max(heap(), before) - before
		t.Logf("%s: %d bytes", tt.d.Name(), got)
		if got > tt.most {
			t.Errorf("%s: %d bytes, want %d at most", tt.d.Name(), got, tt.most)
		}
		runtime.KeepAlive(look)
	}
}

// retained is what a pass keeps for each of n sockets.
func retained(t *testing.T, d Detector, n int) uint64 {
	t.Helper()
	h := Host{Now: now}
	before := heap()
	look := d.Look(&h)
	for s := range manySockets(n) {
		look.Socket(&s)
	}
	after := heap()
	runtime.KeepAlive(look)
	return (max(after, before) - before) / uint64(n)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Rows cost no memory once their keys are there.
func TestIndexAllocs(t *testing.T) {
	flow, translated := flow(t, queried), flow(t, "tcp 6 99 ESTABLISHED src=10.0.0.1 dst=10.1.41.192 sport=4000 dport=443 src=10.1.41.192 dst=10.1.32.70 sport=443 dport=4000 [ASSURED] use=1")
	s := socket(t, query)
	for _, d := range []Detector{Ghosts{}, LostFlows{}, PortReuse{}, Pressure{}, PortSpace{}} {
		look := d.Look(&Host{Now: now, Usage: fullTable})
		rows := func() {
			if look.Socket != nil {
				look.Socket(&s)
			}
			look.Flow(&flow)
			look.Flow(&translated)
		}
		rows()
		if n := testing.AllocsPerRun(100, rows); n != 0 {
			t.Errorf("%s: %v allocations for rows whose keys are there", d.Name(), n)
		}
	}
}
