package detect

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// seed makes hashes that nobody can foretell who does not have it. It is for
// keys of a fixed size, of which it takes less time than hash/maphash.
type seed [4]uint64

func newSeed() (s seed) {
	for i := range s {
		s[i] = rand.Uint64()
	}
	return s
}

// hash is that of three words: products of 128 bits, folded, as wyhash does.
func (s *seed) hash(a, b, c uint64) uint64 {
	return fold(fold(a^s[0], b^s[1])^s[2], c^s[3])
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// address is the hash of 16 bytes and a word.
func (s *seed) address(a *[16]byte, c uint64) uint64 {
	return s.hash(binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:]), c)
}
