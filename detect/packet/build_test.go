package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// Packets made by hand: what no kernel sends, or not this one.

// raw is the bytes written as hex in s, blanks ignored.
func raw(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

var (
	tcpData = raw("d4e8 01bb 11223344 55667788 5018 0400 0000 0000 68690a") // 3 bytes of data
	tcpSYN  = raw("d4e8 01bb 11223344 00000000 5002 0400 0000 0000")
	udpData = raw("d4e8 0035 000b 0000 68690a") // 3 bytes of data
)

// v4 is an IPv4 packet from client4 to host4 with TTL 64.
func v4(proto uint8, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := raw("4500 0000 0000 4000 40 00 0000 c0000202 c0000201")
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)))
	b[9] = proto
	return append(b, body...)
}

// v6 is an IPv6 packet from client6 to host6 with hop limit 64.
func v6(next uint8, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := raw("60000000 0000 00 40 fd00 0000 0000 0000 0000 0000 0000 0002" +
		"fd00 0000 0000 0000 0000 0000 0000 0001")
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6] = next
	return append(b, body...)
}

// with is b with the bytes at off replaced.
func with(b []byte, off int, v ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[off:], v)
	return b
}

// zeros is n bytes of padding.
func zeros(n int) []byte { return make([]byte, n) }

// h4 and h6 complete a wanted header with what v4 and v6 set.
func h4(proto uint8, length int, h Header) Header {
	h.Src, h.Dst, h.TTL, h.Proto, h.Length = client4, host4, 64, proto, length
	return h
}

func h6(proto uint8, length int, h Header) Header {
	h.Src, h.Dst, h.TTL, h.Proto, h.Length = client6, host6, 64, proto, length
	return h
}

// tcpWant is tcpData decoded, without what depends on the lengths.
var tcpWant = Header{SrcPort: 54504, DstPort: 443, Seq: 0x11223344, Ack: 0x55667788,
	Window: 1024, Flags: PSH | ACK, DataLen: -1, Have: haveTCP}

// data is h with a payload of n claimed and captured bytes at off.
func data(h Header, off, n, captured int) Header {
	h.DataLen, h.PayloadOff, h.PayloadLen = n, off, captured
	if captured == 0 {
		h.PayloadOff = 0
	}
	return h
}
