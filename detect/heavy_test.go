package detect

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// streams are inputs to count: skewed, flat, and shapes that make counters
// change hands.
func streams(n int) map[string][]uint32 {
	r := rand.New(rand.NewPCG(3, 4))
	zipf := rand.NewZipf(r, 1.2, 1, 1<<20)
	all := map[string][]uint32{"skewed": nil, "flat": nil, "distinct": nil, "in turn": nil, "few": nil, "a heavy one among distinct": nil}
	for i := range uint32(n) {
		all["skewed"] = append(all["skewed"], uint32(zipf.Uint64()))
		all["flat"] = append(all["flat"], r.Uint32N(50_000))
		all["distinct"] = append(all["distinct"], i)
		all["in turn"] = append(all["in turn"], i%1025)
		all["few"] = append(all["few"], r.Uint32N(1000))
		heavy := i
		if i%100 == 0 {
			heavy = 1 << 31
		}
		all["a heavy one among distinct"] = append(all["a heavy one among distinct"], heavy)
	}
	return all
}

// Against exact counts: none is overstated, and none above n/m is missed.
func TestHeavy(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	const m = 1024
	for name, stream := range streams(60_000) {
		t.Run(name, func(t *testing.T) {
			h, exact := newHeavy(m, hashNumber), make(map[uint32]uint64)
			for range 2 { // the second time after a reset
				h.reset()
				clear(exact)
				for i, k := range stream {
					exact[k]++
					if c := h.add(k); c != h.of(k) {
						t.Fatalf("the counter of %d is not that returned", k)
					}
					if i%10_007 == 0 {
						checkHeavy(t, h, exact, m)
					}
				}
				checkHeavy(t, h, exact, m)
			}
		})
	}
}

func checkHeavy(t *testing.T, h *heavy[uint32], exact map[uint32]uint64, m uint64) {
	t.Helper()
	total := uint64(0)
	for k, c := range h.all() {
		total += uint64(c.count)
		if h.of(k) != c || h.counter(c.place) != c {
			t.Fatalf("the counter of %d is not found", k)
		}
		if e := exact[k]; c.least() > e || uint64(c.count) < e || uint64(c.err) > h.seen/m || len(exact) <= int(m) && c.least() != e {
			t.Fatalf("counter of %d: %d - %d, came %d times of %d", k, c.count, c.err, e, h.seen)
		}
	}
	if total != h.seen {
		t.Fatalf("the counters have %d of %d", total, h.seen)
	}
	for k, e := range exact {
		if h.of(k) == nil && e > h.seen/m {
			t.Fatalf("%d, which came %d times of %d, has no counter", k, e, h.seen)
		}
	}
	sorted := slices.IsSortedFunc(h.order[h.low:], func(a, b uint32) int {
		return cmp.Compare(h.entry(a).value.count, h.entry(b).value.count)
	})
	if !sorted || uint64(h.n) > m {
		t.Fatalf("out of order, or %d counters", h.n)
	}
	checkIndex(t, &h.table, hashOf(h))
}

// hashOf is how the keys of h are hashed.
func hashOf[K comparable](h *heavy[K]) func(K) uint32 {
	return func(k K) uint32 { return h.hash(&h.seed, k) }
}

func TestHeavyTop(t *testing.T) {
	h := newHeavy(10, func(s *seed, k int) uint32 { return uint32(s.hash(uint64(k), 0, 0)) })
	for _, k := range []int{5, 3, 3, 9, 9, 1} {
		h.add(k)
	}
	if got, want := h.top(3, cmp.Compare[int]), []counted[int]{{3, 2}, {9, 2}, {1, 1}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := h.top(9, cmp.Compare[int]); len(got) != 4 {
		t.Errorf("got %v", got)
	}
}

// Memory is what it was at the start, whatever comes.
func TestHeavyAllocs(t *testing.T) {
	h, k := newHeavy(1024, hashNumber), uint32(0)
	n := testing.AllocsPerRun(1, func() {
		for range 100_000 {
			k++
			h.add(k)
			h.add(k % 7)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHeavy(b *testing.B) {
	for name, stream := range streams(1 << 17) {
		b.Run(name, func(b *testing.B) {
			h, i := newHeavy(8192, hashNumber), 0
			b.ReportAllocs()
			for b.Loop() {
				h.add(stream[i%len(stream)])
				i++
			}
		})
	}
}
