package reject

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// grown is the bytes that what build returns takes.
func grown(build func() any) int {
	before := used()
	kept := build()
	after := used()
	runtime.KeepAlive(kept)
	return int(after) - int(before)
}

func used() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The bounds that Config.Flows and Watch name. It does not run beside other
// tests.
func TestSizes(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	const flows, ends = 1 << 12, 1 << 12
	entry, socket := flow(t, alive), sockdiag.Socket{}
	fill := func(f func() findings) func() any {
		return func() any {
			in := newIntake(t, Config{SourceFlows: flows})
			for i := range flows {
				p := tcpPacket(tcpTuple(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1, here, 80), packet.SYN, 1, 0)
				in.take(nflog.Input, "new ", p)
				for _, r := range in.flows.toLook(1) {
					in.flows.lookedUp(r, f(), now)
				}
			}
			if n := len(in.flows.due(now.Add(time.Second), flows)); n != flows {
				t.Fatalf("%d flows are told", n)
			}
			return in
		}
	}
	bare := grown(fill(func() findings { return findings{} })) / flows
	full := grown(fill(func() findings {
		e, s := entry, socket
		return findings{entry: found(&e), socket: found(&s), ended: &Ended{Event: conntrack.Event{Flow: entry}}}
	})) / flows
	ring := grown(func() any {
		es := newEndings(ends)
		for i := range 4 * ends {
			f := entry
			if f.Original.SrcPort, f.Original.DstPort = uint16(i), uint16(i>>16); i%2 == 0 {
				f.TCP.State = conntrack.TCPClose
			}
			f.Reply = f.Original.Invert()
			es.put(&Ended{Event: conntrack.Event{Flow: f}})
		}
		return es
	}) / (2 * ends)
	t.Logf("a flow takes %d bytes, %d with all that can be found; an end takes %d", bare, full, ring)
	if bare > 1100 || full > 2200 || ring > 800 {
		t.Error("that is more than the documentation says")
	}
}
