package detect

import (
	"cmp"
	"hash/maphash"
	"math/bits"
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
	seed     maphash.Seed
	slots    []int32 // by hash: 1 + the index into counters; 0 is empty
	counters []counter[K]
	order    []int32 // counters by count, the least first, from low on
	low      int32
	runs     []run   // runs[counter.run]
	free     []int32 // of runs
	n        uint64  // keys seen
}

type counter[K comparable] struct {
	key        K
	count, err uint32
	place      int32 // in order
	run        int32
	home       int32 // the slot by its hash
}

// run is where counters of one count stand in order.
type run struct{ first, end int32 }

func newHeavy[K comparable](m int) *heavy[K] {
	return &heavy[K]{
		seed: maphash.MakeSeed(), slots: make([]int32, 1<<bits.Len(uint(2*m-1))), counters: make([]counter[K], 0, m),
		order: make([]int32, m), low: int32(m), runs: make([]run, 0, m+1), free: make([]int32, 0, m+1),
	}
}

// add counts a key and returns its counter, which is good until the next add.
func (h *heavy[K]) add(k K) *counter[K] {
	h.n++
	home := h.home(k)
	i := h.from(home, k)
	if i < 0 {
		i = h.take(k, home)
	}
	c := &h.counters[i]
	if c.count < 1<<32-1 {
		h.grow(c)
	}
	return c
}

// room reports whether a key has a counter, or can have one that is free.
func (h *heavy[K]) room(k K) bool { return len(h.counters) < cap(h.counters) || h.find(k) >= 0 }

// take gives a key a counter: a new one of count 0, or the least.
func (h *heavy[K]) take(k K, home int32) int32 {
	if len(h.counters) < cap(h.counters) {
		return h.open(k, home)
	}
	i := h.order[0]
	c := &h.counters[i]
	h.remove(i)
	c.key, c.err, c.home = k, c.count, home
	h.insert(i)
	return i
}

// open makes a counter. Its count is 0 until it grows in the same step, so it
// is the least.
func (h *heavy[K]) open(k K, home int32) int32 {
	i := int32(len(h.counters))
	h.low--
	h.counters = append(h.counters, counter[K]{key: k, place: h.low, run: h.newRun(h.low, h.low+1), home: home})
	h.order[h.low] = i
	h.insert(i)
	return i
}

// grow adds one to a counter.
func (h *heavy[K]) grow(c *counter[K]) {
	old := c.run
	last := h.runs[old].end - 1
	h.swap(c.place, last)
	h.runs[old].end--
	c.count++
	if next := last + 1; next < int32(len(h.order)) && h.counters[h.order[next]].count == c.count {
		c.run = h.counters[h.order[next]].run
		h.runs[c.run].first--
	} else {
		c.run = h.newRun(last, last+1)
	}
	if h.runs[old].first == h.runs[old].end {
		h.free = append(h.free, old)
	}
}

func (h *heavy[K]) newRun(first, end int32) int32 {
	if n := len(h.free); n > 0 {
		r := h.free[n-1]
		h.free = h.free[:n-1]
		h.runs[r] = run{first, end}
		return r
	}
	h.runs = append(h.runs, run{first, end})
	return int32(len(h.runs) - 1)
}

// swap exchanges what stands at two places.
func (h *heavy[K]) swap(a, b int32) {
	x, y := h.order[a], h.order[b]
	h.order[a], h.order[b] = y, x
	h.counters[x].place, h.counters[y].place = b, a
}

// least is how often a key came at least.
func (h *heavy[K]) least(k K) uint64 {
	if i := h.find(k); i >= 0 {
		return h.counters[i].least()
	}
	return 0
}

func (c *counter[K]) least() uint64 { return uint64(c.count - c.err) }

// counted is a key and how often it came at least.
type counted[K any] struct {
	key K
	n   uint64
}

// top returns the n keys that came most often, equal ones in the order of
// compare.
func (h *heavy[K]) top(n int, compare func(a, b K) int) []counted[K] {
	all := make([]counted[K], 0, len(h.counters))
	for i := range h.counters {
		all = append(all, counted[K]{h.counters[i].key, h.counters[i].least()})
	}
	slices.SortFunc(all, func(a, b counted[K]) int {
		return cmp.Or(cmp.Compare(b.n, a.n), compare(a.key, b.key))
	})
	return all[:min(n, len(all))]
}

// The slots are a hash table of its own, because a map grows anew when keys come
// and go. It is at most half full; a key is in the first free slot from its
// home on.

func (h *heavy[K]) home(k K) int32 {
	return int32(maphash.Comparable(h.seed, k) & uint64(len(h.slots)-1))
}

func (h *heavy[K]) next(slot int32) int32 { return (slot + 1) & int32(len(h.slots)-1) }

// find returns the index of a key's counter, -1 if there is none.
func (h *heavy[K]) find(k K) int32 {
	if len(h.counters) == 0 {
		return -1
	}
	return h.from(h.home(k), k)
}

func (h *heavy[K]) from(home int32, k K) int32 {
	for at := home; h.slots[at] > 0; at = h.next(at) {
		if i := h.slots[at] - 1; h.counters[i].key == k {
			return i
		}
	}
	return -1
}

func (h *heavy[K]) insert(i int32) {
	at := h.counters[i].home
	for h.slots[at] > 0 {
		at = h.next(at)
	}
	h.slots[at] = i + 1
}

// remove empties the slot of a counter, and moves those after it that would not
// be found any more.
func (h *heavy[K]) remove(i int32) {
	at := h.counters[i].home
	for h.slots[at] != i+1 {
		at = h.next(at)
	}
	for from := h.next(at); h.slots[from] > 0; from = h.next(from) {
		home, mask := h.counters[h.slots[from]-1].home, int32(len(h.slots)-1)
		if (from-home)&mask >= (from-at)&mask {
			h.slots[at], at = h.slots[from], from
		}
	}
	h.slots[at] = 0
}

// reset forgets everything, and keeps the memory.
func (h *heavy[K]) reset() {
	clear(h.slots)
	h.counters, h.runs, h.free = h.counters[:0], h.runs[:0], h.free[:0]
	h.low, h.n = int32(len(h.order)), 0
}
