package detect

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// SynFlood finds local ports with many handshakes that the peer does not end:
// SYN_RECV. Where the row tells (a timer of the SYN-ACK, or the time its entry
// has left), only those count that went unanswered for a second: a busy
// service has many that are on their way. A port whose accept queue is full is
// left out, because there the kernel drops what ends the handshakes.
//
// One source with more than half of them is named and can be banned. When most
// sources have one each, they are forged, and there is nobody to ban.
//
// Half-open connections are sockets, and of the flows those that this host
// forwards: see PerSource. It keeps one counter for each source and port.
type SynFlood struct {
	Sources
	// Limit is how many unanswered handshakes are normal for a port; 0 is 64,
	// half of the smallest tcp_max_syn_backlog a kernel chooses.
	Limit uint64
	// Total is the same for all ports together; 0 is 256.
	Total uint64
}

// The kinds of half-open connections.
const (
	unanswered uint8 = 1 + iota
	ageless          // how old it is is not known
)

// Name returns "SynFlood".
func (SynFlood) Name() string { return "SynFlood" }

func (d *SynFlood) limit() uint64 { return cmp.Or(d.Limit, 64) }
func (d *SynFlood) total() uint64 { return cmp.Or(d.Total, 256) }

// Look begins a pass.
func (d SynFlood) Look(h *Host) Look {
	g := d.gather(h, func(uint8) uint64 { return 0 })
	full := make(map[uint16]bool)
	whole := time.Duration(0)
	if h.Settings.Has("nf_conntrack_tcp_timeout_syn_recv") {
		whole = h.Settings.Timeouts.TCP(conntrack.TCPSynRecv)
	}
	return Look{
		Socket: func(s *sockdiag.Socket) {
			g.see(s)
			if s.State == sockdiag.Listen && s.AcceptQueue > 0 {
				n, known := h.backlog(s)
				full[s.Local.Port()] = full[s.Local.Port()] || known && s.AcceptQueue > n
			}
			if kind := handshake(s); kind != 0 {
				g.socket(s, kind)
			}
		},
		Flow: func(f *conntrack.Flow) {
			if kind := handshakeFlow(f, whole); kind != 0 && g.forwarded(f) {
				g.flow(f, kind)
			}
		},
		Findings: func() []Finding { return d.findings(&halfOpenPass{g, full}) },
	}
}

// handshake returns the kind of a socket; 0 is that it does not count.
func handshake(s *sockdiag.Socket) uint8 {
	switch {
	case halfOpen(s.State) != sockdiag.SynRecv:
		return 0
	case s.Timer == sockdiag.TimerOff:
		return ageless
	case s.Retransmits > 0:
		return unanswered
	}
	return 0
}

// handshakeFlow does the same with a flow, whose timeout began at whole.
func handshakeFlow(f *conntrack.Flow, whole time.Duration) uint8 {
	switch {
	case f.TCP.State != conntrack.TCPSynRecv:
		return 0
	case whole == 0 || !shows(f, conntrack.FieldTimeout):
		return ageless
	case f.Timeout < whole-time.Second: // in whole seconds
		return unanswered
	}
	return 0
}

// halfOpenPass is what was gathered in a pass.
type halfOpenPass struct {
	*gathering
	full map[uint16]bool // accept queues by port; false is that it may be
}

func (d *SynFlood) findings(g *halfOpenPass) []Finding {
	ports := make(map[uint16]uint64)
	for k, n := range g.counts.all() {
		if !g.full[k.port] {
			ports[k.port] += uint64(*n)
		}
	}
	var found []Finding
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if ports[port] > d.limit() {
			of := func(k sourceKey) bool { return k.port == port }
			f := d.flood(g, of, d.limit(), fmt.Sprintf("port %d", port))
			if _, waits := g.full[port]; waits {
				f.Evidence.Missing = append(f.Evidence.Missing, "whether the accept queue was full for an instant, where the kernel drops what ends handshakes")
			}
			found = append(found, f)
		}
	}
	all := func(k sourceKey) bool { return !g.full[k.port] }
	if len(found) == 0 && sumOf(maps.Values(ports)) > d.total() {
		found = append(found, d.flood(g, all, d.total(), "all ports"))
	}
	if f, ok := g.host.loggedFlood(); ok && len(found) == 0 {
		found = append(found, f)
	}
	return found
}

// flood looks at the half-open connections that pass.
func (d *SynFlood) flood(g *halfOpenPass, pass func(sourceKey) bool, limit uint64, subject string) Finding {
	loads := g.loads(pass, 0)
	c := countHeads(loads)
	f := Finding{
		Detector: "SynFlood", Severity: Warning, Confidence: Likely, Subject: subject, Count: c.count, Limit: limit,
		Cause: fmt.Sprintf("%s: %d half-open connections (SYN_RECV) of %d sources, %s", subject, c.count, len(loads), c.verdict()),
	}
	d.name(&f, c, g.gathering)
	d.advise(&f, g, c.here)
	if old := g.totals(func(k sourceKey) bool { return pass(k) && k.of() == unanswered }); sumOf(maps.Values(old)) <= limit {
		f.doubt("how long they have been half-open (ss -o): a busy service has many for an instant")
	}
	return f
}

// advise adds what helps the listener.
func (d *SynFlood) advise(f *Finding, g *halfOpenPass, here bool) {
	if g.passing(here) {
		f.Fix = append(f.Fix, onServer)
		return
	}
	g.host.remedy(f, "let clients in meanwhile", syncookies)
	g.host.remedy(f, "hold more of them", synBacklog)
	g.host.remedy(f, "give up sooner", synAckRetries)
	f.Fix = append(f.Fix, longerBacklog)
	if !g.host.has(syncookies) {
		f.Evidence.Missing = append(f.Evidence.Missing, "whether net.ipv4.tcp_syncookies is on")
	}
}

// name adds the sources, if there are any to ban.
func (d *SynFlood) name(f *Finding, c headcount, g *gathering) {
	if !c.single() {
		f.Evidence.Sockets = slices.Clone(g.rows[:min(len(g.rows), 3)])
		return
	}
	p := g.prefix(c.top.source)
	f.Sources = []netip.Prefix{p}
	f.Fix = append(f.Fix, banFix(p))
	f.Evidence.Sockets = g.evidence(&c.top, func(sourceKey) bool { return true })
}

// headcount tells a crowd from a single source.
type headcount struct {
	count, lone uint64 // connections, and those whose source has no other
	sources     uint64
	top         load
	here        bool // some end at this host
}

func countHeads(all map[source]*load) (c headcount) {
	for _, l := range all {
		c.count += l.count
		c.sources++
		c.here = c.here || l.here
		if l.count == 1 {
			c.lone++
		}
		if l.count > c.top.count || l.count == c.top.count && slices.Compare(l.source[:], c.top.source[:]) < 0 {
			c.top = *l
		}
	}
	return c
}

// single reports whether one source has more than half.
func (c *headcount) single() bool { return c.top.count > c.count/2 }

// spoofed reports whether nine sources of ten have one connection each.
func (c *headcount) spoofed() bool { return c.lone >= c.sources-c.sources/10 }

func (c *headcount) verdict() string {
	switch {
	case c.single():
		return fmt.Sprintf("%d of them of %v: a flood by one source, or a peer whose way back is blocked", c.top.count, c.top.source.addr())
	case c.spoofed():
		return "nearly all with one each: a flood from forged addresses, which a ban does not stop"
	}
	return "some of them with many: a flood by several, or a return path that is blocked"
}

func sumOf(counts iter.Seq[uint64]) (total uint64) {
	for n := range counts {
		total += n
	}
	return total
}
