package detect_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// fill makes n entries of closed connections from one source to port 443, of
// IPv4 or IPv6, after the first of them.
func fill(t *testing.T, e eyes, source netip.Addr, first, n int) {
	t.Helper()
	to := netip.MustParseAddr("198.51.100.80")
	if source.Is6() {
		to = netip.MustParseAddr("2001:db8:80::80")
	}
	for i := range n {
		f := conntrack.Flow{
			Original: conntrack.Tuple{Src: source, Dst: to, SrcPort: uint16(1024 + first + i), DstPort: 443, Proto: conntrack.ProtoTCP},
			Timeout:  time.Hour,
			TCP:      conntrack.TCPInfo{State: conntrack.TCPTimeWait},
			Status:   conntrack.SeenReply | conntrack.Assured,
		}
		f.Fields = conntrack.FieldTCP
		f.Reply = f.Original.Invert()
		ok(t, e.ct.Create(t.Context(), f))
	}
}

// A table fills. The limit is the machine's, which a test must not reach:
// what is found against it is nothing, and against a lower one what is so.
func TestLabPressure(t *testing.T) {
	server := lab.New(t).MustHost(t, "server")
	e := open(t, server)
	many, few := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:7::7")
	fill(t, e, many, 0, 300)
	fill(t, e, few, 0, 100)
	early := e.look(t)
	quiet(t, early)

	fill(t, e, many, 300, 500)
	h := e.look(t)
	if h.Usage.Count != 900 || len(h.Flows) != 900 {
		t.Fatalf("%d entries, %d flows", h.Usage.Count, len(h.Flows))
	}
	h.Earlier = detect.Earlier{At: early.Now, Usage: early.Usage, Stats: early.Stats}
	if h.Usage.Max >= 10_000 {
		quiet(t, h)
	}
	h.Usage.Max = 1000
	found := detect.Find(h, all...)
	if len(found) != 1 || found[0].Detector != "Pressure" || found[0].Severity != detect.Warning || found[0].Count != 900 || found[0].Limit != 1000 {
		t.Fatalf("got %v", found)
	}
	f := found[0]
	for _, want := range []string{"900 of 1000 entries (90 %)", "TIME_WAIT 100 %", "tcp/443 100 %", "192.0.2.7/32 89 %, 2001:db8:7::/64 11 %", "evict the 0 (0 %)", "the 900 that are assured and closing", "it grows by"} {
		if !strings.Contains(f.Cause, want) {
			t.Errorf("not %q: %s", want, f.Cause)
		}
	}
	if fmt.Sprint(f.Sources) != "[192.0.2.7/32 2001:db8:7::/64]" {
		t.Errorf("sources %v", f.Sources)
	}
	remedy(t, e, server, f)
}

// remedy runs the commands of the finding that delete, each of which leaves the
// other source alone.
func remedy(t *testing.T, e eyes, server *lab.Host, f detect.Finding) {
	t.Helper()
	for i, left := range []uint64{100, 0} {
		run(t, server, f.Fix[i])
		await(t, fmt.Sprintf("%s to leave %d entries", f.Fix[i], left), func() bool { return e.look(t).Usage.Count == left })
	}
	run(t, server, f.Fix[2])
	if set := e.look(t).Settings.Timeouts.TCP(conntrack.TCPTimeWait); set != 30*time.Second {
		t.Errorf("%s: %v", f.Fix[2], set)
	}
	h := e.look(t)
	h.Usage.Max = 1000
	if found := detect.Find(h, all...); len(found) != 0 {
		t.Errorf("after all was done: %v", found)
	}
	for _, fix := range f.Fix[:3] {
		detect.Proved(t, fix)
	}
}
