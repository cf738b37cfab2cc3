package detect

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"

	"github.com/connsleuth/connsleuth/conntrack"
)

// PortSpace finds translated source addresses that run out of ports towards a
// destination. Source NAT gives each connection a port of the address it leaves
// with, and the same port serves several destinations, but only once each:
// between one address and one service there are as many connections as ports.
// Of those some are closing, and keep the port for as long as their entry.
//
// When almost all are taken the kernel searches longer for a free one (the
// counter found), then gives up and drops the packet (insert_failed).
//
// A pass keeps 65536 pairs of address and service, in at most 10 MB; of more
// than those each is counted up to 1/65536 of the translated flows too low.
type PortSpace struct {
	// Ports are those that NAT may choose from; the zero PortRange is 1024 to
	// 65535, those of rules that name none (nf_nat_l4proto_unique_tuple).
	// Flows translated to other ports are not counted.
	Ports conntrack.PortRange
	// Full is the share of ports taken that is found, 0 to 1; 0 is 0.8. From
	// 0.95 on it is Critical.
	Full float64
}

// Name returns "PortSpace".
func (PortSpace) Name() string { return "PortSpace" }

// Look begins a pass.
func (p PortSpace) Look(h *Host) Look {
	p.Full = cmp.Or(p.Full, 0.8)
	p.Ports = cmp.Or(p.Ports, conntrack.PortRange{First: 1024, Last: 65535})
	var used *heavy[outlet]
	sample := make(map[outlet]conntrack.Flow)
	need := uint64(p.Full * float64(p.size()))
	flow := func(f *conntrack.Flow) {
		o, ok := p.outlet(f)
		if !ok {
			return
		}
		if used == nil {
			used = newHeavy(65536, hashOutlet)
		}
		if used.add(o).least() == max(need, 1) {
			sample[o] = *f
		}
	}
	return Look{Flow: flow, Findings: func() []Finding { return p.findings(h, used, sample) }}
}

// size is how many ports there are.
func (p *PortSpace) size() uint64 { return uint64(p.Ports.Last) - uint64(p.Ports.First) + 1 }

// outlet is a translated address and where connections go from it, addresses as
// 16 bytes.
type outlet struct {
	proto conntrack.Proto
	zone  uint16
	from  [16]byte
	to    [16]byte
	port  uint16
}

// outlet returns where a flow's port is taken, if it is one of the ports and
// the source is translated. The reply tuple has it: its destination is the
// translated source.
func (p *PortSpace) outlet(f *conntrack.Flow) (outlet, bool) {
	t := &f.Reply
	if t.SrcPort == 0 || !p.Ports.Contains(t.DstPort) || t.Dst == f.Original.Src && t.DstPort == f.Original.SrcPort {
		return outlet{}, false
	}
	return outlet{proto: t.Proto, zone: cmp.Or(f.Zone, f.ReplyZone), from: t.Dst.As16(), to: t.Src.As16(), port: t.SrcPort}, true
}

func (o *outlet) String() string {
	from, to := netip.AddrFrom16(o.from).Unmap(), netip.AddrFrom16(o.to).Unmap()
	return fmt.Sprintf("source NAT %v > %v/%v", from, netip.AddrPortFrom(to, o.port), o.proto)
}

func compareOutlets(a, b outlet) int {
	return cmp.Or(bytes.Compare(a.from[:], b.from[:]), bytes.Compare(a.to[:], b.to[:]),
		cmp.Compare(a.port, b.port), cmp.Compare(a.proto, b.proto), cmp.Compare(a.zone, b.zone))
}

func (p *PortSpace) findings(h *Host, used *heavy[outlet], sample map[outlet]conntrack.Flow) []Finding {
	if used == nil {
		return nil
	}
	var found []Finding
	for _, c := range used.top(len(sample), compareOutlets) {
		if float64(c.n) < p.Full*float64(p.size()) {
			break
		}
		found = append(found, p.finding(h, c, sample[c.key]))
	}
	return found
}

func (p *PortSpace) finding(h *Host, c counted[outlet], sample conntrack.Flow) Finding {
	f := Finding{
		Detector: "PortSpace", Severity: Warning, Confidence: Likely, Subject: c.key.String(),
		Count: c.n, Limit: p.size(),
		Cause: fmt.Sprintf("%d of the %d ports %d-%d of the translated address (%s) are taken by connections to this one service: "+
			"when all are, new ones to it are dropped", c.n, p.size(), p.Ports.First, p.Ports.Last, shareText(c.n, p.size())),
		Fix: []string{
			moreAddresses,
			"have clients keep connections open and use them again",
		},
		Evidence: Evidence{Flows: []conntrack.Flow{sample}},
	}
	if float64(c.n) >= evicts*float64(p.size()) {
		f.Severity = Critical
	}
	if c.key.proto == conntrack.ProtoTCP {
		f.Fix = append(f.Fix, "free the ports sooner of connections that close from now on: `sysctl -w "+timeoutName(conntrack.TCPTimeWait)+"=30`")
	}
	h.clashes(&f)
	return f
}

// clashes adds what the counters say of ports that were not found.
func (h *Host) clashes(f *Finding) {
	elapsed, ok := h.since()
	if !ok || h.Earlier.Stats == nil || h.Stats == nil {
		f.Evidence.Missing = append(f.Evidence.Missing, "two readings of the counters: whether connections were dropped (insert_failed)")
		return
	}
	d := delta(h.Stats, h.Earlier.Stats)
	if n := clashed(&d); n > 0 {
		f.Severity = Critical
		f.Cause += fmt.Sprintf("; insert_failed counted %d in the last %s, of all addresses and services", n, seconds(elapsed))
	}
}
