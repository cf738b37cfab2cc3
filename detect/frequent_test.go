package detect

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// Against exact counts: never too high, never lower than by missed, and missed
// within its bound.
func TestFrequent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{1, 7, 64, 1000} {
		f, exact := newFrequent[int](most), map[int]uint64{}
		const all = 20_000
		for range all {
			k := int(r.ExpFloat64() * 40)
			f.add(k)
			exact[k]++
		}
		if f.missed > all/uint64(most+1) || len(f.counts) > most {
			t.Errorf("%d keys: missed %d, has %d", most, f.missed, len(f.counts))
		}
		for k, n := range exact {
			if got := f.counts[k]; got > n || got+f.missed < n {
				t.Errorf("%d keys: %d came %d times, counted %d, missed %d", most, k, n, got, f.missed)
			}
		}
		if most == 1000 && !maps.Equal(f.counts, exact) {
			t.Error("not exact with room for all")
		}
	}
}

func TestFrequentTop(t *testing.T) {
	f := newFrequent[int](10)
	for _, k := range []int{5, 3, 3, 9, 9, 1} {
		f.add(k)
	}
	if got, want := f.top(3, cmp.Compare[int]), []counted[int]{{3, 2}, {9, 2}, {1, 1}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := f.top(9, cmp.Compare[int]); len(got) != 4 {
		t.Errorf("got %v", got)
	}
}
