package conntrack

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// world is a kernel's table with its two ways out: a queue of events, of which
// some are lost, and a dump that looks at one entry after the other.
type world struct {
	*rand.Rand
	entries map[int]Flow // by number
	queue   []Event
	losing  bool
	lost    bool
	ids     uint32
}

func (w *world) flow(n int) Flow {
	f := Flow{Original: tuple(ProtoTCP, "10.0.0.1:1000", "10.0.0.2:443"), Fields: FieldStatus | FieldTCP | FieldID | FieldMark | FieldTimeout}
	f.Original.SrcPort += uint16(n)
	f.Reply = f.Original.Invert()
	return f
}

// step does something to an entry, and sends its event.
func (w *world) step() {
	n := w.IntN(6)
	f, there := w.entries[n]
	typ := EventUpdate
	switch {
	case !there:
		typ, f = EventNew, w.flow(n)
		w.ids += uint32(w.IntN(2)) // an ID may come again
		f.ID = 1 + w.ids%3
		f.TCP.State = TCPSynSent
	case w.IntN(3) == 0:
		typ = EventDestroy
	case w.IntN(2) == 0:
		f.Mark = uint32(w.IntN(3))
	default:
		f.TCP.State = TCPState(1 + w.IntN(8))
	}
	if w.entries[n] = f; typ == EventDestroy {
		delete(w.entries, n)
	}
	if w.losing {
		w.lost = true
		return
	}
	w.queue = append(w.queue, Event{Type: typ, Flow: f})
}

// deliver hands an event over, or the report of a loss that is over.
func (w *world) deliver(m *Mirror) bool {
	if len(w.queue) > 0 {
		e := w.queue[0]
		if e.Flow.Mark == 0 {
			e.Flow.Fields &^= FieldMark
		}
		m.event(&e)
		w.queue = w.queue[1:]
		return true
	}
	if w.losing { // the queue is empty: the kernel sends again
		w.losing = false
		if w.lost {
			w.lost = false
			m.overrun(ErrOverrun)
		}
		return true
	}
	return false
}

// dump merges a dump while the world goes on: the kernel looks at entries, and
// the mirror gets to see them later.
func (w *world) dump(m *Mirror, chaos func()) {
	m.beginDump()
	var looked []Flow
	for n := range 6 {
		chaos()
		if f, there := w.entries[n]; there {
			looked = append(looked, f)
		}
		for len(looked) > 0 && w.IntN(3) > 0 {
			chaos()
			m.merge(&looked[0])
			looked = looked[1:]
		}
	}
	for i := range looked {
		chaos()
		m.merge(&looked[i])
	}
	m.endDump(time.Now())
}

// TestMirrorConverges runs small worlds in which everything happens at the
// wrong moment. Once nothing happens any more, and a last dump is made only if
// a loss asks for it, the mirror must show the world.
func TestMirrorConverges(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	for seed := range uint64(3000) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), entries: make(map[int]Flow)}
		m := NewMirror(nil, nil)
		chaos := func() {
			for range w.IntN(4) {
				w.step()
			}
			if w.IntN(20) == 0 {
				w.losing = true
			}
			for range w.IntN(5) {
				w.deliver(m)
			}
		}
		for range 5 {
			w.step()
		}
		w.queue = nil // nobody listened
		for dumps := 0; dumps == 0 || m.stale; dumps++ {
			if dumps > 4 {
				chaos = func() { w.deliver(m) }
			}
			w.dump(m, chaos)
			for w.deliver(m) {
			}
		}
		want := make(map[Flow]int)
		for _, f := range w.entries {
			want[shown(f)]++
		}
		if got := shownBy(m); !maps.Equal(got, want) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, got, want)
		}
		checkCounts(t, m)
	}
}
