package detect

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// A tally takes what its documentation says, right before and after it grows.
func TestTallyMemory(t *testing.T) {
	if size := reflect.TypeFor[entry[uint32, sourceKey]]().Size(); size != 24 {
		t.Errorf("an entry has %d bytes", size)
	}
	for _, n := range []uint32{3 << 14, 3<<14 + 1} {
		before := heap()
		counts := tally{seed: newSeed()}
		for i := range n {
			counts.add(numbered(12, i))
		}
		got := float64(max(heap(), before)-before) / float64(n)
		t.Logf("%.1f bytes for each of %d", got, n)
		if got > 46.5 || counts.n != n {
			t.Errorf("%.1f bytes for each of %d keys, want %d keys", got, counts.n, n)
		}
	}
}

// Whoever has too much in a kind, on whatever ports, keeps all keys of it, and
// next to nobody else does.
func TestTallyCrowd(t *testing.T) {
	for _, above := range []uint64{19, 70_000} { // the second is more than a sum can be
		checkCrowd(t, above)
	}
}

func checkCrowd(t *testing.T, above uint64) {
	t.Helper()
	counts, totals, r := tally{seed: newSeed()}, make(map[sourceKey]uint64), rand.New(rand.NewPCG(7, 8))
	add := func(k sourceKey, n uint32) {
		*counts.at(hashKey(&counts.seed, k), k) += n
		totals[crowdOf(k)] += uint64(n)
	}
	for i := range uint32(20_000) {
		k := numbered(12, i)
		k.port, k.kind = uint16(r.Uint32N(3)), uint16(r.Uint32N(2))
		add(k, 1)
	}
	for i, n := range []uint32{20, 1<<16 + 5, 1<<17 - 1, 1 << 31} {
		add(numbered(4, uint32(i)), n)
	}
	for port := range uint16(20) { // one more than the first allows, each on a port of its own
		k := numbered(4, 99)
		k.port, k.kind = port, through|3
		add(k, 1)
	}
	counts.crowd(func(uint8) uint64 { return above })
	kept, small := make(map[sourceKey]uint64), 0
	for k, n := range counts.all() {
		kept[crowdOf(k)] += uint64(*n)
		if totals[crowdOf(k)] <= above {
			small++
		}
	}
	for k, n := range totals {
		if n > above && kept[k] != n {
			t.Errorf("%v has %d, of which %d are left", k, n, kept[k])
		}
	}
	if small > 200 {
		t.Errorf("%d keys are left that are none of a crowd", small)
	}
}

// crowdOf is what the connections of a key are added up with.
func crowdOf(k sourceKey) sourceKey { return sourceKey{source: k.source, kind: uint16(k.of())} }
