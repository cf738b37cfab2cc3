package packet

import (
	"fmt"
	"net/netip"
	"slices"
)

// hiddenSlack is by how much an encrypted response may be longer than its
// request, for padding of the message and of blocks (RFC 5246 section 6.2.3.2:
// up to 255 bytes).
const hiddenSlack = 256

// HeartbeatTracker finds the TLS heartbeats of the Heartbleed attack among the
// packets of a host, on any port. It follows the records of each direction, so
// that it sees those which begin inside a segment or are split over several,
// knows when a connection turns to cipher text, and compares responses with
// their requests.
//
// Where it has not seen a connection begin, or packets are missing, it goes on
// at the next segment that begins with a record. Segments that come out of
// order are read only if they begin with a record.
//
// It is not safe for concurrent use.
type HeartbeatTracker struct {
	begun flowTable[beginning]
	flows flowTable[tlsFlow]
	lost  uint64
}

// HeartbeatFinding is a faulty heartbeat. It is comparable.
type HeartbeatFinding struct {
	From, To   netip.AddrPort
	Heartbeat  Heartbeat
	Fault      HeartbeatFault
	Confidence Confidence
	// Encrypted tells that Type and Payload are cipher text: only lengths count.
	Encrypted bool
	// Request is the Length of the request that was answered, 0 if unknown.
	Request int
	// Extra is how many bytes more are claimed than the record holds (Overread),
	// or were returned than the request held (Leak; of cipher text, of the
	// records).
	Extra int
}

// String says in one sentence what was found.
func (r HeartbeatFinding) String() string {
	s := fmt.Sprintf("%v > %v: heartbeat of %d bytes: ", r.From, r.To, r.Heartbeat.Length)
	switch r.Fault {
	case Overread:
		s += fmt.Sprintf("a request that claims %d bytes more than it has, the Heartbleed attack", r.Extra)
	case Leak:
		s += fmt.Sprintf("a response with %d bytes more than its request had: the server leaks memory", r.Extra)
	case Violation:
		s += "a message that RFC 6520 forbids"
	case Large:
		s += "larger than usual, a leak if its request was smaller"
	default:
		s += r.Fault.String()
	}
	if r.Encrypted {
		s += "; it is encrypted, only its length tells"
	}
	return s + " (" + r.Confidence.String() + ")"
}

// tlsFlow is a connection, by direction.
type tlsFlow struct {
	streams [2]tlsStream
	asked   [2]asked     // the last request
	seen    [2][4]uint32 // where the last heartbeats began
	count   [2]int       // of heartbeats
}

// asked is a request: the length of its message, 0 for none, and how much
// payload it has at most.
type asked struct{ length, payload int }

// NewHeartbeatTracker returns a HeartbeatTracker that follows so many
// connections, and remembers as many that have just begun; 0 is 4096, which
// takes two megabytes. The oldest are forgotten first.
func NewHeartbeatTracker(connections int) *HeartbeatTracker {
	if connections <= 0 {
		connections = 4096
	}
	return &HeartbeatTracker{begun: newFlowTable[beginning](connections), flows: newFlowTable[tlsFlow](connections)}
}

// Forgotten returns how many connections that were followed were forgotten for
// lack of room.
func (t *HeartbeatTracker) Forgotten() uint64 { return t.flows.forgotten }

// Lost returns how often the records of a connection could no longer be
// followed, because a packet was missing or captured too short. Heartbeats may
// have gone unseen until a segment began with a record again.
func (t *HeartbeatTracker) Lost() uint64 { return t.lost }

// Packet takes in the next packet, of which b are the bytes that h was decoded
// from, and calls found for each faulty heartbeat.
func (t *HeartbeatTracker) Packet(h Header, b []byte, found func(HeartbeatFinding)) {
	if !h.isSegment() || h.Flags.Has(RST) {
		return
	}
	k, dir := flowOf(&h)
	if isSYN(h.Flags) {
		t.handshake(k, dir, &h)
		h.Seq++ // data follows the SYN
	}
	g := tlsSegment{data: h.Payload(b)}
	g.n = max(h.DataLen, len(g.data))
	f := t.flow(k, &g)
	if f == nil {
		return
	}
	s := &f.streams[dir]
	old, lost := s.begin(h.Seq, &g)
	if old { // read it apart, and leave s where it is
		apart := tlsStream{cipher: s.cipher}
		apart.begin(h.Seq, &g)
		s = &apart
	}
	for {
		t.count(lost)
		var part []byte
		if part, lost = s.record(&g); part == nil {
			break
		}
		t.read(f, dir, s, part, &h, found)
	}
	t.count(lost)
	if !f.streams[0].synced && !f.streams[1].synced {
		t.flows.delete(k)
	}
}

