package packet

import (
	"net/netip"
	"strconv"
)

// String is the header in one line:
//
//	192.0.2.1:443 > 192.0.2.2:51522 TCP SYN|ACK
//	[fd00::1]:53 > [fd00::2]:40000 UDP
//	fd00::1 > fd00::2 ICMPv6 1/1
//	192.0.2.1 > 192.0.2.2 UDP fragment
//	192.0.2.1 > 192.0.2.2 proto 47
//
// What is not present is left out; "proto ?" is an IPv6 packet that ends
// within its extension headers. The zero Header is "no packet".
func (h Header) String() string { return string(h.append(make([]byte, 0, 96))) }

// String is the header and, for an ICMP error, its name and the header of the
// quoted packet:
//
//	192.0.2.1 > 192.0.2.2 ICMP 3/10 host administratively prohibited (192.0.2.2:51522 > 192.0.2.1:443 TCP SYN)
func (p Packet) String() string {
	b := p.Header.append(make([]byte, 0, 192))
	if p.ICMPError() {
		b = append(b, ' ')
		b = append(b, ICMPName(p.Src.Is6(), p.ICMPType, p.ICMPCode)...)
	}
	if p.HasQuoted {
		b = append(b, " ("...)
		b = append(p.Quoted.append(b), ')')
	}
	return string(b)
}

func (h *Header) append(b []byte) []byte {
	if !h.Src.IsValid() {
		return append(b, "no packet"...)
	}
	b = h.appendAddr(b, h.Src, h.SrcPort)
	b = append(b, " > "...)
	b = h.appendAddr(b, h.Dst, h.DstPort)
	b = append(b, ' ')
	b = h.appendProto(b)
	switch {
	case h.Fragment:
		b = append(b, " fragment"...)
	case h.Have.Has(HaveFlags):
		b = appendBits(append(b, ' '), uint8(h.Flags), &flagNames)
	case h.Have.Has(HaveICMP):
		b = strconv.AppendUint(append(b, ' '), uint64(h.ICMPType), 10)
		b = strconv.AppendUint(append(b, '/'), uint64(h.ICMPCode), 10)
	}
	return b
}

func (h *Header) appendAddr(b []byte, a netip.Addr, port uint16) []byte {
	if h.Have.Has(HavePorts) {
		return netip.AddrPortFrom(a, port).AppendTo(b)
	}
	return a.AppendTo(b)
}

func (h *Header) appendProto(b []byte) []byte {
	if !h.Have.Has(HaveProto) {
		return append(b, "proto ?"...)
	}
	switch h.Proto {
	case ProtoICMP:
		return append(b, "ICMP"...)
	case ProtoTCP:
		return append(b, "TCP"...)
	case ProtoUDP:
		return append(b, "UDP"...)
	case ProtoDCCP:
		return append(b, "DCCP"...)
	case ProtoICMPv6:
		return append(b, "ICMPv6"...)
	case ProtoSCTP:
		return append(b, "SCTP"...)
	case ProtoUDPLite:
		return append(b, "UDPlite"...)
	}
	return strconv.AppendUint(append(b, "proto "...), uint64(h.Proto), 10)
}
