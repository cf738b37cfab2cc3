package detect

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// OutboundScan finds connection attempts without an answer (SYN_SENT): to many
// destinations on one port, as a worm makes them, or many to one destination,
// which is gone or filtered.
//
// Of this host's own sockets those count whose SYN was sent again, so that a
// crawler's attempts under way do not. Flows count that no such socket accounts
// for, once they are two seconds old, by the address they come from: those this
// host forwards, and those of a scanner that makes its packets itself. How old
// they are is known with the tracker's settings.
//
// It keeps one counter for each address, destination and port.
type OutboundScan struct {
	// Limit is how many destinations without an answer are normal on one port;
	// 0 is 40.
	Limit uint64
	// Peer is how many attempts without an answer are normal to one
	// destination; 0 is 20.
	Peer uint64
	// Ports are the destination ports to look at; none is all.
	Ports []uint16
	// Allow are destinations that do not count, and addresses that may scan.
	Allow []netip.Prefix
}

// Name returns "OutboundScan".
func (OutboundScan) Name() string { return "OutboundScan" }

func (d *OutboundScan) limit() uint64 { return cmp.Or(d.Limit, 40) }
func (d *OutboundScan) peer() uint64  { return cmp.Or(d.Peer, 20) }

// attempt is what unanswered SYNs are counted by. The zero from is this host.
type attempt struct {
	from, to source
	port     uint16
	ageless  bool
	flow     bool // seen as a flow
}

// attempts are those of a pass.
type attempts struct {
	*OutboundScan
	host   *Host
	counts map[attempt]uint32
	own    ownAddrs
	whole  time.Duration   // the timeout of SYN_SENT; 0 is not known
	rows   map[attempt]int // the first of each, up to evidenceRows
	sock   []sockdiag.Socket
	flows  []conntrack.Flow
}

// Look begins a pass.
func (d OutboundScan) Look(h *Host) Look {
	a := &attempts{OutboundScan: &d, host: h, counts: make(map[attempt]uint32), own: newOwnAddrs(h), rows: make(map[attempt]int)}
	if h.Settings.Has("nf_conntrack_tcp_timeout_syn_sent") {
		a.whole = h.Settings.Timeouts.TCP(conntrack.TCPSynSent)
	}
	return Look{Socket: a.socket, Flow: a.flow, Findings: a.findings}
}

func (a *attempts) socket(s *sockdiag.Socket) {
	if s.State != sockdiag.SynSent {
		return
	}
	a.own.add(s.Local.Addr())
	if s.Timer != sockdiag.TimerOff && s.Retransmits == 0 {
		return
	}
	to := s.Remote.Addr().Unmap()
	if !a.wants(to, s.Remote.Port()) {
		return
	}
	k := attempt{to: to.As16(), port: s.Remote.Port(), ageless: s.Timer == sockdiag.TimerOff}
	if a.add(k) && len(a.sock) < evidenceRows {
		a.rows[k] = len(a.sock)
		a.sock = append(a.sock, *s)
	}
}

func (a *attempts) flow(f *conntrack.Flow) {
	t := &f.Original
	if f.TCP.State != conntrack.TCPSynSent || !unreplied(f) || !foreign(t.Src) {
		return
	}
	known := a.whole > 0 && f.Has(conntrack.FieldTimeout)
	if known && f.Timeout > a.whole-2*time.Second || !a.wants(t.Dst, t.DstPort) || inAny(a.Allow, t.Src) {
		return
	}
	k := attempt{to: t.Dst.As16(), port: t.DstPort, ageless: !known, flow: true}
	if !a.own.has(t.Src) {
		k.from = t.Src.As16()
	} else if a.bySocket(k) {
		return
	}
	if a.add(k) && len(a.flows) < evidenceRows {
		a.rows[k] = len(a.flows)
		a.flows = append(a.flows, *f)
	}
}

func (a *attempts) wants(to netip.Addr, port uint16) bool {
	return foreign(to) && (len(a.Ports) == 0 || slices.Contains(a.Ports, port)) && !inAny(a.Allow, to)
}

// bySocket reports whether a socket of this host tries the same.
func (a *attempts) bySocket(k attempt) bool {
	k.flow, k.ageless = false, false
	if a.counts[k] > 0 {
		return true
	}
	k.ageless = true
	return a.counts[k] > 0
}

// add counts an attempt, and reports whether it is the first of its kind.
func (a *attempts) add(k attempt) bool {
	n := a.counts[k] + 1
	a.counts[k] = n
	return n == 1
}

