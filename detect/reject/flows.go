package reject

import (
	"container/list"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// flows is the refused flows that are remembered: a bounded number, the one
// refused longest ago forgotten first. Time is an argument throughout.
type flows struct {
	max     int
	reasons bool // are told of INVALID packets
	traced  bool // some packets are traced, which tells the rule
	by      map[conntrack.Tuple]*list.Element
	order   *list.List // of *refused, latest refusal first
	// waiting are those of which more may still be told, in the order in
	// which they are due; ready are those of which all was told.
	waiting []waiter
	ready   []*refused
}

// refused is one refused flow.
type refused struct {
	evidence    Evidence
	first, last time.Time
	count       int

	verdict Verdict
	told    bool      // verdict was yielded
	dueAt   time.Time // until when it waits; zero is not waiting
}

// waiter is a place in the queue; it is void when the flow's dueAt has become
// another.
type waiter struct {
	flow *refused
	at   time.Time
}

func newFlows(limit int, reasons bool) *flows {
	return &flows{max: limit, reasons: reasons, by: make(map[conntrack.Tuple]*list.Element), order: list.New()}
}

// begin remembers a flow whose packet came now, or gives one that is remembered
// new evidence. It is told at due, if not before.
func (fs *flows) begin(e Evidence, now, due time.Time) {
	tuple := PacketTuple(e.Packet.Value)
	el, ok := fs.by[tuple]
	if !ok {
		if fs.order.Len() >= fs.max {
			oldest := fs.order.Remove(fs.order.Back()).(*refused)
			delete(fs.by, PacketTuple(oldest.evidence.Packet.Value))
		}
		el = fs.order.PushFront(&refused{first: now})
		fs.by[tuple] = el
	}
	r := el.Value.(*refused)
	if e.ICMP.Result == NotLooked {
		e.ICMP = r.evidence.ICMP
	}
	if e.Rule.Result == NotLooked {
		e.Rule = r.evidence.Rule
	}
	if r.dueAt.IsZero() {
		r.dueAt = due
		fs.waiting = append(fs.waiting, waiter{r, r.dueAt})
	}
	if overtaken := r.evidence.Refusal == ICMPSent && e.Refusal == Logged; !overtaken || r.told {
		r.count++
	}
	r.evidence, r.last = e, now
	fs.order.MoveToFront(el)
	fs.told(r)
}

// told makes a flow ready as soon as nothing more is to come: the reason of an
// INVALID packet, the end of the entry of a connection that is refused here, the
// rule, the ICMP error.
func (fs *flows) told(r *refused) {
	e := &r.evidence
	reason := e.State != Invalid || e.Reason != "" || !fs.reasons
	end := !e.refusedHere() || !e.goesOn() || e.Entry.Result != Absent || e.Ended.Result == Present
	rule := !fs.traced || e.Rule.Result == Present
	if reason && end && rule && e.ICMP.Result == Present && !r.dueAt.IsZero() {
		fs.ready = append(fs.ready, r)
	}
}

// count counts a packet of a flow that is remembered and was looked at less
// than repeat ago in the same circumstances. It reports whether that was so.
func (fs *flows) count(e *Evidence, now time.Time, repeat time.Duration) bool {
	el, ok := fs.by[PacketTuple(e.Packet.Value)]
	if !ok {
		return false
	}
	r := el.Value.(*refused)
	have := &r.evidence
	same := e.State == have.State && (e.Reason == "" || e.Reason == have.Reason) && e.Refusal == have.Refusal
	if !same || now.Sub(r.verdict.Last) >= repeat && r.dueAt.IsZero() {
		return false
	}
	r.count, r.last = r.count+1, now
	fs.order.MoveToFront(el)
	return true
}

// addReason gives a packet that waits its reason.
func (fs *flows) addReason(h packet.Header, reason string) {
	if r := fs.get(h); r != nil && keyOf(r.evidence.Packet.Value) == keyOf(h) {
		r.evidence.Reason = reason
		fs.told(r)
	}
}

// addEnded gives a packet that had no entry the end of its entry. The end of an
// entry that refused a packet comes too late to explain anything.
func (fs *flows) addEnded(e Ended) {
	for _, t := range endedTuples(&e) {
		if el, ok := fs.by[t]; ok {
			r := el.Value.(*refused)
			if r.evidence.Entry.Result != Present {
				r.evidence.Ended = Found(e)
				fs.told(r)
			}
		}
	}
}

// endedTuples are those that a packet of the entry's connection can have. This
// host sends packets of the reply tuple, where it redirects to itself, and
// refuses such as answer them.
func endedTuples(e *Ended) []conntrack.Tuple {
	f := &e.Event.Flow
	tuples := []conntrack.Tuple{f.Original, f.Reply}
	if f.Translated() {
		tuples = append(tuples, f.Reply.Invert())
	}
	return tuples
}

// confirm notes the ICMP error about a packet of which more is known: that
// this host logged it, or that it was this host itself which sent the error
// that it received. It reports whether that is so.
func (fs *flows) confirm(e *Evidence) bool {
	r := fs.get(e.Packet.Value)
	if r == nil || r.evidence.Refusal == ICMPReceived || r.evidence.Refusal == e.Refusal {
		return false
	}
	r.evidence.ICMP = e.ICMP
	fs.told(r)
	return true
}

func (fs *flows) get(h packet.Header) *refused {
	if el, ok := fs.by[PacketTuple(h)]; ok {
		return el.Value.(*refused)
	}
	return nil
}

// untilDue is how long until the next flow is due.
func (fs *flows) untilDue(now time.Time) time.Duration {
	switch {
	case len(fs.ready) > 0:
		return 0
	case len(fs.waiting) == 0:
		return time.Hour
	}
	return max(fs.waiting[0].at.Sub(now), 0)
}

// due returns the verdicts that are to be yielded: on flows that are ready or
// have waited long enough, if they are new, differ from what was yielded, or
// were yielded at least repeat ago.
func (fs *flows) due(now time.Time, repeat time.Duration) []Verdict {
	for len(fs.waiting) > 0 && !now.Before(fs.waiting[0].at) {
		if w := fs.waiting[0]; w.flow.dueAt.Equal(w.at) {
			fs.ready = append(fs.ready, w.flow)
		}
		fs.waiting[0] = waiter{}
		fs.waiting = fs.waiting[1:]
	}
	var out []Verdict
	for _, r := range fs.ready {
		if r.dueAt.IsZero() {
			continue // it is there twice
		}
		r.dueAt = time.Time{}
		v := Explain(r.evidence)
		v.Count, v.First, v.Last = r.count, r.first, r.last
		if !r.told || v.Cause != r.verdict.Cause || v.Confidence != r.verdict.Confidence ||
			v.Last.Sub(r.verdict.Last) >= repeat {
			r.verdict, r.told = v, true
			out = append(out, v)
		}
	}
	clear(fs.ready)
	fs.ready = fs.ready[:0]
	return out
}

// recent remembers the last values put, up to a limit.
type recent[K comparable, V any] struct {
	max   int
	by    map[K]dated[V]
	order []K // a ring once it is full
	next  int
}

// dated is a value and its key's last place in the ring.
type dated[V any] struct {
	value V
	place int
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{max: limit, by: make(map[K]dated[V])}
}

func (r *recent[K, V]) put(k K, v V) {
	if len(r.order) < r.max {
		r.order = append(r.order, k)
	} else {
		if old := r.order[r.next]; r.by[old].place == r.next { // not put again since
			delete(r.by, old)
		}
		r.order[r.next] = k
	}
	r.by[k] = dated[V]{v, r.next}
	r.next = (r.next + 1) % r.max
}

func (r *recent[K, V]) get(k K) (V, bool) {
	d, ok := r.by[k]
	return d.value, ok
}
