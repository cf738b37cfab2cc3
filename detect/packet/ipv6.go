package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv6HeaderLen      = 40     // RFC 8200 section 3
	ipv6FragmentLen    = 8      // RFC 8200 section 4.5
	ipv6FragmentOffset = 0xfff8 // fragment offset in bytes, IP6_OFFSET
)

// IPv6 extension headers: those which Linux skips (ipv6_ext_hdr) except
// IPPROTO_NONE, which ends a packet.
const (
	extHopByHop    = 0  // IPPROTO_HOPOPTS, RFC 8200 section 4.3
	extRouting     = 43 // IPPROTO_ROUTING, RFC 8200 section 4.4
	extFragment    = 44 // IPPROTO_FRAGMENT, RFC 8200 section 4.5
	extAuth        = 51 // IPPROTO_AH, RFC 4302 section 2
	extDestination = 60 // IPPROTO_DSTOPTS, RFC 8200 section 4.6
)

// ipv6 reads the IPv6 header of b, at least 40 bytes (RFC 8200 section 3),
// and its extension headers, and returns the offset of the transport header,
// 0 if there is none. The offset may lie behind the end of b.
func (h *Header) ipv6(b []byte) int {
	h.Src = netip.AddrFrom16([16]byte(b[8:24]))
	h.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	h.TTL = b[7]
	if n := int(binary.BigEndian.Uint16(b[4:6])); n != 0 {
		h.Length = ipv6HeaderLen + n
	}
	return h.extensions(h.claimed(b), b[6])
}

// extensions follows the chain of extension headers from the one numbered
// next to the transport header, whose offset it returns, 0 if the chain does
// not lead there. Each step is at least 8 bytes, so len(b) bounds the loop.
func (h *Header) extensions(b []byte, next uint8) int {
	off := ipv6HeaderLen
	for isExtension(next) && !h.Fragment {
		h.Proto = next // stays if the bytes end here
		ext := b[min(off, len(b)):]
		size := extensionLen(next, ext)
		if size == 0 {
			return 0
		}
		h.Fragment = next == extFragment && binary.BigEndian.Uint16(ext[2:4])&ipv6FragmentOffset != 0
		next = ext[0]
		off += size
	}
	h.Proto = next
	if !isExtension(next) {
		h.Have |= HaveProto
	}
	if h.Fragment {
		return 0
	}
	return off
}

func isExtension(proto uint8) bool {
	switch proto {
	case extHopByHop, extRouting, extFragment, extAuth, extDestination:
		return true
	}
	return false
}

// extensionLen is the size in bytes of the extension header at the start of
// b, 0 if too little of it is there to tell; b may be shorter than that size.
func extensionLen(proto uint8, b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch proto {
	case extFragment: // its second byte is reserved
		if len(b) < ipv6FragmentLen {
			return 0
		}
		return ipv6FragmentLen
	case extAuth: // in 32-bit words, less 2
		return (int(b[1]) + 2) * 4
	}
	return (int(b[1]) + 1) * 8 // in 64-bit words, less 1
}