func (a *attempts) findings() []Finding {
	scans := make(map[attempt][]attempt) // by port
	for k := range a.counts {
		scans[attempt{from: k.from, port: k.port}] = append(scans[attempt{from: k.from, port: k.port}], k)
	}
	maps.DeleteFunc(scans, func(_ attempt, to []attempt) bool { return uint64(distinct(to)) <= a.limit() })
	peers := make(map[attempt][]attempt) // by destination
	for k := range a.counts {
		if scans[attempt{from: k.from, port: k.port}] == nil {
			peers[attempt{from: k.from, to: k.to}] = append(peers[attempt{from: k.from, to: k.to}], k)
		}
	}
	var found []Finding
	for _, k := range slices.SortedFunc(maps.Keys(scans), attempt.compare) {
		found = append(found, a.scan(k, scans[k]))
	}
	for _, k := range slices.SortedFunc(maps.Keys(peers), attempt.compare) {
		if n := a.sum(peers[k]); n > a.peer() {
			found = append(found, a.dead(k, peers[k], n))
		}
	}
	return found
}

func (k attempt) compare(b attempt) int {
	return cmp.Or(slices.Compare(k.from[:], b.from[:]), cmp.Compare(k.port, b.port), slices.Compare(k.to[:], b.to[:]),
		cmp.Compare(flag(k.ageless), flag(b.ageless)), cmp.Compare(flag(k.flow), flag(b.flow)))
}

// distinct is how many destinations there are; one can be there twice, as
// a socket and as a flow.
func distinct(all []attempt) int {
	slices.SortFunc(all, attempt.compare)
	n := 0
	for i := range all {
		if i == 0 || all[i].to != all[i-1].to {
			n++
		}
	}
	return n
}

func (a *attempts) sum(of []attempt) (n uint64) {
	for _, k := range of {
		n += uint64(a.counts[k])
	}
	return n
}

// scan is about an address that tries many destinations on a port.
func (a *attempts) scan(k attempt, to []attempt) Finding {
	f := a.finding(k, to)
	f.Severity, f.Count, f.Limit = Critical, uint64(distinct(to)), a.limit()
	f.Subject = fmt.Sprintf("%s, to port %d", f.Subject, k.port)
	f.Cause = fmt.Sprintf("%s sends SYNs to %d destinations on port %d, and none of them answers: "+
		"it scans, as a worm does, or its way out is filtered", k.who(), f.Count, k.port)
	f.Fix = []string{
		fmt.Sprintf("see which process it is: `ss -tnp state syn-sent dport = :%d`", k.port),
		fmt.Sprintf("stop it meanwhile: `nft add rule inet filter output tcp dport %d ct state new reject`", k.port),
		fmt.Sprintf("see where a filter is on the way, if all destinations should answer: `traceroute -n -T -p %d %v`", k.port, to[0].to.addr()),
	}
	if k.from != (source{}) {
		f.Fix[0] = fmt.Sprintf("see which process it is, on %v: `ss -tnp state syn-sent dport = :%d`", k.from.addr(), k.port)
		f.Fix[1] = fmt.Sprintf("stop it meanwhile: `nft add rule inet filter forward %s saddr %v tcp dport %d ct state new reject`",
			nftFamily(k.from.addr()), k.from.addr(), k.port)
	}
	a.doubt(&f, to)
	return f
}

// nftFamily is nft's word.
func nftFamily(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

// dead is about a destination that does not answer.
func (a *attempts) dead(k attempt, to []attempt, n uint64) Finding {
	f := a.finding(k, to)
	peer := k.to.addr()
	f.Severity, f.Count, f.Limit = Warning, n, a.peer()
	f.Subject = fmt.Sprintf("%s, to %v", f.Subject, peer)
	f.Cause = fmt.Sprintf("%s has %d attempts under way to %v, port %d, which does not answer: it is gone, or its packets are filtered",
		k.who(), n, peer, to[0].port)
	f.Fix = []string{
		fmt.Sprintf("see where the packets end: `traceroute -n -T -p %d %v`", to[0].port, peer),
		"give up sooner: a connect timeout of the application",
	}
	a.host.remedy(&f, "give up sooner", synRetries)
	a.doubt(&f, to)
	return f
}

// finding has what the two have in common.
func (a *attempts) finding(k attempt, to []attempt) Finding {
	f := Finding{Detector: "OutboundScan", Confidence: Likely, Subject: k.who()}
	distinct(to) // in order
	for _, t := range to {
		i, ok := a.rows[t]
		switch {
		case !ok || len(f.Evidence.Sockets)+len(f.Evidence.Flows) == 3:
		case t.flow:
			f.Evidence.Flows = append(f.Evidence.Flows, a.flows[i])
		default:
			f.Evidence.Sockets = append(f.Evidence.Sockets, a.sock[i])
		}
	}
	f.Since = a.host.begun(f.Evidence.Sockets)
	if k.from != (source{}) {
		p := k.from.addr()
		f.Sources = []netip.Prefix{netip.PrefixFrom(p, p.BitLen())}
	}
	return f
}

func (a *attempts) doubt(f *Finding, to []attempt) {
	if slices.ContainsFunc(to, func(k attempt) bool { return k.ageless }) {
		f.doubt("how long the attempts have been under way: a busy client has many for an instant")
	}
}

func (k attempt) who() string {
	if k.from == (source{}) {
		return "this host"
	}
	return k.from.addr().String()
}

// inAny reports whether one of the prefixes holds the address.
func inAny(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
