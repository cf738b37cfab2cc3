package packet

import (
	"fmt"
	"net/netip"
	"time"
)

// settled is how long after a RST nothing more can come from its receiver that
// was on its way already.
const settled = 100 * time.Millisecond

// ResetTracker finds connections on which data was sent with PSH|RST and that
// live on, because a rule drops the RST and the data with it, before the TCP
// that would have ended the connection: the application waits for a request
// that was sent. Its packets must have been captured on the receiving host
// before that rule, and those that the host sends as well.
//
// What proves it is a packet that the receiver sends later, often the RST with
// which it gives up: it acknowledges nothing of the data. See
// [Header.Arrived].
//
// It is not safe for concurrent use.
type ResetTracker struct {
	begun  flowTable[beginning]
	pushed flowTable[push]
}

// PushedReset is what a [ResetTracker] has found about a connection. It is
// comparable.
type PushedReset struct {
	// From sent PSH|RST to To.
	From, To netip.AddrPort
	// Payload is the bytes of data in the PSH|RST that counts, the first that
	// is next in sequence; Count is how many there were, and At when the first
	// was seen.
	Payload, Count int
	At             time.Time

	// Confidence is Possible as long as the receiver has not answered, and of
	// what follows only Want is known. A receiver that answers makes it
	// Certain, or Likely if the start of the connection was not seen.
	Confidence Confidence
	// Answer are the flags, TTL the TTL (hop limit) of the answer, and After how
	// long after At it was seen. Its TTL is that of the receiver's SYN/ACK, or
	// one of Hops 0: nobody in between has sent it.
	Answer TCPFlags
	TTL    uint8
	After  time.Duration
	// Ack is what the answer acknowledges, and Want what it would had the data
	// arrived: counted from the sender's SYN, so that 1 is no data; or from the
	// byte before Payload if that was not seen.
	Ack, Want uint32
}

// String says in one sentence what was found.
func (r PushedReset) String() string {
	s := fmt.Sprintf("%v > %v: PSH|RST with %d bytes, %d seen", r.From, r.To, r.Payload, r.Count)
	if r.Answer == 0 {
		return s + "; if a rule drops them, the connection hangs (possible)"
	}
	return s + fmt.Sprintf("; %v after, %v with TTL %d acknowledges %d, not %d: the data never arrived, and "+
		"a rule drops RST before it reaches TCP (%v)", r.After.Round(time.Millisecond), r.Answer, r.TTL, r.Ack, r.Want, r.Confidence)
}

// push is a connection with PSH|RST.
type push struct {
	found PushedReset
	dir   int
	seq   uint32
	begun beginning
}

// NewResetTracker returns a ResetTracker that remembers so many connections
// with PSH|RST, and as many that have just begun; 0 is 4096, which takes a
// megabyte and a half. The oldest are forgotten first.
func NewResetTracker(connections int) *ResetTracker {
	if connections <= 0 {
		connections = 4096
	}
	return &ResetTracker{begun: newFlowTable[beginning](connections), pushed: newFlowTable[push](connections)}
}

// Forgotten returns how many connections with PSH|RST were forgotten for lack
// of room.
func (t *ResetTracker) Forgotten() uint64 { return t.pushed.forgotten }

// Packet takes in the next packet, seen at now, and reports whether it tells
// something new: the first PSH|RST with data of a connection, or the answer
// that proves the data lost, each once.
func (t *ResetTracker) Packet(now time.Time, h Header) (PushedReset, bool) {
	if !h.isSegment() {
		return PushedReset{}, false
	}
	k, dir := flowOf(&h)
	if isSYN(h.Flags) {
		t.handshake(k, dir, &h)
		return PushedReset{}, false
	}
	p := t.pushed.get(k)
	switch {
	case h.Flags.Anomaly() == PSHRST && h.DataLen > 0:
		return t.push(now, k, dir, &h, p)
	case p != nil && p.dir != dir:
		return p.found, p.answered(now, &h)
	}
	if b := t.begun.get(k); b != nil {
		b.advance(&h, dir)
	}
	return PushedReset{}, false
}

// handshake takes in a SYN or SYN/ACK. Only the latter, which the receiver
// sends, tells of a new connection: anybody can send a SYN.
func (t *ResetTracker) handshake(k flowKey, dir int, h *Header) {
	if p := t.pushed.get(k); p != nil && (p.dir == dir || !h.Flags.Has(ACK)) {
		return
	}
	t.pushed.delete(k)
	b := t.begun.get(k)
	if b == nil {
		b = t.begun.put(k, beginning{})
	}
	b.handshake(h, dir)
}

func (t *ResetTracker) push(now time.Time, k flowKey, dir int, h *Header, p *push) (PushedReset, bool) {
	if p != nil && p.dir == dir {
		p.found.Count++
		if p.outOfOrder() { // TCP ignores it, rule or not; this one it may not
			p.segment(h)
		}
		return p.found, false
	}
	fresh := push{dir: dir}
	if b := t.begun.get(k); b != nil {
		fresh.begun = *b
		t.begun.delete(k)
	}
	fresh.found = PushedReset{Count: 1, At: now, Confidence: Possible}
	fresh.found.From, fresh.found.To = h.ends()
	fresh.segment(h)
	return t.pushed.put(k, fresh).found, true
}

// segment notes a PSH|RST.
func (p *push) segment(h *Header) {
	p.seq, p.found.Payload = h.Seq, h.DataLen
	p.found.Want = p.relative(h.Seq + uint32(h.DataLen))
}

// relative counts a sequence number from the sender's SYN.
func (p *push) relative(seq uint32) uint32 {
	if p.begun.known[p.dir] {
		return seq - p.begun.first[p.dir] + 1
	}
	return seq - p.seq + 1
}

// outOfOrder reports a PSH|RST of which TCP would only have noted the sequence
// number, and sent an ACK (RFC 5961 section 3.2).
func (p *push) outOfOrder() bool {
	return p.begun.known[p.dir] && p.begun.next[p.dir] != p.seq
}

// answered reports whether h, a packet of the receiver, proves that the data
// and the RST were dropped: the receiver still has a connection, in which their
// sequence number is the next.
func (p *push) answered(now time.Time, h *Header) bool {
	after := now.Sub(p.found.At)
	own := h.TTL == p.begun.ttl[1-p.dir] || h.Hops() == 0
	n, ok := arrived(p.seq, p.found.Payload, h)
	if p.found.Answer != 0 || p.outOfOrder() || after < settled || !own ||
		!h.Flags.Has(ACK) || !ok || n != 0 || h.Ack != p.seq {
		return false
	}
	p.found.Answer, p.found.TTL, p.found.After = h.Flags, h.TTL, after
	p.found.Ack = p.relative(h.Ack)
	p.found.Confidence = Likely
	if p.begun.known[p.dir] {
		p.found.Confidence = Certain
	}
	return true
}
