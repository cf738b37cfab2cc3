package detect

import (
	"cmp"
	"slices"
)

// heavy finds the keys that come most often in a stream, in fixed memory: the
// Space-Saving algorithm (Metwally, Agrawal, El Abbadi, 2005). A key that has no
// counter takes over the least one, and inherits what that had as its error.
//
// With m counters and n keys seen, a key's true count is at least count-err and
// at most count, err is at most n/m, and every key that came more often than
// n/m has a counter. Up to m distinct keys all counts are exact. Nothing depends
// on chance, so nobody can pick keys that collide.
//
// A step takes constant time: the counters stand in the order of their counts,
// and those of equal count form a run, so that a counter that grows changes its
// place with the last of its run.
type heavy[K comparable] struct {
	table[K, counter]
	most  uint32 // counters
	seed  seed
	hash  func(*seed, K) uint32
	order []uint32 // places of counters by count, the least first, from low on
	low   uint32
	runs  []run  // runs[counter.run]
	spare uint32 // 1 + a run that is empty; 0 is none
	seen  uint64 // keys
}

type counter struct {
	count, err uint32
	place      uint32 // in order
	run        uint32
}

// run is where counters of one count stand in order. The first of an empty one
// is the next spare one.
type run struct{ first, end uint32 }

func newHeavy[K comparable](m int, hash func(*seed, K) uint32) *heavy[K] {
	return &heavy[K]{
		table: newTable[K, counter](m), most: uint32(m), seed: newSeed(), hash: hash,
		order: make([]uint32, m), low: uint32(m), runs: make([]run, 0, m+1),
	}
}

// add counts a key and returns its counter, which is good until the next add.
func (h *heavy[K]) add(k K) *counter {
	h.seen++
	hash := h.hash(&h.seed, k)
	e := h.find(hash, k)
	if e == nil {
		e = h.take(hash, k)
	}
	if e.value.count < 1<<32-1 {
		h.grow(&e.value)
	}
	return &e.value
}

// room reports whether a key has a counter, or can have one that is free.
func (h *heavy[K]) room(k K) bool { return h.n < h.most || h.of(k) != nil }

// of returns the counter of a key, nil if it has none.
func (h *heavy[K]) of(k K) *counter {
	if e := h.find(h.hash(&h.seed, k), k); e != nil {
		return &e.value
	}
	return nil
}

// take gives a key a counter: a new one of count 0, or the least.
func (h *heavy[K]) take(hash uint32, k K) *entry[K, counter] {
	if h.n < h.most {
		return h.open(hash, k)
	}
	place := h.order[0]
	e := h.entry(place)
	h.remove(h.hash(&h.seed, e.key), place)
	h.insert(hash, place)
	e.key, e.value.err = k, e.value.count
	return e
}

// open makes a counter. Its count is 0 until it grows in the same step, so it
// is the least.
func (h *heavy[K]) open(hash uint32, k K) *entry[K, counter] {
	h.low--
	h.order[h.low] = h.n
	e := h.table.add(hash, k)
	e.value = counter{place: h.low, run: h.newRun(h.low, h.low+1)}
	return e
}

// grow adds one to a counter.
func (h *heavy[K]) grow(c *counter) {
	old := c.run
	last := h.runs[old].end - 1
	h.swap(c.place, last)
	h.runs[old].end--
	c.count++
	c.run = h.runAfter(last, c.count)
	if h.runs[old].first == h.runs[old].end {
		h.runs[old].first, h.spare = h.spare, old+1
	}
}

// runAfter returns the run of a count for what stands before its others.
func (h *heavy[K]) runAfter(last, count uint32) uint32 {
	if next := last + 1; next < h.most {
		if c := h.counter(next); c.count == count {
			h.runs[c.run].first--
			return c.run
		}
	}
	return h.newRun(last, last+1)
}

// counter is the one that stands at a place in order.
func (h *heavy[K]) counter(at uint32) *counter { return &h.entry(h.order[at]).value }

func (h *heavy[K]) newRun(first, end uint32) uint32 {
	if h.spare > 0 {
		r := h.spare - 1
		h.spare, h.runs[r] = h.runs[r].first, run{first, end}
		return r
	}
	h.runs = append(h.runs, run{first, end})
	return uint32(len(h.runs) - 1)
}

// swap exchanges what stands at two places.
func (h *heavy[K]) swap(a, b uint32) {
	if a == b {
		return
	}
	h.counter(a).place, h.counter(b).place = b, a
	h.order[a], h.order[b] = h.order[b], h.order[a]
}

// least is how often a key came at least.
func (h *heavy[K]) least(k K) uint64 {
	if c := h.of(k); c != nil {
		return c.least()
	}
	return 0
}

func (c *counter) least() uint64 { return uint64(c.count - c.err) }

// counted is a key and how often it came at least.
type counted[K any] struct {
	key K
	n   uint64
}

// top returns the n keys that came most often, equal ones in the order of
// compare.
func (h *heavy[K]) top(n int, compare func(a, b K) int) []counted[K] {
	all := make([]counted[K], 0, h.n)
	for k, c := range h.all() {
		all = append(all, counted[K]{k, c.least()})
	}
	slices.SortFunc(all, func(a, b counted[K]) int {
		return cmp.Or(cmp.Compare(b.n, a.n), compare(a.key, b.key))
	})
	return all[:min(n, len(all))]
}

// reset forgets everything, and keeps the memory.
func (h *heavy[K]) reset() {
	h.clear()
	h.runs, h.spare = h.runs[:0], 0
	h.low, h.seen = h.most, 0
}
