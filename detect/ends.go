package detect

import (
	"encoding/binary"
	"net/netip"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// ends is a TCP connection as one end sends its packets: source, destination
// and their ports, in half the room of a Tuple. As a key of a map it takes at
// most 90 bytes for each connection.
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

// addrs returns the source and the destination.
func (e *ends) addrs() (src, dst netip.AddrPort) {
	addr := func(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)).Unmap() }
	return netip.AddrPortFrom(addr(e[:16]), binary.BigEndian.Uint16(e[32:])),
		netip.AddrPortFrom(addr(e[16:32]), binary.BigEndian.Uint16(e[34:]))
}

// ownAddrs is a set of the addresses of the host itself.
type ownAddrs map[netip.Addr]struct{}

// newOwnAddrs has those that the Host names.
func newOwnAddrs(h *Host) ownAddrs {
	own := make(ownAddrs, len(h.Addrs))
	for _, a := range h.Addrs {
		own.add(a)
	}
	return own
}

// add adds one, IPv4 as such.
func (o ownAddrs) add(a netip.Addr) {
	a = a.Unmap().WithZone("")
	if _, ok := o[a]; !ok {
		o[a] = struct{}{}
	}
}

func (o ownAddrs) has(a netip.Addr) bool {
	_, ok := o[a]
	return ok
}
