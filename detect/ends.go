package detect

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// ends is a TCP connection as one end sends its packets: source, destination
// and their ports, in half the room of a Tuple.
type ends [2*16 + 2*2]byte

func pack(src, dst netip.Addr, srcPort, dstPort uint16) (e ends) {
	s, d := src.As16(), dst.As16()
	copy(e[:16], s[:])
	copy(e[16:32], d[:])
	binary.BigEndian.PutUint16(e[32:], srcPort)
	binary.BigEndian.PutUint16(e[34:], dstPort)
	return e
}

func tupleEnds(t *conntrack.Tuple) ends { return pack(t.Src, t.Dst, t.SrcPort, t.DstPort) }

func socketEnds(s *sockdiag.Socket) ends {
	return pack(s.Local.Addr(), s.Remote.Addr(), s.Local.Port(), s.Remote.Port())
}

// connections has a value for each connection, by the hash of its ends. That
// two of a million have the same hash happens once in 37 million times, and
// nobody can bring it about.
type connections[V any] struct {
	seed maphash.Seed
	table[uint64, V]
}

func newConnections[V any]() connections[V] { return connections[V]{seed: maphash.MakeSeed()} }

// of returns the value of a connection, zero if it is new.
func (c *connections[V]) of(e ends) *V {
	h := maphash.Bytes(c.seed, e[:])
	return c.at(uint32(h), h)
}

// get returns the value of a connection, nil if it is not known.
func (c *connections[V]) get(e ends) *V {
	h := maphash.Bytes(c.seed, e[:])
	if known := c.find(uint32(h), h); known != nil {
		return &known.value
	}
	return nil
}

// addrs returns the source and the destination.
func (e *ends) addrs() (src, dst netip.AddrPort) {
	addr := func(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)).Unmap() }
	return netip.AddrPortFrom(addr(e[:16]), binary.BigEndian.Uint16(e[32:])),
		netip.AddrPortFrom(addr(e[16:32]), binary.BigEndian.Uint16(e[34:]))
}

// ownAddrs is a set of the addresses of the host itself: mostly so few that to
// look at each is faster than to hash.
type ownAddrs struct {
	few  [8]netip.Addr
	n    int // of few
	many map[netip.Addr]struct{}
}

// newOwnAddrs has those that the Host names.
func newOwnAddrs(h *Host) (own ownAddrs) {
	for _, a := range h.Addrs {
		own.add(a)
	}
	return own
}

// add adds one, IPv4 as such.
func (o *ownAddrs) add(a netip.Addr) {
	a = a.Unmap().WithZone("")
	switch {
	case o.has(a):
	case o.n < len(o.few):
		o.few[o.n] = a
		o.n++
	default:
		if o.many == nil {
			o.many = make(map[netip.Addr]struct{})
		}
		o.many[a] = struct{}{}
	}
}

func (o *ownAddrs) has(a netip.Addr) bool {
	for i := range o.n {
		if o.few[i] == a {
			return true
		}
	}
	if o.many == nil {
		return false
	}
	_, ok := o.many[a]
	return ok
}
