package detect

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The commands of findings that no scene has are such as the tools take.
func TestLabCommands(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"nft", "ss", "conntrack", "prlimit"} {
		lab.Tool(t, tool)
	}
	s := newStage(t, newCrowd(t), false)
	for _, words := range []string{
		"add table inet filter", "add chain inet filter output { type filter hook output priority 0; }",
		"add chain inet filter forward { type filter hook forward priority 0; }",
		"add chain inet filter input { type filter hook input priority 0; }",
		"add set inet filter banned4 { type ipv4_addr; flags interval; }", "add set inet filter banned6 { type ipv6_addr; flags interval; }",
	} {
		s.command("nft '" + words + "'")
	}
	var found []Finding
	for i := range meanings {
		found = append(found, meanings[i].finding("", "", 0, 0))
	}
	for _, c := range counters {
		found = append(found, Finding{Fix: []string{c.fix}})
	}
	source := prefixes("192.0.2.7/32", "2001:db8:7::/64")
	found = append(found, exhausted(t, source), leftOpen(sockdiag.FinWait2), leftOpen(sockdiag.LastAck), leftOpen(sockdiag.Closing))
	for _, p := range source {
		found = append(found, forwardedScan(p.Addr()), Finding{Fix: []string{banFix(p), "`" + deleteFrom(p) + "`"}})
	}
	for _, f := range found {
		if len(f.Fix) == 0 {
			t.Errorf("no fix: %v", f)
		}
		for _, fix := range f.Fix {
			s.obey(fix)
		}
	}
}

// exhausted is this process as if it were at its limit.
func exhausted(t *testing.T, sources []netip.Prefix) Finding {
	d, err := sockdiag.Proc("").Descriptors(os.Getpid())
	noError(t, err)
	d.SoftLimit = 1 // the true one is the hard one already, and so stays
	s := shortage{OpenFiles: OpenFiles{Process: sockdiag.Process{PID: os.Getpid()}, Descriptors: d}}
	return Finding{Fix: s.fix(sources)}
}

// leftOpen is many sockets in a state that nobody has any more.
func leftOpen(state sockdiag.State) Finding {
	h := Host{Now: now}
	for i := range 3 {
		h.Sockets = append(h.Sockets, sockdiag.Socket{
			State: state, Retransmits: 3, Timer: sockdiag.TimerOn,
			Local: netip.MustParseAddrPort("192.0.2.2:443"), Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(5000+i)),
		})
	}
	return Find(h, Leaks{Orphans: 1, LastAck: 1, Closing: 1})[0]
}

// forwardedScan is one by a host behind a router.
func forwardedScan(from netip.Addr) Finding {
	h := Host{Now: now}
	for i := range 41 {
		to := from.As16()
		to[15] = byte(100 + i)
		f := conntrack.Flow{
			Original: conntrack.Tuple{Src: from, Dst: netip.AddrFrom16(to).Unmap(), SrcPort: 4000, DstPort: 23, Proto: conntrack.ProtoTCP},
			Fields:   conntrack.FieldTCP | conntrack.FieldTimeout | conntrack.FieldStatus, TCP: conntrack.TCPInfo{State: conntrack.TCPSynSent}, Timeout: time.Minute,
		}
		f.Reply = f.Original.Invert()
		h.Flows = append(h.Flows, f)
	}
	return Find(h, OutboundScan{})[0]
}
