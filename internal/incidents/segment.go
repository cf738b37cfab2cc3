package incidents

import (
	"encoding/binary"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// segment is a TCP segment to be made by hand.
type segment struct {
	conntrack.Tuple
	seq, ack uint32
	flags    packet.TCPFlags
	data     string
	damaged  bool // has a wrong checksum
}

const (
	hops      = 64
	tcpHeader = 20 // bytes, without options
)

// bytes returns the IP packet.
func (s segment) bytes() []byte {
	tcp := binary.BigEndian.AppendUint16(nil, s.SrcPort)
	tcp = binary.BigEndian.AppendUint16(tcp, s.DstPort)
	tcp = binary.BigEndian.AppendUint32(tcp, s.seq)
	tcp = binary.BigEndian.AppendUint32(tcp, s.ack)
	tcp = append(tcp, tcpHeader/4<<4, byte(s.flags), 0xff, 0xff, 0, 0, 0, 0) // window, checksum, urgent pointer
	tcp = append(tcp, s.data...)
	pseudo := append(s.Src.AsSlice(), s.Dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(tcp)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(packet.ProtoTCP))
	sum := checksum(append(pseudo, tcp...))
	if s.damaged {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(tcp[16:], sum)
	return append(s.network(len(tcp)), tcp...)
}

// network is the IP header before size bytes.
func (s segment) network(size int) []byte {
	if s.Src.Is6() {
		h := []byte{0x60, 0, 0, 0, byte(size >> 8), byte(size), packet.ProtoTCP, hops}
		return append(append(h, s.Src.AsSlice()...), s.Dst.AsSlice()...)
	}
	h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, hops, packet.ProtoTCP, 0, 0} // 0x40: do not fragment
	h = append(append(h, s.Src.AsSlice()...), s.Dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+size))
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