func (t *HeartbeatTracker) count(lost bool) {
	if lost {
		t.lost++
	}
}

// handshake takes in a SYN or SYN/ACK: a new connection.
func (t *HeartbeatTracker) handshake(k flowKey, dir int, h *Header) {
	t.flows.delete(k)
	b := t.begun.get(k)
	if b == nil {
		b = t.begun.put(k, beginning{})
	}
	b.handshake(h, dir)
}

// flow returns the connection of a segment, nil if it has no data, or nothing
// is known of the connection and none begins here.
func (t *HeartbeatTracker) flow(k flowKey, g *tlsSegment) *tlsFlow {
	if g.n == 0 {
		return nil
	}
	if f := t.flows.get(k); f != nil {
		return f
	}
	b := t.begun.get(k)
	if b == nil && !isTLSRecord(g.data) {
		return nil
	}
	var fresh tlsFlow
	if b != nil {
		for dir := range fresh.streams {
			fresh.streams[dir] = tlsStream{next: b.first[dir], synced: b.known[dir], cipher: cipherNone}
		}
		t.begun.delete(k)
	}
	return t.flows.put(k, fresh)
}

// read looks at a record of which part is the beginning.
func (t *HeartbeatTracker) read(f *tlsFlow, dir int, s *tlsStream, part []byte, h *Header, found func(HeartbeatFinding)) {
	s.protect(part)
	hb, ok := DecodeHeartbeat(part)
	if !ok || f.repeated(dir, s.start) {
		return
	}
	r := HeartbeatFinding{Heartbeat: hb, Encrypted: hb.hidden(s.cipher)}
	if r.Fault, r.Confidence = hb.fault(s.cipher); s.continues(hb, r.Fault) {
		return
	}
	r.compare(f, dir, s.cipher)
	if r.Fault != 0 {
		r.From, r.To = h.ends()
		found(r)
	}
}

// repeated reports whether a heartbeat was seen before, and remembers it.
func (f *tlsFlow) repeated(dir int, start uint32) bool {
	seen := &f.seen[dir]
	if slices.Contains(seen[:min(f.count[dir], len(seen))], start) {
		return true
	}
	seen[f.count[dir]%len(seen)] = start
	f.count[dir]++
	return false
}

// continues reports whether a record is the continuation of a response which
// claims more than a record can hold: OpenSSL sends such a leak in several.
// An attack passes for none.
func (s *tlsStream) continues(hb Heartbeat, fault HeartbeatFault) bool {
	if s.rest >= hb.Length && hb.Length > 0 && fault != Overread {
		s.rest -= hb.Length
		return true
	}
	s.rest = 0
	if hb.Type == HeartbeatResponse && hb.Length == heartbeatMax && !hb.hidden(s.cipher) {
		s.rest = max(hb.over()+heartbeatPadding, 0)
	}
	return false
}

// compare looks for the request of a response, and remembers requests. What
// follows cipher text of the other direction is taken for a response.
func (r *HeartbeatFinding) compare(f *tlsFlow, dir int, c cipher) {
	hb, request := r.Heartbeat, f.asked[1-dir]
	blind := r.Encrypted || hb.Payload < 0
	if !blind && hb.Type != HeartbeatResponse || blind && request.length == 0 {
		f.asked[dir] = hb.asks(blind)
		if r.Fault == Overread {
			r.Extra = hb.over()
		}
		return
	}
	if request.length == 0 {
		return
	}
	r.Request = request.length
	extra, sure := hb.Payload-request.payload, hb.sure(c)
	if blind {
		extra, sure = hb.Length-request.length, Possible
	}
	switch {
	case extra > 0 && (!blind || extra > hiddenSlack):
		r.Fault, r.Confidence, r.Extra = Leak, sure, extra
	case r.Fault == Large: // as its request was
		r.Fault, r.Confidence = 0, Unknown
	}
}

// asks is the heartbeat as a request.
func (hb Heartbeat) asks(blind bool) asked {
	most := max(hb.Length-heartbeatLen, 0)
	if !blind {
		most = min(most, hb.Payload)
	}
	return asked{length: hb.Length, payload: most}
}
