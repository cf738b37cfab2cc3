package detect

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"github.com/connsleuth/connsleuth/conntrack"
)

// seed makes hashes that nobody can foretell who does not have it. It is for
// keys of a fixed size, of which it takes less time than hash/maphash.
type seed [5]uint64

func newSeed() (s seed) {
	for i := range s {
		s[i] = rand.Uint64()
	}
	return s
}

// hash is that of three words: products of 128 bits, folded, as wyhash does. The
// last parts words that differ little.
func (s *seed) hash(a, b, c uint64) uint64 {
	return fold(fold(fold(a^s[0], b^s[1])^s[2], c^s[3]), s[4])
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// address is the hash of 16 bytes and a word.
func (s *seed) address(a [16]byte, c uint64) uint64 {
	return s.hash(binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:]), c)
}

func hashSource(s *seed, k source) uint32 { return uint32(s.address(k, 0)) }

func hashKey(s *seed, k sourceKey) uint32 {
	return uint32(s.address(k.source, uint64(k.port)<<16|uint64(k.kind)))
}

func hashService(s *seed, k conntrack.Service) uint32 {
	return uint32(s.hash(uint64(k.Proto), uint64(k.Port), 0))
}

func hashOutlet(s *seed, k outlet) uint32 {
	rest := uint64(k.zone)<<32 | uint64(k.port)<<16 | uint64(k.proto)
	return uint32(s.address(k.from, s.address(k.to, rest)))
}
