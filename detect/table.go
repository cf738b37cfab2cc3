package detect

import "iter"

// index finds the places of things by their hashes: each stands in the first
// free slot from its home on, of which a quarter at least is free. Slots are
// small, so that growing and looking past the wrong ones is cheap; what they
// point to never moves.
type index struct {
	slots []slot // a power of two
	used  int
}

type slot struct {
	hash uint32
	at   uint32 // 1 + the place; 0 is empty
}

// resize has at least so many slots.
func (x *index) resize(slots int) {
	old, size := x.slots, 16
	for size < slots {
		size *= 2
	}
	x.slots = make([]slot, size)
	for _, s := range old {
		if s.at > 0 {
			x.slots[x.free(s.hash)] = s
		}
	}
}

func (x *index) next(i uint32) uint32    { return (i + 1) & uint32(len(x.slots)-1) }
func (x *index) home(hash uint32) uint32 { return hash & uint32(len(x.slots)-1) }

// free is the slot for something new.
func (x *index) free(hash uint32) uint32 {
	i := x.home(hash)
	for x.slots[i].at > 0 {
		i = x.next(i)
	}
	return i
}

func (x *index) insert(hash, place uint32) {
	if 4*x.used >= 3*len(x.slots) {
		x.resize(2 * len(x.slots))
	}
	x.used++
	x.slots[x.free(hash)] = slot{hash, place + 1}
}

// remove empties the slot of a thing that is there, and moves those after it
// that would not be found any more.
func (x *index) remove(hash, place uint32) {
	i := x.home(hash)
	for x.slots[i].at != place+1 {
		i = x.next(i)
	}
	for from := x.next(i); x.slots[from].at > 0; from = x.next(from) {
		home, mask := x.home(x.slots[from].hash), uint32(len(x.slots)-1)
		if (from-home)&mask >= (from-i)&mask {
			x.slots[i], i = x.slots[from], from
		}
	}
	x.slots[i] = slot{}
	x.used--
}

// table has a value for each key, in 11 to 22 bytes more than the two take, and
// a page. The caller hashes, by a seed that nobody else knows: whoever picks
// the keys must not be able to pick their slots.
type table[K comparable, V any] struct {
	index
	pages []*[pageSize]entry[K, V] // a slice that grows is copied
	n     uint32                   // entries
}

const pageSize = 256

type entry[K comparable, V any] struct {
	value V // first: at the end one without a size would have some
	key   K
}

// newTable takes the memory for n keys at once, with twice as many slots.
func newTable[K comparable, V any](n int) (t table[K, V]) {
	t.resize(2 * n)
	for len(t.pages)*pageSize < n {
		t.pages = append(t.pages, new([pageSize]entry[K, V]))
	}
	return t
}

func (t *table[K, V]) entry(place uint32) *entry[K, V] {
	return &t.pages[place/pageSize][place%pageSize]
}

// find returns the entry of a key, nil if there is none.
func (t *table[K, V]) find(hash uint32, k K) *entry[K, V] {
	if t.n == 0 {
		return nil
	}
	for i := t.home(hash); ; i = t.next(i) {
		s := t.slots[i]
		if s.at == 0 {
			return nil
		}
		if s.hash == hash {
			if e := t.entry(s.at - 1); e.key == k {
				return e
			}
		}
	}
}

// at returns the value of a key, zero if it is new.
func (t *table[K, V]) at(hash uint32, k K) *V {
	e := t.find(hash, k)
	if e == nil {
		e = t.add(hash, k)
	}
	return &e.value
}

// add makes an entry for a key that has none.
func (t *table[K, V]) add(hash uint32, k K) *entry[K, V] {
	if int(t.n) == len(t.pages)*pageSize {
		t.pages = append(t.pages, new([pageSize]entry[K, V]))
	}
	t.insert(hash, t.n)
	e := t.entry(t.n)
	*e = entry[K, V]{key: k}
	t.n++
	return e
}

// all returns keys and values, in the order in which they came.
func (t *table[K, V]) all() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		for place := range t.n {
			if e := t.entry(place); !yield(e.key, &e.value) {
				return
			}
		}
	}
}

// clear forgets everything, and keeps the memory.
func (t *table[K, V]) clear() {
	clear(t.slots)
	t.used, t.n = 0, 0
}

// keep lets go of all that do not pass, and takes no memory for it. The table
// can only be told by all from then on.
func (t *table[K, V]) keep(pass func(K, V) bool) {
	kept := uint32(0)
	for place := range t.n {
		if e := t.entry(place); pass(e.key, e.value) {
			*t.entry(kept) = *e
			kept++
		}
	}
	t.n, t.index = kept, index{}
}
