package nflog

import (
	"encoding/binary"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// payload is that of a packet's message: its header and attributes.
func payload(family uint8, attrs func(b *nfnl.Builder)) []byte {
	b := nfnl.NewNetfilter(subsystem, opPacket, 0, family)
	attrs(b)
	return b.Message().Data
}

// full has every attribute that the kernel knows.
func full(b *nfnl.Builder) {
	b.Bytes(1, []byte{0x86, 0xdd, byte(Forward), 0})
	b.String(10, "why: ")
	b.U32(4, 2)
	b.U32(6, 3)
	b.U32(5, 4)
	b.U32(7, 5)
	b.U32(2, 0xcafe)
	b.Bytes(8, []byte{0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0})
	b.U16(15, 1)
	b.U16(17, 14)
	b.Bytes(16, []byte{13: 1})
	b.Bytes(3, binary.BigEndian.AppendUint64([]byte{0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0}, 250))
	b.U32(11, 1000)
	b.U32(14, 1001)
	b.U32(12, 0)
	b.U32(13, 99)
	b.Nested(18, func() { b.U32(3, 14) })
	b.U32(19, uint32(EstablishedReply))
	b.Nested(20, func() { b.U16(2, 0x6007); b.U16(1, 0x8100) })
	b.Bytes(21, []byte{13: 2})
	b.U32(500, 1)
	b.Bytes(9, []byte{0x60, 1, 2, 3, 4})
}

// logged are the attributes of a packet in Input, as Linux 6.18 sends them.
func logged(b *nfnl.Builder) {
	b.Bytes(1, []byte{8, 0, byte(Input), 0})
	b.String(10, "rejected: ")
	b.U32(4, 2)
	b.Bytes(8, []byte{0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0})
	b.U16(15, 1)
	b.U16(17, 14)
	b.Bytes(16, make([]byte, 14))
	b.Bytes(3, make([]byte, 16))
	b.U32(11, 1000)
	b.U32(14, 1000)
	b.U32(12, 7)
	b.U32(13, 9)
	b.Bytes(9, make([]byte, 256))
}
