package detect

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func hashNumber(s *seed, k uint32) uint32 { return uint32(s.hash(uint64(k), 0, 0)) }

// hashes are good and bad ones: a table is right with any.
func hashes() map[string]func(uint32) uint32 {
	s := newSeed()
	return map[string]func(uint32) uint32{
		"seeded":       func(k uint32) uint32 { return hashNumber(&s, k) },
		"in a row":     func(k uint32) uint32 { return k },
		"at the end":   func(uint32) uint32 { return 1<<32 - 1 },
		"few":          func(k uint32) uint32 { return k % 5 },
		"low bits few": func(k uint32) uint32 { return k << 20 },
	}
}

// Against a map: whatever comes, and however it is hashed.
func TestTable(t *testing.T) {
	for name, hash := range hashes() {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			var all table[uint32, uint64]
			for range 2 { // the second time after it was cleared
				counts, order := make(map[uint32]uint64), []uint32(nil)
				for i := range 3000 {
					k := r.Uint32N(1500)
					if counts[k] == 0 {
						order = append(order, k)
					}
					counts[k]++
					*all.at(hash(k), k)++
					if i%500 == 0 {
						checkTable(t, &all, hash, counts, order)
					}
				}
				checkTable(t, &all, hash, counts, order)
				all.clear()
				checkTable(t, &all, hash, nil, nil)
			}
		})
	}
}

func checkTable(t *testing.T, all *table[uint32, uint64], hash func(uint32) uint32, counts map[uint32]uint64, order []uint32) {
	t.Helper()
	var keys []uint32
	for k, n := range all.all() {
		keys = append(keys, k)
		if *n != counts[k] {
			t.Fatalf("%d came %d times, want %d", k, *n, counts[k])
		}
	}
	if !slices.Equal(keys, order) {
		t.Fatalf("%d keys, want %d, or in another order", len(keys), len(order))
	}
	if e := all.find(hash(1501), 1501); e != nil {
		t.Fatal("found a key that never came")
	}
	checkIndex(t, all, hash)
}

// checkIndex reports what is not found, is there twice, or leaves too little
// free.
func checkIndex[K comparable, V any](t *testing.T, all *table[K, V], hash func(K) uint32) {
	t.Helper()
	used := 0
	for _, s := range all.slots {
		if s.at > 0 {
			used++
		}
	}
	if used != int(all.n) || used != all.used || 4*used > 3*len(all.slots) {
		t.Fatalf("%d of %d slots are used, %d counted, for %d entries", used, len(all.slots), all.used, all.n)
	}
	for place := range all.n {
		e := all.entry(place)
		if all.find(hash(e.key), e.key) != e {
			t.Fatalf("%v is not found", e.key)
		}
	}
}

// What stays was let pass, has its value, and is in order.
func TestTableKeep(t *testing.T) {
	for _, n := range []uint32{0, 1, pageSize, pageSize + 1, 3000} {
		var all table[uint32, uint64]
		for k := range n {
			*all.at(k, k) = uint64(k) * 2
		}
		all.keep(func(k uint32, v uint64) bool { return v == 2*uint64(k) && k%3 == 0 })
		next := uint32(0)
		for k, v := range all.all() {
			if k != next || *v != 2*uint64(k) {
				t.Fatalf("of %d: %d has %d, want %d", n, k, *v, next)
			}
			next += 3
		}
		if next < n {
			t.Errorf("of %d: it ends before %d", n, next)
		}
	}
}

// An index against a map, with few hashes, so that all collide and shift.
func FuzzIndex(f *testing.F) {
	f.Add([]byte("some come and some go, and many collide"))
	f.Add([]byte{0xff, 0x0f, 0x1f, 0x2f, 0xff, 0x0e, 0x0f, 0x1f})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var x index
		there := make(map[uint32]uint32) // hashes by place
		for i, b := range ops {
			place := uint32(b % 64)
			if hash, ok := there[place]; ok {
				x.remove(hash, place)
				delete(there, place)
			} else {
				there[place] = uint32(b)/64*5 + uint32(i)%3
				x.insert(there[place], place)
			}
			checkPlaces(t, &x, there)
		}
	})
}

