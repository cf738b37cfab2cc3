package conntrack

import (
	"encoding/binary"
	"net/netip"
)

// decodeUsual reads the tuple of a protocol with ports if it is laid out as
// kernels do lay it out (ctnetlink_dump_tuples), and reports whether it was;
// otherwise *t is as before. The two tuples are two fifths of a flow's
// attributes.
func (t *Tuple) decodeUsual(b []byte) bool {
	const (
		headerLen = 4                     // struct nlattr
		protoLen  = headerLen + 8 + 8 + 8 // number, ports
		nested    = 0x8000                // NLA_F_NESTED
	)
	size, src, dst := 4, uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if len(b) == headerLen+2*(headerLen+16)+protoLen {
		size, src, dst = 16, ctaIPv6Src, ctaIPv6Dst
	}
	ipLen := headerLen + 2*(headerLen+size)
	if len(b) != ipLen+protoLen {
		return false
	}
	ip, proto := b[:ipLen], b[ipLen:]
	usual := header(ip, ipLen, nested|ctaTupleIP) &&
		header(ip[4:], headerLen+size, src) &&
		header(ip[8+size:], headerLen+size, dst) &&
		header(proto, protoLen, nested|ctaTupleProto) &&
		header(proto[4:], headerLen+1, ctaProtoNum) &&
		header(proto[12:], headerLen+2, ctaProtoSrcPort) &&
		header(proto[20:], headerLen+2, ctaProtoDstPort)
	if !usual {
		return false
	}
	t.Src, _ = netip.AddrFromSlice(ip[8 : 8+size])
	t.Dst, _ = netip.AddrFromSlice(ip[12+size:])
	t.Proto = Proto(proto[8])
	t.SrcPort = binary.BigEndian.Uint16(proto[16:])
	t.DstPort = binary.BigEndian.Uint16(proto[24:])
	return true
}

// header reports whether b begins with the header of an attribute of n bytes.
func header(b []byte, n int, typ uint16) bool {
	return int(binary.NativeEndian.Uint16(b)) == n && binary.NativeEndian.Uint16(b[2:]) == typ
}
