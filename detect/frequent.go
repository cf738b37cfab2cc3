package detect

import (
	"cmp"
	"maps"
	"slices"
)

// frequent counts how often keys come, in room for so many keys: the algorithm
// of Misra and Gries. It is exact until they are all different ones. From then
// on a key that came n times of N in all is counted as n - missed at least,
// where missed is at most N/(most+1), and never as more than n.
type frequent[K comparable] struct {
	most   int
	counts map[K]uint64
	missed uint64
}

func newFrequent[K comparable](most int) frequent[K] {
	return frequent[K]{most: most, counts: make(map[K]uint64)}
}

func (f *frequent[K]) add(k K) {
	n, known := f.counts[k]
	if known || len(f.counts) < f.most {
		f.counts[k] = n + 1
		return
	}
	f.missed++
	for k, n := range f.counts {
		if n == 1 {
			delete(f.counts, k)
		} else {
			f.counts[k] = n - 1
		}
	}
}

// counted is a key and how often it came.
type counted[K any] struct {
	key K
	n   uint64
}

// top returns the n most frequent keys, equal ones in the order of compare.
func (f *frequent[K]) top(n int, compare func(a, b K) int) []counted[K] {
	all := make([]counted[K], 0, len(f.counts))
	for k, n := range maps.All(f.counts) {
		all = append(all, counted[K]{k, n})
	}
	slices.SortFunc(all, func(a, b counted[K]) int {
		return cmp.Or(cmp.Compare(b.n, a.n), compare(a.key, b.key))
	})
	return all[:min(n, len(all))]
}