func checkPlaces(t *testing.T, x *index, there map[uint32]uint32) {
	t.Helper()
	found := make(map[uint32]uint32)
	for i, s := range x.slots {
		if s.at == 0 {
			continue
		}
		found[s.at-1] = s.hash
		for at := x.home(s.hash); at != uint32(i); at = x.next(at) {
			if x.slots[at].at == 0 {
				t.Fatalf("slot %d is free, before the place %d", at, s.at-1)
			}
		}
	}
	if !maps.Equal(found, there) || x.used != len(there) {
		t.Fatalf("%v, %d used, want %v", found, x.used, there)
	}
}

// far is how many slots a look-up passes on average, and at most.
func (x *index) far() (mean float64, most uint32) {
	total := uint64(0)
	for i, s := range x.slots {
		if s.at > 0 {
			n := (uint32(i) - x.home(s.hash)) & uint32(len(x.slots)-1)
			total, most = total+uint64(n), max(most, n)
		}
	}
	return float64(total) / float64(max(x.used, 1)), most
}

// Neither neighbours nor keys that were picked because they collide with
// another seed stand in each other's way.
func TestHostileKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	known := newSeed()
	for name, key := range map[string]func(i uint32) sourceKey{
		"IPv4 in a row":      func(i uint32) sourceKey { return numbered(12, i) },
		"IPv4 networks":      func(i uint32) sourceKey { return numbered(12, i<<16|i>>16) },
		"IPv6 networks":      func(i uint32) sourceKey { return numbered(4, i) },
		"one, on many ports": func(i uint32) sourceKey { return sourceKey{port: uint16(i), kind: uint16(i >> 16)} },
		"picked":             picked(&known),
	} {
		t.Run(name, func(t *testing.T) {
			var keys [3 << 12]sourceKey // as full as slots become
			for i := range keys {
				keys[i] = key(uint32(i))
			}
			for range 16 {
				counts := tally{seed: newSeed()}
				for _, k := range keys {
					counts.add(k)
				}
				if mean, most := counts.far(); mean > 3 || most > 2000 || int(counts.n) != len(keys) || len(counts.slots) != 1<<14 {
					t.Errorf("%d keys in %d slots stand %.1f from home on average, %d at most", counts.n, len(counts.slots), mean, most)
				}
			}
		})
	}
}

// numbered is a key with a number at an offset of its address.
func numbered(at int, i uint32) (k sourceKey) {
	k.source[10], k.source[11], k.port = 0xff, 0xff, 443
	binary.BigEndian.PutUint32(k.source[at:], i)
	return k
}

// picked returns keys that all have the same home with a seed.
func picked(known *seed) func(uint32) sourceKey {
	last := uint32(0)
	return func(uint32) sourceKey {
		for {
			last++
			if k := numbered(12, last); hashKey(known, k)&0xff == 7 {
				return k
			}
		}
	}
}

// Every bit of a key has its part in the hash, and no two seeds are alike.
func TestHash(t *testing.T) {
	a, b := newSeed(), newSeed()
	k := sourceKey{source: source{1, 2, 3}, port: 443}
	if hashKey(&a, k) == hashKey(&b, k) && hashSource(&a, k.source) == hashSource(&b, k.source) {
		t.Error("two seeds give the same")
	}
	of := func(k sourceKey) [2]uint32 { return [2]uint32{hashKey(&a, k), hashKey(&b, k)} }
	seen := map[[2]uint32]bool{of(k): true}
	for i := range 160 {
		other := k
		switch {
		case i < 128:
			other.source[i/8] ^= 1 << (i % 8)
		case i < 144:
			other.port ^= 1 << (i - 128)
		default:
			other.kind ^= 1 << (i - 144)
		}
		seen[of(other)] = true
	}
	if len(seen) != 161 {
		t.Errorf("%d hashes of 161 keys", len(seen))
	}
}

// An outlet and a service are hashed whole too.
func TestHashFields(t *testing.T) {
	a, b := newSeed(), newSeed()
	outlets := []outlet{{}, {proto: 1}, {zone: 1}, {port: 1}, {from: [16]byte{15: 1}}, {to: [16]byte{15: 1}}, {from: [16]byte{1}}, {to: [16]byte{1}}}
	seen := make(map[[2]uint32]bool)
	for _, o := range outlets {
		seen[[2]uint32{hashOutlet(&a, o), hashOutlet(&b, o)}] = true
	}
	if len(seen) != len(outlets) {
		t.Errorf("%d hashes of %d outlets", len(seen), len(outlets))
	}
}
