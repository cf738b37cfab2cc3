package packet

import "encoding/binary"

// IPPROTO_* numbers of the protocols whose headers are read (linux/in.h,
// linux/in6.h). Of any other only the number is reported.
const (
	ProtoICMP    uint8 = 1   // IPPROTO_ICMP, in IPv4
	ProtoTCP     uint8 = 6   // IPPROTO_TCP
	ProtoUDP     uint8 = 17  // IPPROTO_UDP
	ProtoDCCP    uint8 = 33  // IPPROTO_DCCP
	ProtoICMPv6  uint8 = 58  // IPPROTO_ICMPV6, in IPv6
	ProtoSCTP    uint8 = 132 // IPPROTO_SCTP
	ProtoUDPLite uint8 = 136 // IPPROTO_UDPLITE
)

const (
	portsLen    = 4  // source and destination port come first in all five
	tcpSeqLen   = 8  // up to the sequence number
	tcpFlagsLen = 16 // up to the window
	tcpMinLen   = 20 // RFC 9293 section 3.1
	udpLen      = 8  // RFC 768; UDPlite RFC 3828 section 3.1
	dccpMinLen  = 12 // RFC 4340 section 5.1
	sctpLen     = 12 // common header, RFC 9260 section 3.1
)

// segment is a transport header and what follows it.
type segment struct {
	b       []byte // what was captured
	claimed int    // its length in bytes by the lengths in the headers, -1 unknown
}

// cut ends the segment after n bytes, if it is not known to end before.
func (s segment) cut(n int) segment {
	if s.claimed < 0 || n < s.claimed {
		s.claimed = n
	}
	s.b = s.b[:min(len(s.b), n)]
	return s
}

// transport reads the transport header at offset off of b, which holds
// nothing after the length that the IP header claims. An off of 0 means that
// there is none.
func (h *Header) transport(b []byte, off int) {
	if off == 0 || off > len(b) {
		return
	}
	s := segment{b: b[off:], claimed: -1}
	if h.Length != 0 {
		s.claimed = h.Length - off
	}
	size := 0 // of the transport header, 0 if unknown
	switch h.Proto {
	case ProtoTCP:
		size = h.tcp(s.b)
	case ProtoUDP:
		s, size = h.udp(s)
	case ProtoUDPLite: // its length field is a checksum coverage
		size = h.ports(s.b, udpLen)
	case ProtoSCTP:
		size = h.ports(s.b, sctpLen)
	case ProtoDCCP:
		size = h.dccp(s.b)
	case ProtoICMP, ProtoICMPv6:
		size = h.icmp(s.b)
	}
	h.payload(s, off, size)
}

// payload notes what follows a transport header of the given size at off.
func (h *Header) payload(s segment, off, size int) {
	if size == 0 {
		return
	}
	if s.claimed >= size {
		h.DataLen = s.claimed - size
	}
	if len(s.b) > size {
		h.PayloadOff, h.PayloadLen = off+size, len(s.b)-size
	}
}

// ports reads the ports at the start of b and returns size, or 0 if b is too
// short for them.
func (h *Header) ports(b []byte, size int) int {
	if len(b) < portsLen {
		return 0
	}
	h.SrcPort = binary.BigEndian.Uint16(b[0:2])
	h.DstPort = binary.BigEndian.Uint16(b[2:4])
	h.Have |= HavePorts
	return size
}

// tcp reads as much of a TCP header as b holds (RFC 9293 section 3.1) and
// returns its size, 0 if that is unknown or its data offset is below 5.
func (h *Header) tcp(b []byte) int {
	h.ports(b, tcpMinLen)
	if len(b) < tcpSeqLen {
		return 0
	}
	h.Seq = binary.BigEndian.Uint32(b[4:8])
	h.Have |= HaveSeq
	if len(b) < tcpFlagsLen {
		return 0
	}
	h.Ack = binary.BigEndian.Uint32(b[8:12])
	h.Flags = TCPFlags(b[13])
	h.Window = binary.BigEndian.Uint16(b[14:16])
	h.Have |= HaveFlags
	size := int(b[12]>>4) * 4 // data offset counts 32-bit words
	if size < tcpMinLen {
		return 0
	}
	return size
}

// udp reads a UDP header (RFC 768) and cuts s to the length it claims: what
// follows is padding or UDP options (RFC 9868). A length of 0, which UDP in a
// jumbogram has (RFC 2675 section 4), claims nothing.
func (h *Header) udp(s segment) (segment, int) {
	size := h.ports(s.b, udpLen)
	if len(s.b) < udpLen {
		return s, 0
	}
	if n := int(binary.BigEndian.Uint16(s.b[4:6])); n >= udpLen {
		s = s.cut(n)
	} else if n != 0 {
		return s, 0
	}
	return s, size
}

// dccp reads the start of a DCCP header (RFC 4340 section 5.1). Its data
// offset, in 32-bit words, includes the options.
func (h *Header) dccp(b []byte) int {
	if h.ports(b, dccpMinLen) == 0 || len(b) <= portsLen {
		return 0
	}
	size := int(b[4]) * 4
	if size < dccpMinLen {
		return 0
	}
	return size
}
