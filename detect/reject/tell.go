package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// untilDue is how long until there is something to tell.
func (fs *flows) untilDue(now time.Time) time.Duration {
	d := time.Hour
	if fs.ready.Len() > 0 {
		return 0
	}
	if el := fs.waiting.Front(); el != nil {
		d = min(d, el.Value.(*refused).due.Sub(now))
	}
	if el := fs.later.Front(); el != nil {
		d = min(d, el.Value.(*refused).next.Sub(now))
	}
	return max(d, 0)
}

// due returns up to n verdicts that are to be told now: on flows that have
// waited long enough, if they are new, differ from what was told, or were told
// a Config.Repeat ago and have been refused since.
func (fs *flows) due(now time.Time, n int) []Verdict {
	for el := fs.waiting.Front(); el != nil && !now.Before(el.Value.(*refused).due); el = fs.waiting.Front() {
		fs.enqueue(el.Value.(*refused), &fs.ready)
	}
	for el := fs.later.Front(); el != nil && !now.Before(el.Value.(*refused).next); el = fs.later.Front() {
		fs.repeatNow(el.Value.(*refused), now)
	}
	fs.forget(now)
	var out []Verdict
	for fs.ready.Len() > 0 && len(out) < n {
		if v, news := fs.tell(fs.ready.Front().Value.(*refused), now); news {
			out = append(out, v)
		}
	}
	return out
}

// repeatNow has the count of a flow told again, if it grew. One that goes on is
// looked up again, one that has ended keeps what was found while it lasted.
func (fs *flows) repeatNow(r *refused, now time.Time) {
	fs.later.Remove(r.inLater)
	r.inLater = nil
	switch {
	case r.queue != nil || r.count == r.told:
	case now.Sub(r.last) < goingOn:
		r.due = time.Time{}
		fs.enqueue(r, &fs.fresh)
	default:
		fs.enqueue(r, &fs.ready)
	}
}

// tell explains a flow. It reports whether that is news.
func (fs *flows) tell(r *refused, now time.Time) (v Verdict, news bool) {
	fs.enqueue(r, nil)
	r.due = time.Time{}
	if r.disproved() {
		fs.remove(r)
		return v, false
	}
	v = r.verdict()
	again := r.count != r.told && now.Sub(r.toldAt) >= fs.repeat
	if r.told > 0 && !again && v.Cause == r.cause && v.Confidence == r.confidence {
		return v, false
	}
	r.told, r.toldAt, r.cause, r.confidence = r.count, now, v.Cause, v.Confidence
	if r.inLater != nil {
		fs.later.Remove(r.inLater)
	}
	r.next = now.Add(fs.repeat)
	r.inLater = fs.later.PushBack(r)
	return v, true
}

// disproved reports a RST that answered no refused packet: the kernel itself
// resets what no socket takes, which leaves the entry, or its end. While a
// socket has the connection, the kernel has no reason to.
func (r *refused) disproved() bool {
	e := r.evidence()
	live := e.socketIn(sockdiag.Established) && e.Socket.Value.HasOwner()
	return r.seen.doubtful && r.crowd == nil && !live && (r.found.entry.result == Present || r.found.ended != nil)
}

// forget drops the flows that were refused longest ago.
func (fs *flows) forget(now time.Time) {
	for el := fs.order.Back(); el != nil; el = fs.order.Back() {
		if r := el.Value.(*refused); now.Sub(r.last) < forgetAfter*fs.repeat || !fs.evict() {
			return
		}
	}
}

// tellAll makes all flows ready of which there is more to tell.
func (fs *flows) tellAll() {
	for el := fs.order.Back(); el != nil; el = el.Prev() {
		if r := el.Value.(*refused); r.count != r.told {
			r.toldAt = time.Time{}
			fs.enqueue(r, &fs.ready)
		}
	}
}

// verdict explains what is known of the flow.
func (r *refused) verdict() Verdict {
	v := Explain(r.evidence())
	v.Count, v.First, v.Last = int(r.count), r.first, r.last
	if r.found.hurried {
		v.missing("the tables, which were not looked at: too many flows began at once (Config.Lookups)", "conntrack -L")
	}
	if r.crowd != nil {
		v.Flow, v.Ports = conntrack.Tuple{}, r.crowd.distinct
		who := "all sources together"
		if !r.crowd.all {
			v.Flow.Src = sourceOf(r.seen.packet.Src).Addr()
			who = sourceOf(r.seen.packet.Src).String()
		}
		v.Summary = fmt.Sprintf("%s: more flows than are told apart, to %d ports; one of them: %s", who, v.Ports, v.Summary)
	}
	return v
}
