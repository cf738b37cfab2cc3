package detect

import (
	"hash/maphash"
	"math/bits"
)

// tally counts exactly. It grows by some 25 to 60 bytes for each key, and by
// nothing else.
type tally map[sourceKey]uint32

// crowded are the keys of sources that can have more than a number in a kind,
// and few others: sources are added up by a hash, in fixed room, and so some
// pass that share it with others.
func (t tally) crowded(above func(kind uint8) uint64) tally {
	seed, sums := maphash.MakeSeed(), make([]uint64, 1<<min(bits.Len(uint(len(t))), 18))
	sum := func(k sourceKey) *uint64 {
		k.port, k.kind = 0, uint16(k.of())
		return &sums[maphash.Comparable(seed, k)&uint64(len(sums)-1)]
	}
	for k, n := range t {
		*sum(k) += uint64(n)
	}
	few := make(tally)
	for k, n := range t {
		if *sum(k) > above(k.of()) {
			few[k] = n
		}
	}
	return few
}
