package packet

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// BenchmarkDecode compares Decode with its floor: the same fields of an ICMP
// error and of the quoted TCP header read from offsets known beforehand,
// nothing checked.
func BenchmarkDecode(b *testing.B) {
	pkt := capture(b, "v4-tcp-syn-host-prohibited")
	var sink Packet
	var floor float64 // ns
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = fixed(pkt)
		}
		floor = float64(b.Elapsed()) / float64(b.N)
	})
	if want, _ := Decode(pkt); floor != 0 && sink != want {
		b.Fatalf("the floor reads something else:\n%s\n%s", plain(sink), plain(want))
	}
	for _, name := range []string{"v4-tcp-syn-host-prohibited", "v6-tcp-syn-admin-prohibited", "v4-tcp-synack", "v6-extensions-udp"} {
		pkt := capture(b, name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink, _ = Decode(pkt)
			}
			if floor != 0 { // not filtered away
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/floor, "x-floor")
			}
		})
	}
}

// fixed is Decode for an ICMP error without IP options that quotes a TCP
// segment without data or IP options.
func fixed(b []byte) Packet {
	be, q := binary.BigEndian, b[28:]
	return Packet{
		Header: Header{
			Src: netip.AddrFrom4([4]byte(b[12:])), Dst: netip.AddrFrom4([4]byte(b[16:])),
			Proto: ProtoICMP, TTL: b[8], Length: int(be.Uint16(b[2:])),
			ICMPType: b[20], ICMPCode: b[21],
			DataLen: len(q), PayloadOff: 28, PayloadLen: len(q), Have: haveICMP,
		},
		Quoted: Header{
			Src: netip.AddrFrom4([4]byte(q[12:])), Dst: netip.AddrFrom4([4]byte(q[16:])),
			Proto: ProtoTCP, TTL: q[8], Length: int(be.Uint16(q[2:])),
			SrcPort: be.Uint16(q[20:]), DstPort: be.Uint16(q[22:]),
			Seq: be.Uint32(q[24:]), Ack: be.Uint32(q[28:]),
			Flags: TCPFlags(q[33]), Window: be.Uint16(q[34:]),
			Have: haveTCP,
		},
		HasQuoted: true,
	}
}
