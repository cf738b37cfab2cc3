package detect

import (
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// busy is a host with n connections of its own, each with its entry, and among
// them a ghost for every thousandth.
func busy(n int) Host {
	local := netip.MustParseAddr("192.0.2.1")
	h := Host{Now: time.Unix(1700000000, 0)}
	for i := range n {
		peer := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		port := uint16(1024 + i%60000)
		f := conntrack.Flow{
			Original: conntrack.Tuple{Src: peer, Dst: local, SrcPort: port, DstPort: 443, Proto: conntrack.ProtoTCP},
			TCP:      conntrack.TCPInfo{State: conntrack.TCPEstablished}, Timeout: 100 * time.Hour,
			Status: conntrack.SeenReply | conntrack.Assured,
			Fields: conntrack.FieldStatus | conntrack.FieldTCP | conntrack.FieldTimeout,
		}
		f.Reply = f.Original.Invert()
		if i%1000 == 0 {
			f.Original, f.Reply, f.Status = f.Reply, f.Original, 0
		} else {
			h.Sockets = append(h.Sockets, sockdiag.Socket{
				Family: sockdiag.IPv4, State: sockdiag.Established, Inode: uint32(i),
				Local: netip.AddrPortFrom(local, 443), Remote: netip.AddrPortFrom(peer, port),
			})
		}
		h.Flows = append(h.Flows, f)
	}
	return h
}

const busyFlows = 100_000

// floor is what a detector cannot do without: to look at every row once.
func floor(h *Host) (n int) {
	for i := range h.Flows {
		if h.Flows[i].Unreplied() {
			n++
		}
	}
	for i := range h.Sockets {
		if h.Sockets[i].State == sockdiag.Listen {
			n++
		}
	}
	return n
}

func benchmark(b *testing.B, d Detector, findings int) {
	benchmarkHost(b, busy(busyFlows), d, findings)
}

func benchmarkHost(b *testing.B, h Host, d Detector, findings int) {
	var least, spent time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		if floor(&h) != busyFlows/1000 {
			b.Fatal("the floor is not even")
		}
		least += time.Since(start)
		b.StartTimer()
		start = time.Now()
		if found := Find(h, d); len(found) != findings {
			b.Fatalf("%d findings, want %d", len(found), findings)
		}
		spent += time.Since(start)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*busyFlows), "ns/flow")
	b.ReportMetric(float64(spent)/float64(least), "x-floor")
}

func BenchmarkGhosts(b *testing.B)    { benchmark(b, Ghosts{}, busyFlows/1000) }
func BenchmarkLostFlows(b *testing.B) { benchmark(b, LostFlows{}, 0) }
func BenchmarkPortReuse(b *testing.B) { benchmark(b, PortReuse{}, 0) }
func BenchmarkPortSpace(b *testing.B) { benchmark(b, PortSpace{}, 0) }

func BenchmarkPressure(b *testing.B) {
	h := busy(busyFlows)
	h.Usage = fullTable
	benchmarkHost(b, h, Pressure{}, 1)
}

// fullTable has Pressure look at the rows.
var fullTable = conntrack.Usage{Count: busyFlows, Max: busyFlows, Fields: conntrack.UsageMax}
