package conntrack

import "net/netip"

// Translated reports whether source or destination is rewritten (NAT): the
// reply is expected elsewhere than the original came from.
func (f Flow) Translated() bool { return f.Reply != f.Original.Invert() }

// Translation is what NAT makes of one end of the original direction's
// packets. The ports are 0 for protocols without ports; for ICMP queries they
// are the query's ID.
type Translation struct {
	From, To netip.AddrPort
}

// String returns "from -> to".
func (t Translation) String() string { return t.From.String() + " -> " + t.To.String() }

// SourceNAT returns what the source of the original direction is rewritten to,
// and whether it is rewritten: the packets of the reply direction then come
// back to another address or port than the original's came from. Redirecting
// to the same value is none.
func (f Flow) SourceNAT() (Translation, bool) {
	from, to := f.Original.source(), f.Reply.Invert().source()
	return Translation{from, to}, from != to
}

// DestinationNAT returns what the destination of the original direction is
// rewritten to, and whether it is.
func (f Flow) DestinationNAT() (Translation, bool) {
	from, to := f.Original.destination(), f.Reply.Invert().destination()
	return Translation{from, to}, from != to
}

// source is the end that source NAT rewrites: an ICMP query's ID counts as
// its source port (nf_nat_proto.c).
func (t Tuple) source() netip.AddrPort {
	port := t.SrcPort
	if t.Proto == ProtoICMP || t.Proto == ProtoICMPv6 {
		port = t.ICMPID
	}
	return netip.AddrPortFrom(t.Src, port)
}

func (t Tuple) destination() netip.AddrPort { return netip.AddrPortFrom(t.Dst, t.DstPort) }
