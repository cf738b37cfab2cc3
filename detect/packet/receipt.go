package packet

// maxWindow is the most that a TCP can have under way: RFC 7323 section 2.3.
const maxWindow = 1 << 30

// Arrived returns how many bytes of the payload of h had arrived at the TCP
// that sent answer, a later segment of the other direction. It is 0 for the RST
// whose acknowledgement number shows that a request never reached the
// application.
//
// ok is false when answer cannot tell: it is not of the same connection and the
// other direction, it has no ACK flag, its number is more than 1 GiB away, or
// something of it or of h is missing. A RST with sequence number 0 does not
// tell either: a TCP that knows of no connection makes up the number that it
// acknowledges (RFC 9293 section 3.10.7.1).
func (h Header) Arrived(answer Header) (n int, ok bool) {
	if !h.isSegment() || !answer.isSegment() || h.DataLen < 0 || !answer.Flags.Has(ACK) ||
		h.Src != answer.Dst || h.SrcPort != answer.DstPort || h.Dst != answer.Src || h.DstPort != answer.SrcPort {
		return 0, false
	}
	return arrived(h.Seq, h.DataLen, &answer)
}

// arrived is Arrived for n bytes from sequence number seq on.
func arrived(seq uint32, n int, answer *Header) (int, bool) {
	ahead := int32(answer.Ack - seq)
	if ahead < -maxWindow || ahead > maxWindow || answer.Flags.Has(RST) && answer.Seq == 0 {
		return 0, false
	}
	return min(max(int(ahead), 0), n), true
}

// Hops returns how many routers the packet has passed, if its sender began
// with one of the usual TTLs: 64 (Linux, BSD), 128 (Windows) or 255 (routers).
// 0 is a packet of the host where it was captured, or of its network.
func (h Header) Hops() int {
	for _, initial := range [...]int{64, 128} {
		if int(h.TTL) <= initial {
			return initial - int(h.TTL)
		}
	}
	return 255 - int(h.TTL)
}
