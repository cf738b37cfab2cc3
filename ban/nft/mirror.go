package nft

import (
	"encoding/binary"
	"iter"
	"maps"
	"math"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// mirror is the bans put in force here, and those found at Open, or among many later.
// Each part of a call writes its own before it makes them, and takes out those that it
// could not make.
//
// It has no pointers, so that the garbage collector need not look at each of many,
// and is small: most of what a ban takes outside the kernel is to find its place
// in here.
type mirror struct {
	four map[uint64]mark // prefix length, address
	six  map[key]mark
}

type key struct {
	high, low uint64
	bits      uint8
}

type mark struct {
	end uint32 // seconds since 1970, rounded up; never is none before 2106
	at  int32  // among the changes of the last part of a call that asked for it; or foreign
}

const (
	never = math.MaxUint32

	// foreign is the place of what somebody else put in force, while List found it.
	foreign = math.MaxInt32

	// lag is how much earlier a ban may end in the kernel, a tick before its end here,
	// of which the mirror has the next second.
	lag = 2 * time.Second
)

// newMirror has room for the entries.
func newMirror(entries []ban.Entry) mirror {
	four := 0
	for i := range entries {
		if entries[i].Prefix.Addr().Is4() {
			four++
		}
	}
	return mirror{make(map[uint64]mark, four), make(map[key]mark, len(entries)-four)}
}

// empty is another one with room for as many.
func (m *mirror) empty() mirror {
	return mirror{make(map[uint64]mark, len(m.four)), make(map[key]mark, len(m.six))}
}

// end is what a mark has of an end in milliseconds since 1970.
func end(ms int64, timed bool) uint32 {
	if !timed || ms/1000 >= never-1 {
		return never
	}
	return uint32(ms/1000 + 1)
}

func (m mark) over(now time.Time) bool { return m.end != never && int64(m.end) <= now.Unix() }

func fourKey(p netip.Prefix) uint64 {
	a := p.Addr().As4()
	return uint64(p.Bits())<<32 | uint64(binary.BigEndian.Uint32(a[:]))
}

func sixKey(p netip.Prefix) key {
	a := p.Addr().As16()
	return key{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), uint8(p.Bits())}
}

func (m *mirror) size() int { return len(m.four) + len(m.six) }

func (m *mirror) get(p netip.Prefix) (mark mark, ok bool) {
	if p.Addr().Is4() {
		mark, ok = m.four[fourKey(p)]
	} else {
		mark, ok = m.six[sixKey(p)]
	}
	return mark, ok
}

func (m *mirror) set(p netip.Prefix, mark mark) {
	if p.Addr().Is4() {
		m.four[fourKey(p)] = mark
	} else {
		m.six[sixKey(p)] = mark
	}
}

func (m *mirror) remove(p netip.Prefix) {
	if p.Addr().Is4() {
		delete(m.four, fourKey(p))
	} else {
		delete(m.six, sixKey(p))
	}
}

// prune removes what is over.
func (m *mirror) prune(now time.Time) {
	maps.DeleteFunc(m.four, func(_ uint64, m mark) bool { return m.over(now) })
	maps.DeleteFunc(m.six, func(_ key, m mark) bool { return m.over(now) })
}

// keys are those of the elements, one after the other, of each set.
func (m *mirror) keys() map[kind][]byte {
	keys := make(map[kind][]byte)
	for k := range m.four {
		of := kind{false, uint8(k >> 32)}
		keys[of] = binary.BigEndian.AppendUint32(keys[of], uint32(k))
	}
	for k := range m.six {
		of := kind{true, k.bits}
		keys[of] = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(keys[of], k.high), k.low)
	}
	return keys
}

func (m *mirror) all() iter.Seq2[netip.Prefix, mark] {
	return func(yield func(netip.Prefix, mark) bool) {
		for k, mark := range m.four {
			a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(k))))
			if !yield(netip.PrefixFrom(a, int(k>>32)), mark) {
				return
			}
		}
		for k, mark := range m.six {
			b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, k.high), k.low)
			if !yield(netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), int(k.bits)), mark) {
				return
			}
		}
	}
}
