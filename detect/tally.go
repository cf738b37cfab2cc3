package detect

import (
	"math"
	"math/bits"
)

// tally counts exactly. It grows by some 35 to 46 bytes for each key, and by
// nothing else.
type tally struct {
	seed seed
	table[sourceKey, uint32]
}

// add counts a connection, and returns how many its key has.
func (t *tally) add(k sourceKey) uint32 {
	n := t.at(hashKey(&t.seed, k), k)
	*n++
	return *n
}

// crowd keeps the keys of sources that can have more than a number in a kind,
// and few others: sources are added up by a hash, in fixed room, and so some
// stay that share it with others.
func (t *tally) crowd(above func(kind uint8) uint64) {
	sums := make([]uint16, 1<<min(bits.Len32(t.n), 18))
	sum := func(k sourceKey) *uint16 {
		return &sums[t.seed.address(k.source, uint64(k.of()))&uint64(len(sums)-1)]
	}
	for k, n := range t.all() {
		s := sum(k)
		*s = uint16(min(uint64(*s)+uint64(*n), math.MaxUint16))
	}
	t.keep(func(k sourceKey, _ uint32) bool {
		n := *sum(k)
		return n == math.MaxUint16 || uint64(n) > above(k.of())
	})
}
