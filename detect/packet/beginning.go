package packet

// beginning is what the start of a connection shows, by direction.
type beginning struct {
	first [2]uint32 // sequence number of the first byte of data
	next  [2]uint32 // of the byte after those seen in order
	known [2]bool   // of first and next
	ttl   [2]uint8  // of the SYN or SYN/ACK, 0 if it was not seen
}

// handshake takes in a SYN or a SYN/ACK. A SYN begins anew.
func (b *beginning) handshake(h *Header, dir int) {
	if !h.Flags.Has(ACK) {
		*b = beginning{}
	} else {
		b.start(1-dir, h.Ack)
	}
	b.start(dir, h.Seq+1)
	b.ttl[dir] = h.TTL
}

func (b *beginning) start(dir int, seq uint32) {
	b.first[dir], b.next[dir], b.known[dir] = seq, seq, true
}

// advance takes in a segment after the handshake.
func (b *beginning) advance(h *Header, dir int) {
	if h.DataLen > 0 && b.known[dir] && h.Seq == b.next[dir] {
		b.next[dir] += uint32(h.DataLen)
	}
}

// isSYN reports a SYN or SYN/ACK, and nothing odd.
func isSYN(f TCPFlags) bool { return f.Has(SYN) && f&(FIN|RST) == 0 }

// isSegment reports a TCP header with flags.
func (h *Header) isSegment() bool { return h.Proto == ProtoTCP && h.Have.Has(HavePorts|HaveFlags) }
