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
	max   int
	by    map[conntrack.Tuple]*list.Element
	order *list.List // of *refused, latest refusal first
	// waiting are those whose reason or ICMP error may still come, in the
	// order of their dueAt.
	waiting []*refused
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

func newFlows(limit int) *flows {
	return &flows{max: limit, by: make(map[conntrack.Tuple]*list.Element), order: list.New()}
}

// begin remembers a flow, or gives one that is remembered new evidence. It is
// due after wait.
func (fs *flows) begin(e Evidence, now time.Time, wait time.Duration) {
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
	if r.dueAt.IsZero() {
		r.dueAt = now.Add(wait)
		fs.waiting = append(fs.waiting, r)
	}
	if overtaken := r.evidence.Refusal == ICMPSent && e.Refusal == Logged; !overtaken || r.told {
		r.count++
	}
	r.evidence, r.last = e, now
	fs.order.MoveToFront(el)
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
	}
}

// confirm notes that this host sent an ICMP error for a refused packet. It
// reports whether the packet's flow is known.
func (fs *flows) confirm(quoted, icmp packet.Header) bool {
	r := fs.get(quoted)
	if r == nil {
		return false
	}
	r.evidence.ICMP = Found(icmp)
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
	if len(fs.waiting) == 0 {
		return time.Hour
	}
	return max(fs.waiting[0].dueAt.Sub(now), 0)
}

// due returns the verdicts that are to be yielded: on flows whose waiting is
// over, if they are new, differ from what was yielded, or were yielded at least
// repeat ago. ended tells how an entry ended: the kernel may tell of the end of
// an entry only when the packet meets it, and by another socket.
func (fs *flows) due(now time.Time, repeat time.Duration, ended func(conntrack.Tuple) (Ended, bool)) []Verdict {
	var out []Verdict
	for len(fs.waiting) > 0 && !now.Before(fs.waiting[0].dueAt) {
		r := fs.waiting[0]
		fs.waiting[0] = nil
		fs.waiting = fs.waiting[1:]
		r.dueAt = time.Time{}
		if e := &r.evidence; e.Ended.Result == NotLooked {
			e.Ended = NotFound[Ended]()
			if end, ok := ended(PacketTuple(e.Packet.Value)); ok {
				e.Ended = Found(end)
			}
		}
		v := Explain(r.evidence)
		v.Count, v.First, v.Last = r.count, r.first, r.last
		if !r.told || v.Cause != r.verdict.Cause || v.Confidence != r.verdict.Confidence ||
			v.Last.Sub(r.verdict.Last) >= repeat {
			r.verdict, r.told = v, true
			out = append(out, v)
		}
	}
	return out
}

// recent remembers the last values put, up to a limit.
type recent[K comparable, V any] struct {
	max   int
	by    map[K]V
	order []K // a ring once it is full
	next  int
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{max: limit, by: make(map[K]V)}
}

func (r *recent[K, V]) put(k K, v V) {
	if _, ok := r.by[k]; !ok {
		if len(r.order) < r.max {
			r.order = append(r.order, k)
		} else {
			delete(r.by, r.order[r.next])
			r.order[r.next] = k
			r.next = (r.next + 1) % r.max
		}
	}
	r.by[k] = v
}

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.by[k]
	return v, ok
}
