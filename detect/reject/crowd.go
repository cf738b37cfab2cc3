package reject

import (
	"net/netip"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// flowKey is the tuple of a flow, packed: half the size of a conntrack.Tuple, and
// hashed at once.
type flowKey struct {
	src, dst                  [16]byte
	srcPort, dstPort, icmpID  uint16
	proto, icmpType, icmpCode uint8
	v4                        bool
}

func keyOf(h *packet.Header) flowKey {
	return flowKey{
		src: h.Src.As16(), dst: h.Dst.As16(), srcPort: h.SrcPort, dstPort: h.DstPort,
		proto: h.Proto, icmpType: h.ICMPType, icmpCode: h.ICMPCode, icmpID: h.ICMPID, v4: h.Src.Is4(),
	}
}

func keyOfTuple(t *conntrack.Tuple) flowKey {
	return flowKey{
		src: t.Src.As16(), dst: t.Dst.As16(), srcPort: t.SrcPort, dstPort: t.DstPort,
		proto: uint8(t.Proto), icmpType: t.ICMPType, icmpCode: t.ICMPCode, icmpID: t.ICMPID, v4: t.Src.Is4(),
	}
}

// crowd is flows that are not told apart.
type crowd struct {
	all      bool // of all sources
	ports    [1 << 16 / 64]uint64
	distinct int // destination ports
}

func (c *crowd) add(port uint16) {
	bit := uint64(1) << (port % 64)
	if c.ports[port/64]&bit == 0 {
		c.ports[port/64] |= bit
		c.distinct++
	}
}

// crowdKey is the source of a packet, as a key.
func crowdKey(h *packet.Header) flowKey {
	k := flowKey{src: h.Src.As16(), v4: h.Src.Is4()}
	if !k.v4 {
		clear(k.src[8:])
	}
	return k
}

// sourceOf is an address of IPv4 or a /64 of IPv6, which one host can have to
// itself.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(a, bits).Masked()
}
