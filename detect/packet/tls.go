package packet

// tlsStream follows the TLS records that one end of a connection sends.
type tlsStream struct {
	next  uint32 // sequence number of the next byte
	left  uint32 // bytes of a record that are left to skip
	start uint32 // sequence number of the record in part
	rest  int    // bytes of a heartbeat that its next records continue

	// part is the beginning of a record: its header and up to 3 bytes more, of
	// which have are there; 0 when left counts.
	part [tlsHeaderLen + heartbeatLen]byte
	have int

	synced bool // a record is known to begin at next, or left bytes later
	cipher cipher
}

// tlsSegment is what is left of a segment: n bytes, of which the first in data
// were captured.
type tlsSegment struct {
	data []byte
	n    int
}

func (g *tlsSegment) skip(n int) {
	g.data, g.n = g.data[min(n, len(g.data)):], g.n-n
}

// begin takes in a segment at a sequence number. old reports that it was sent
// before, or that what was sent after it has come first; lost, that records
// were followed and no longer are.
func (s *tlsStream) begin(seq uint32, g *tlsSegment) (old, lost bool) {
	ahead := int(int32(seq - s.next))
	switch {
	case !s.synced, ahead == 0:
	case ahead < 0 && -ahead >= g.n:
		return true, false
	case ahead < 0:
		g.skip(-ahead)
		return false, false
	case s.have == 0 && ahead <= int(s.left):
		s.left, s.next = s.left-uint32(ahead), seq
	default:
		s.synced, lost = false, true
	}
	if !s.synced && isTLSRecord(g.data) {
		s.resume(seq)
	}
	return false, lost
}

// resume begins anew with a record at a sequence number. Cipher text stays
// that, but what was in the clear may have turned to it unseen.
func (s *tlsStream) resume(seq uint32) {
	c := s.cipher
	if c == cipherNone {
		c = cipherUnknown
	}
	*s = tlsStream{next: seq, synced: true, cipher: c}
}

// record reads on in a segment and returns the beginning of the next record, of
// which 5 bytes are there and 8 if the record has and the capture shows them;
// nil when the segment shows no more. lost is as in begin.
func (s *tlsStream) record(g *tlsSegment) (part []byte, lost bool) {
	for g.n > 0 && s.synced {
		if s.left > 0 {
			n := min(int(s.left), g.n)
			g.skip(n)
			s.left, s.next = s.left-uint32(n), s.next+uint32(n)
			continue
		}
		if s.have == 0 {
			s.start = s.next
		}
		n := copy(s.part[s.have:s.want()], g.data)
		g.skip(n)
		s.have, s.next = s.have+n, s.next+uint32(n)
		header := s.part[:s.have]
		switch {
		case s.have >= tlsHeaderLen && !isTLSRecord(header):
			s.synced, s.have = false, 0
		case s.have >= tlsHeaderLen && (s.have == s.want() || g.n > 0 && len(g.data) == 0):
			s.left, s.have = uint32(tlsHeaderLen+tlsLength(header)-s.have), 0
			return header, false
		case g.n > 0 && len(g.data) == 0: // cut within the header
			s.synced, s.have = false, 0
			return nil, true
		}
	}
	return nil, false
}

// want is how many bytes of the record's beginning are looked at.
func (s *tlsStream) want() int {
	if s.have < tlsHeaderLen {
		return tlsHeaderLen
	}
	return tlsHeaderLen + min(tlsLength(s.part[:]), heartbeatLen)
}

// protect follows what records tell of the cipher: none until
// ChangeCipherSpec, of which a Hello is the proof when the start was not seen.
func (s *tlsStream) protect(part []byte) {
	switch {
	case part[0] == tlsChangeCipherSpec, part[0] == tlsApplicationData:
		s.cipher = cipherText
	case s.cipher == cipherUnknown && isHello(part):
		s.cipher = cipherNone
	}
}

// isHello reports a ClientHello or ServerHello (1, 2) of less than 64 KiB which
// the record can hold: RFC 5246 section 7.4.
func isHello(part []byte) bool {
	return part[0] == tlsHandshake && len(part) == tlsHeaderLen+heartbeatLen && (part[5] == 1 || part[5] == 2) &&
		part[6] == 0 && int(part[7])<<8 <= tlsLength(part)
}
