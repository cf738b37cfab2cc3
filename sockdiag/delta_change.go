package sockdiag

import "strconv"

// Change is one socket in two snapshots. It is comparable.
type Change struct {
	Before, After Socket
}

// Restarted reports that a process has used the socket anew: disconnected it,
// by connect(2) with AF_UNSPEC, and perhaps connected it again. It keeps its
// cookie then, but begins to count from 0: what tells is that it leads elsewhere
// or that a counter went back. Nothing tells when the new connection has the
// ends of the old one and has counted further.
func (c Change) Restarted() bool { return c.restarted() }

func (c *Change) restarted() bool {
	return c.reconnected() || c.countedBack()
}

// reconnected reports that a connection led elsewhere before. A socket that
// had none yet, or does without, may get one.
func (c *Change) reconnected() bool {
	b, a := &c.Before, &c.After
	connection := b.Protocol == TCP && b.State != Listen && b.State != Close
	return connection && (b.Local != a.Local || b.Remote != a.Remote)
}

// countedBack reports that a counter went back. Those of 32 bits pass their
// end, and seem to go back by that: so less than half way on is forward.
func (c *Change) countedBack() bool {
	b, a := &c.Before.Info, &c.After.Info
	return c.both(InfoBytes) && (a.BytesAcked < b.BytesAcked || a.BytesReceived < b.BytesReceived) ||
		c.both(InfoRetransmits) && (a.BytesSent < b.BytesSent || a.BytesRetrans < b.BytesRetrans) ||
		c.both(InfoBase) && int32(a.TotalRetrans-b.TotalRetrans) < 0
}

// both reports whether both rows have parts of struct tcp_info.
func (c *Change) both(parts InfoFields) bool {
	return c.Before.Fields&c.After.Fields&FieldInfo != 0 &&
		c.Before.Info.Fields&c.After.Info.Fields&parts == parts
}

// Traffic is what a connection counted in an interval. It is comparable.
type Traffic struct {
	// Fields are the parts of struct tcp_info that both rows had: InfoBase for
	// TotalRetrans, InfoBytes for BytesAcked and BytesReceived, InfoRetransmits
	// for BytesSent and BytesRetrans. It is 0 when nothing is known: without
	// Query.Info, and when the connection is in TimeWait by now.
	Fields InfoFields
	// TotalRetrans is packets retransmitted.
	TotalRetrans uint32
	// BytesAcked is bytes sent and acknowledged, the SYN as one, and
	// BytesReceived bytes received in sequence, the FIN as one.
	BytesAcked, BytesReceived uint64
	// BytesSent is bytes of data sent, and BytesRetrans those of them that were
	// sent again.
	BytesSent, BytesRetrans uint64
}

// Has reports whether all of the parts are known.
func (t Traffic) Has(parts InfoFields) bool { return t.Fields&parts == parts }

// Traffic returns what the connection counted between the snapshots. If it was
// Restarted, it is what it counted since: what came before is lost.
func (c Change) Traffic() Traffic {
	var b TCPInfo
	if !c.restarted() {
		b = c.Before.Info
	}
	a := &c.After.Info
	t := Traffic{Fields: c.Before.Info.Fields & a.Fields}
	if t.Has(InfoBase) {
		t.TotalRetrans = a.TotalRetrans - b.TotalRetrans
	}
	if t.Has(InfoBytes) {
		t.BytesAcked, t.BytesReceived = a.BytesAcked-b.BytesAcked, a.BytesReceived-b.BytesReceived
	}
	if t.Has(InfoRetransmits) {
		t.BytesSent, t.BytesRetrans = a.BytesSent-b.BytesSent, a.BytesRetrans-b.BytesRetrans
	}
	return t
}

// Stall is why a connection delivers nothing.
type Stall uint8

// What can hold up a connection.
const (
	// NotStalled is a connection that delivered something in the interval, or
	// has nothing to deliver, or of which it is not known.
	NotStalled Stall = iota
	// StalledUnanswered is one whose retransmissions nobody acknowledges: the
	// peer or the way to it is gone.
	StalledUnanswered
	// StalledZeroWindow is one whose peer takes no more, and is asked again and
	// again: the process there does not read. Whether the peer answers tells
	// Info.LastAckRecv.
	StalledZeroWindow
)

var stallNames = [...]string{"not stalled", "unanswered", "zero window"}

// String returns "not stalled", "unanswered" or "zero window".
func (s Stall) String() string {
	if int(s) < len(stallNames) {
		return stallNames[s]
	}
	return "Stall(" + strconv.Itoa(int(s)) + ")"
}

// Stalled tells what holds up the connection: it had something to deliver in
// both snapshots, nothing was acknowledged between them, and its timer has
// expired backoff times in a row at least (0 is enough for the timer to run).
// It takes Query.Info in both, and Linux 4.1.
func (c Change) Stalled(backoff uint8) Stall {
	if !c.both(InfoBytes) || c.restarted() ||
		c.Before.Info.BytesAcked != c.After.Info.BytesAcked || !c.Before.owes() || !c.After.owes() {
		return NotStalled
	}
	i := &c.After.Info
	switch timeouts := max(i.Backoff, i.Retransmits, c.After.Retransmits); {
	case timeouts < backoff || c.After.Timer != TimerOn && c.After.Timer != TimerProbe:
		return NotStalled
	case c.After.zeroWindow():
		return StalledZeroWindow
	}
	return StalledUnanswered
}

// zeroWindow reports that the peer takes no more. When it closes its window over
// what is under way already, the kernel retransmits that instead of probing
// (tcp_retransmit_timer).
func (s *Socket) zeroWindow() bool {
	return s.Timer == TimerProbe ||
		s.State != SynSent && s.Info.Has(InfoWindow) && s.Info.SndWnd == 0
}

// owes reports that a connection has something to deliver. In Listen Unacked is
// the accept queue.
func (s *Socket) owes() bool {
	return s.State != Listen && (s.SendQueue > 0 || s.Info.Unacked > 0)
}
