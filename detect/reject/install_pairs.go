package reject

import (
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// pairs finds the packets that came before the rules of a hook and not after
// them. Both are told by one group, in the order in which they were logged, so
// that what is missing after wait was refused in between, unless messages were
// lost. Time is an argument throughout.
type pairs struct {
	wait time.Duration
	max  int

	queue []passing // from head on, in the order in which they came
	head  int
	first uint64 // number of queue[head]; numbers begin at 1
	by    map[pairKey]pairSlot

	unsureTill time.Time // what is missing until then may be lost
	forgotten  uint64    // packets beyond max
}

// passing is a packet that came before the rules.
type passing struct {
	header packet.Header
	hook   nflog.Hook
	state  State
	owner  Lookup[uint32]

	at    time.Time
	older uint64 // number of the one of the same key that waited before it
	done  bool   // it passed, or was told
}

// pairKey tells packets that cannot be on their way at once: the kernel takes
// those of one connection one after the other.
type pairKey struct {
	flow flowKey
	hook nflog.Hook
}

func (e *passing) key() pairKey { return pairKey{keyOf(&e.header), e.hook} }

// pairSlot is what is known of the packets in the queue that have one key.
type pairSlot struct {
	newest uint64 // number of the latest that waits; before pairs.first is none
	held   int    // packets in the queue
	passed bool   // one of them passed
}

func newPairs(wait time.Duration, most int) *pairs {
	return &pairs{wait: wait, max: most, first: 1, by: make(map[pairKey]pairSlot)}
}

// before takes a packet that has come.
func (p *pairs) before(e passing) {
	if p.len() >= p.max {
		if old, waited := p.pop(); waited && old.at.After(p.unsureTill) {
			p.forgotten++
		}
	}
	key := e.key()
	slot := p.by[key]
	e.older, e.done = slot.newest, false
	slot.newest = p.first + uint64(p.len())
	slot.held++
	p.by[key] = slot
	if len(p.queue) == cap(p.queue) && p.head > len(p.queue)/2 { // room enough at the front
		p.queue, p.head = p.queue[:copy(p.queue, p.queue[p.head:])], 0
	}
	p.queue = append(p.queue, e)
}

func (p *pairs) len() int { return len(p.queue) - p.head }

// after takes a packet that has passed.
func (p *pairs) after(h *packet.Header, hook nflog.Hook) {
	key := pairKey{keyOf(h), hook}
	if _, ok := p.take(key); ok {
		slot := p.by[key]
		slot.passed = true
		p.by[key] = slot
	}
}

// answered returns the latest packet of the tuple that waits, at any of the
// hooks, and does not wait for it any longer: something has told that it was
// refused.
func (p *pairs) answered(t conntrack.Tuple) (passing, bool) {
	for _, hook := range pairedHooks {
		if e, ok := p.take(pairKey{keyOfTuple(&t), hook}); ok {
			return e, true
		}
	}
	return passing{}, false
}

// passed reports that a packet of the tuple has lately passed the rules of a
// hook.
func (p *pairs) passed(t conntrack.Tuple, hook nflog.Hook) bool {
	return p.by[pairKey{keyOfTuple(&t), hook}].passed
}

var pairedHooks = [...]nflog.Hook{nflog.Input, nflog.Forward, nflog.Output}

func (p *pairs) take(key pairKey) (passing, bool) {
	slot := p.by[key]
	if slot.newest < p.first {
		return passing{}, false
	}
	e := &p.queue[uint64(p.head)+slot.newest-p.first]
	e.done = true
	slot.newest = e.older
	p.by[key] = slot
	return *e, true
}

// pop takes the first of the queue out, and reports whether it still waited.
func (p *pairs) pop() (passing, bool) {
	e := p.queue[p.head]
	p.head, p.first = p.head+1, p.first+1
	key := e.key()
	if slot := p.by[key]; slot.held <= 1 {
		delete(p.by, key)
	} else {
		slot.held--
		p.by[key] = slot
	}
	return e, !e.done
}

// due returns the next packet that did not pass within the time.
func (p *pairs) due(now time.Time) (passing, bool) {
	for p.len() > 0 && now.Sub(p.queue[p.head].at) >= p.wait {
		if e, waited := p.pop(); waited && e.at.After(p.unsureTill) {
			return e, true
		}
	}
	return passing{}, false
}

// untilDue is how long until due should be asked, which is not for each packet.
func (p *pairs) untilDue(now time.Time) time.Duration {
	if p.len() == 0 {
		return time.Hour
	}
	return max(p.queue[p.head].at.Add(p.wait).Sub(now), p.wait/8)
}

// lost tells that messages are missing before the next one: of the packets that
// wait nobody knows whether they passed. An overrun is told before what the
// socket still holds, so that the gap is yet to come.
func (p *pairs) lost(l *nflog.Lost, now time.Time) {
	p.first += uint64(p.len())
	p.queue, p.head = p.queue[:0], 0
	clear(p.by)
	p.unsureTill = time.Time{}
	if l.Overrun {
		p.unsureTill = now.Add(4 * p.wait)
	}
}
