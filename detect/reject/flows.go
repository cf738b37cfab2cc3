package reject

import (
	"container/list"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// flows is the refused flows that are remembered, in bounded memory: packets of
// more flows than flowLimits allow are counted in a crowd, by source or for all.
// Time is an argument throughout. It is not safe for concurrent use.
type flows struct {
	flowLimits
	by     map[flowKey]*refused
	crowds map[flowKey]*refused // by crowdKey; of all sources under the zero key
	from   map[flowKey]int      // flows of a source, by crowdKey

	order   list.List // all, latest refusal first
	fresh   list.List // are to be looked up
	looking list.List // are looked up now
	waiting list.List // were; more may still be told of them, until refused.due
	ready   list.List // are to be told
	later   list.List // were told; their counts are due at refused.next
}

// flowLimits are those of Config, with its defaults.
type flowLimits struct {
	wait, repeat time.Duration
	flows        int  // in all
	perSource    int  // of one source
	reasons      bool // are told of INVALID packets
	tracing      bool // some packets are traced, which tells the rule
}

const (
	// forgetAfter times Config.Repeat without a packet, a flow is forgotten.
	forgetAfter = 60
	// goingOn is how lately a packet came of a flow that is worth another look
	// when its count is told again.
	goingOn = time.Second
)

func newFlows(l flowLimits) *flows {
	return &flows{
		flowLimits: l,
		by:         make(map[flowKey]*refused), crowds: make(map[flowKey]*refused), from: make(map[flowKey]int),
	}
}

// refused is one refused flow, or a crowd of them.
type refused struct {
	key         flowKey
	seen        sighting // what made it be looked up
	found       findings
	first, last time.Time
	count, told uint64 // packets, and as many as the last verdict told
	crowd       *crowd // nil for one flow

	cause      Cause // last told, and the next
	confidence detect.Confidence
	toldAt     time.Time
	due        time.Time // until when it waits; zero before it was looked up
	next       time.Time // when its count is told again

	// queue is the one of fresh, looking, waiting and ready that it is in, if any.
	queue                     *list.List
	inQueue, inOrder, inLater *list.Element
}

// refuse counts a refused packet. The first of a flow, one in other
// circumstances than those told, and one long after them, make it be looked up.
func (fs *flows) refuse(s *sighting, now time.Time) {
	r := fs.find(&s.packet)
	if r == nil {
		r = fs.add(s, now)
	}
	overtaken := r.seen.refusal == ICMPSent && s.refusal == Logged && r.told == 0 && r.count > 0
	if !overtaken {
		r.count++
	}
	r.last = now
	fs.order.MoveToFront(r.inOrder)
	switch {
	case r.crowd != nil:
		r.crowd.add(s.packet.DstPort)
	case overtaken:
		fs.look(r, s, now)
	case r.queue == nil && r.changed(s):
		fs.look(r, s, now)
	}
	if r.queue == nil && r.inLater == nil { // told, and its repetition is over
		fs.look(r, s, now)
	}
}

// changed reports circumstances other than those last looked at.
func (r *refused) changed(s *sighting) bool {
	return s.state != r.seen.state || s.refusal != r.seen.refusal || s.reason != "" && s.reason != r.seen.reason
}

// look has the flow looked up with a packet.
func (fs *flows) look(r *refused, s *sighting, now time.Time) {
	icmp, rule := r.seen.icmp, r.seen.rule
	if r.seen = *s; s.icmp == nil {
		r.seen.icmp = icmp
	}
	if s.rule == nil {
		r.seen.rule = rule
	}
	r.seen.at = now
	fs.enqueue(r, &fs.fresh)
}

func (fs *flows) enqueue(r *refused, queue *list.List) {
	if r.queue != nil {
		r.queue.Remove(r.inQueue)
	}
	r.queue, r.inQueue = queue, nil
	if queue != nil {
		r.inQueue = queue.PushBack(r)
	}
}

// find returns the flow of a packet, or the crowd that its source is in.
func (fs *flows) find(h *packet.Header) *refused {
	if r := fs.by[keyOf(h)]; r != nil {
		return r
	}
	return fs.crowds[crowdKey(h)]
}

// add remembers the flow of a packet, or finds or makes the crowd it falls in.
func (fs *flows) add(s *sighting, now time.Time) *refused {
	key, source := keyOf(&s.packet), crowdKey(&s.packet)
	alone, all := fs.from[source] < fs.perSource, false
	for fs.order.Len() >= fs.flows && !all {
		all = !fs.evict()
	}
	if all {
		alone, source = false, flowKey{}
		if r := fs.crowds[source]; r != nil {
			return r
		}
	}
	r := &refused{key: key, first: now}
	if alone {
		fs.by[key] = r
		fs.from[source]++
	} else {
		r.key, r.crowd = source, &crowd{all: all}
		fs.crowds[source] = r
	}
	r.inOrder = fs.order.PushFront(r)
	return r
}

// evict forgets the flow refused longest ago, unless of it there is more to
// tell.
func (fs *flows) evict() bool {
	r := fs.order.Back().Value.(*refused)
	if r.count != r.told || r.queue != nil {
		return false
	}
	fs.remove(r)
	return true
}

func (fs *flows) remove(r *refused) {
	fs.enqueue(r, nil)
	fs.order.Remove(r.inOrder)
	if r.inLater != nil {
		fs.later.Remove(r.inLater)
	}
	if r.crowd != nil {
		delete(fs.crowds, r.key)
		return
	}
	delete(fs.by, r.key)
	source := crowdKey(&r.seen.packet)
	if fs.from[source]--; fs.from[source] <= 0 {
		delete(fs.from, source)
	}
}

// toLook takes up to n flows that are to be looked up. Each must be given back
// to lookedUp.
func (fs *flows) toLook(n int) []*refused {
	var out []*refused
	for fs.fresh.Len() > 0 && len(out) < n {
		r := fs.fresh.Front().Value.(*refused)
		fs.enqueue(r, &fs.looking)
		out = append(out, r)
	}
	return out
}

// lookedUp keeps what was found of a flow, which then waits for what other
// sources tell.
func (fs *flows) lookedUp(r *refused, f findings, now time.Time) {
	if f.ended == nil {
		f.ended = r.found.ended
	}
	r.found = f
	if r.queue != &fs.looking || fs.merge(r) {
		return
	}
	if r.due.IsZero() {
		r.due = now.Add(fs.wait)
	}
	fs.enqueue(r, &fs.waiting)
	fs.complete(r)
}

// complete makes a flow ready as soon as nothing more is to come: the reason of
// an INVALID packet, the end of the entry of a connection that is refused here, or
// of a question whose answer is, the rule, the ICMP error.
func (fs *flows) complete(r *refused) {
	if r.queue != &fs.waiting {
		return
	}
	e := r.evidence()
	reason := e.State != Invalid || e.Reason != "" || !fs.reasons
	end := !e.refusedHere() || !e.goesOn() && !e.replies() || e.Entry.Result != Absent || e.Ended.Result == Present
	rule := e.Rule.Result == Present || !fs.tracing
	if answered := e.ICMP.Result == Present || r.seen.answered; reason && end && rule && answered {
		fs.enqueue(r, &fs.ready)
	}
}

// addReason gives a packet that waits its reason, and that of the SYN|ACK before
// it, which came earlier from the same source.
func (fs *flows) addReason(h *packet.Header, reason, answer string) {
	if r := fs.by[keyOf(h)]; r != nil && reasonKeyOf(&r.seen.packet) == reasonKeyOf(h) {
		r.seen.reason, r.found.answer = reason, answer
		fs.complete(r)
	}
}

// addEnded gives a packet that had no entry the end of its entry. The end of an
// entry that refused a packet comes too late to explain anything.
func (fs *flows) addEnded(e *Ended) {
	for _, t := range endedTuples(e) {
		r := fs.by[keyOfTuple(&t)]
		if r != nil && r.found.entry.result != Present {
			if r.found.ended = e; r.queue == &fs.waiting && r.found.outcounted() {
				fs.enqueue(r, &fs.fresh)
			} else {
				fs.complete(r)
			}
		}
	}
}

// endedTuples are those that a packet of the entry's connection can have. This
// host sends packets of the reply tuple, where it redirects to itself, and
// refuses such as answer them; and packets in the original direction's stead
// once a source is translated.
func endedTuples(e *Ended) []conntrack.Tuple {
	f := &e.Event.Flow
	tuples := []conntrack.Tuple{f.Original, f.Reply}
	if f.Translated() {
		tuples = append(tuples, f.Reply.Invert(), f.Original.Invert())
	}
	return tuples
}

// confirm notes what else tells of a packet that was counted: the ICMP error or
// the RST that this host sent, or the error of its own that it received, or the
// rule. It reports whether the packet's flow is known.
func (fs *flows) confirm(s *sighting) bool {
	r := fs.find(&s.packet)
	if r == nil || r.seen.refusal == ICMPReceived || r.seen.refusal == ResetReceived || r.seen.refusal == s.refusal {
		return false
	}
	if s.icmp != nil {
		r.seen.icmp = s.icmp
	}
	if s.rule != nil {
		r.seen.rule = s.rule
	}
	r.seen.answered = r.seen.answered || s.answered
	fs.complete(r)
	return true
}

// merge joins the flow of a packet that was logged with what tells of it in
// another tuple, as the entry's translation shows. It reports whether r went.
func (fs *flows) merge(r *refused) bool {
	e := r.found.entry
	if r.crowd != nil || e.result != Present || !e.value.Translated() {
		return false
	}
	across := acrossNAT(e.value, PacketTuple(r.seen.packet))
	keep, gone := fs.by[keyOfTuple(&across)], r
	if keep == nil || keep == r {
		return false
	}
	if r.seen.refusal == Logged {
		keep, gone = r, keep
	}
	s := gone.seen
	s.packet = keep.seen.packet
	if gone.told > 0 || s.refusal == Logged || !fs.confirm(&s) {
		return false
	}
	fs.remove(gone)
	return gone == r
}

// acrossNAT is the tuple that a packet of the entry's has on the other side of
// its translation.
func acrossNAT(f *conntrack.Flow, t conntrack.Tuple) conntrack.Tuple {
	switch t {
	case f.Original:
		return f.Reply.Invert()
	case f.Reply.Invert():
		return f.Original
	case f.Reply:
		return f.Original.Invert()
	case f.Original.Invert():
		return f.Reply
	}
	return t
}
