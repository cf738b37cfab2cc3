package conntrack

import (
	"math"
	"net/netip"
)

// Match reports whether the flow passes. It allocates nothing.
func (f *Filter) Match(flow *Flow) bool {
	return f == nil || f.matchState(flow) && f.matchTuples(flow) && f.matchMarks(flow) &&
		f.matchAmounts(flow) && f.matchNAT(flow)
}

func (f *Filter) matchState(flow *Flow) bool {
	switch {
	case f.Proto != 0 && flow.Original.Proto != f.Proto,
		f.IPv4Only && !flow.Original.Src.Is4(),
		f.IPv6Only && !flow.Original.Src.Is6(),
		f.StatusSet|f.StatusUnset != 0 && !flow.Has(FieldStatus),
		flow.Status&f.StatusSet != f.StatusSet,
		flow.Status&f.StatusUnset != 0,
		f.TCPStates != 0 && (!flow.Has(FieldTCP) || !f.TCPStates.Has(flow.TCP.State)),
		f.SCTPStates != 0 && (!flow.Has(FieldSCTP) || !f.SCTPStates.Has(flow.Details().SCTP.State)):
		return false
	}
	return true
}

func (f *Filter) matchTuples(flow *Flow) bool {
	o, r := &flow.Original, &flow.Reply
	return admits(&f.Src, o.Src) && admits(&f.Dst, o.Dst) &&
		admits(&f.ReplySrc, r.Src) && admits(&f.ReplyDst, r.Dst) &&
		(f.Addr == netip.Prefix{} || contains(&f.Addr, o.Src) || contains(&f.Addr, o.Dst) ||
			contains(&f.Addr, r.Src) || contains(&f.Addr, r.Dst)) &&
		f.matchPorts(o, r) && f.matchICMP(o)
}

func (f *Filter) matchPorts(o, r *Tuple) bool {
	if f.SrcPort == (PortRange{}) && f.DstPort == (PortRange{}) && f.ReplySrcPort == (PortRange{}) &&
		f.ReplyDstPort == (PortRange{}) && f.Port == (PortRange{}) {
		return true
	}
	return o.hasPorts() && f.SrcPort.Contains(o.SrcPort) && f.DstPort.Contains(o.DstPort) &&
		f.ReplySrcPort.Contains(r.SrcPort) && f.ReplyDstPort.Contains(r.DstPort) &&
		(f.Port.Contains(o.SrcPort) || f.Port.Contains(o.DstPort) ||
			f.Port.Contains(r.SrcPort) || f.Port.Contains(r.DstPort))
}

// matchICMP needs not look at the protocol: tuples of others have zeros.
func (f *Filter) matchICMP(o *Tuple) bool {
	return (f.ICMPType == 0 || o.ICMPType == f.ICMPType) &&
		(f.ICMPCode == 0 || o.ICMPCode == f.ICMPCode) &&
		(f.ICMPID == 0 || o.ICMPID == f.ICMPID)
}

func (f *Filter) matchMarks(flow *Flow) bool {
	switch {
	case flow.Mark&f.markMask() != f.Mark,
		f.asksZone() && flow.zone() != f.Zone,
		f.OriginalZone != 0 && flow.OriginalZone != f.OriginalZone,
		f.ReplyZone != 0 && flow.ReplyZone != f.ReplyZone,
		f.ID != 0 && (flow.ID != f.ID || !flow.Has(FieldID)),
		f.Helper != "" && flow.Details().Helper != f.Helper,
		f.Labels != Labels{} && !flow.Details().Labels.HasAll(f.Labels):
		return false
	}
	return true
}

func (f *Filter) markMask() uint32 {
	if f.MarkMask == 0 && f.Mark != 0 {
		return math.MaxUint32
	}
	return f.MarkMask
}

func (f *Filter) asksZone() bool { return f.InZone || f.Zone != 0 }

// zone is the number of the entry's zone: it has one, whatever its directions
// (struct nf_conntrack_zone).
func (f *Flow) zone() uint16 { return max(f.Zone, f.OriginalZone, f.ReplyZone) }

func (f *Filter) matchAmounts(flow *Flow) bool {
	if f.MinTimeout|f.MaxTimeout != 0 &&
		(!flow.Has(FieldTimeout) || flow.Timeout < f.MinTimeout || f.MaxTimeout != 0 && flow.Timeout > f.MaxTimeout) {
		return false
	}
	if f.MinPackets|f.MaxPackets|f.MinBytes|f.MaxBytes == 0 {
		return true
	}
	packets := sum(flow.OriginalCounter.Packets, flow.ReplyCounter.Packets)
	bytes := sum(flow.OriginalCounter.Bytes, flow.ReplyCounter.Bytes)
	return flow.Has(FieldCounters) &&
		packets >= f.MinPackets && (f.MaxPackets == 0 || packets <= f.MaxPackets) &&
		bytes >= f.MinBytes && (f.MaxBytes == 0 || bytes <= f.MaxBytes)
}

// sum stops at the largest number.
func sum(a, b uint64) uint64 { return a + min(b, math.MaxUint64-a) }

func (f *Filter) matchNAT(flow *Flow) bool {
	none := netip.Prefix{}
	if !f.Translated && !f.SourceNAT && !f.DestinationNAT &&
		f.TranslatedTo == none && f.SourceNATTo == none && f.DestinationNATTo == none {
		return true
	}
	src, isSrc := flow.SourceNAT()
	dst, isDst := flow.DestinationNAT()
	switch {
	case f.Translated && !flow.Translated(),
		f.SourceNAT && !isSrc,
		f.DestinationNAT && !isDst,
		f.SourceNATTo != none && !src.to(&f.SourceNATTo),
		f.DestinationNATTo != none && !dst.to(&f.DestinationNATTo),
		f.TranslatedTo != none && !src.to(&f.TranslatedTo) && !dst.to(&f.TranslatedTo):
		return false
	}
	return true
}

// to reports whether the address is rewritten to one that p contains.
func (t *Translation) to(p *netip.Prefix) bool {
	return t.From.Addr() != t.To.Addr() && contains(p, t.To.Addr())
}

// admits reports whether p is no condition or contains a. It is inlined.
func admits(p *netip.Prefix, a netip.Addr) bool {
	return *p == netip.Prefix{} || contains(p, a)
}

func contains(p *netip.Prefix, a netip.Addr) bool { return unmapped(*p).Contains(a) }

// unmapped is the IPv4 prefix that an IPv4-mapped one stands for.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 96
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}
