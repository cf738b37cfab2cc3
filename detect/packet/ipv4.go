package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4HeaderLen  = 20     // without options, RFC 791 section 3.1 (IHL 5)
	ipv4OffsetMask = 0x1fff // fragment offset in 8-byte units, IP_OFFSET
)

// ipv4 reads the IPv4 header of b, at least 20 bytes (RFC 791 section 3.1),
// and returns the offset of the transport header, 0 if there is none.
func (h *Header) ipv4(b []byte) int {
	h.Src = netip.AddrFrom4([4]byte(b[12:16]))
	h.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	h.Proto, h.Have = b[9], HaveProto
	h.TTL = b[8]
	h.Length = int(binary.BigEndian.Uint16(b[2:4]))
	h.Fragment = binary.BigEndian.Uint16(b[6:8])&ipv4OffsetMask != 0
	size := int(b[0]&0x0f) * 4 // IHL counts 32-bit words
	if h.Fragment || size < ipv4HeaderLen {
		return 0
	}
	return size
}
