package packet

import "encoding/binary"

// TCP option kinds (IANA, "TCP Option Kind Numbers").
const (
	optionEnd      = 0
	optionNop      = 1
	optionFastOpen = 34  // RFC 7413 section 4.1.1
	optionShared   = 254 // RFC 6994: told apart by an experiment identifier
	experimentFO   = 0xf989
)

// tcpOptions returns the options of the TCP header h, which was decoded from b,
// as far as they were captured, and whether that is all of them.
func (h Header) tcpOptions(b []byte) (options []byte, whole bool) {
	b = h.claimed(b)
	off := transportOffset(b)
	if off == 0 || h.Proto != ProtoTCP || len(b)-off < tcpMinLen || binary.BigEndian.Uint32(b[off+4:]) != h.Seq {
		return nil, false
	}
	size := int(b[off+12]>>4) * 4
	if size < tcpMinLen {
		return nil, false
	}
	end := min(off+size, len(b))
	return b[off+tcpMinLen : end], end == off+size
}

// transportOffset returns where the transport header of the packet in b
// begins, 0 if there is none.
func transportOffset(b []byte) int {
	var h Header
	switch {
	case len(b) >= ipv4HeaderLen && b[0]>>4 == 4:
		return h.ipv4(b)
	case len(b) >= ipv6HeaderLen && b[0]>>4 == 6:
		return h.ipv6(b)
	}
	return 0
}

// fastOpen reports whether the options have that of TCP fast open, or its
// experimental form, which Linux still understands (tcp_parse_fastopen_option).
func fastOpen(options []byte) bool {
	for len(options) > 0 && options[0] != optionEnd {
		if options[0] == optionNop {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		one := options[:options[1]]
		if one[0] == optionFastOpen ||
			one[0] == optionShared && len(one) >= 4 && binary.BigEndian.Uint16(one[2:]) == experimentFO {
			return true
		}
		options = options[len(one):]
	}
	return false
}
