package packet

import (
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

var (
	client4 = netip.MustParseAddr("192.0.2.2")
	host4   = netip.MustParseAddr("192.0.2.1")
	far4    = netip.MustParseAddr("198.51.100.2")
	client6 = netip.MustParseAddr("fd00::2")
	host6   = netip.MustParseAddr("fd00::1")
	far6    = netip.MustParseAddr("fd01::2")
)

const (
	havePorts = HaveProto | HavePorts
	haveTCP   = havePorts | HaveSeq | HaveFlags
	haveICMP  = HaveProto | HaveICMP
	haveEcho  = haveICMP | HaveICMPID
)

// captured are the packets in testdata as they must be decoded, checked field
// by field against what tcpdump says of the same bytes.
var captured = []struct {
	name string
	want Packet
}{
	{"v4-big-tcp", Packet{
		Header: Header{Src: client4, Dst: host4, Proto: ProtoTCP, TTL: 64,
			SrcPort: 54904, DstPort: 9000, Seq: 2274516310, Ack: 3783357474, Window: 63, Flags: PSH | ACK,
			DataLen: -1, PayloadOff: 52, PayloadLen: 108, Have: haveTCP},
	}},
	{"v4-echo-host-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 80,
			ICMPType: 3, ICMPCode: 10,
			DataLen: 52, PayloadOff: 28, PayloadLen: 52, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoICMP, TTL: 64, Length: 52,
			ICMPType: 8, ICMPID: 12353,
			DataLen: 24, PayloadOff: 56, PayloadLen: 24, Have: haveEcho},
		HasQuoted: true,
	}},
	{"v4-fragmentation-needed", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 576,
			ICMPType: 3, ICMPCode: 4,
			DataLen: 548, PayloadOff: 28, PayloadLen: 548, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: far4, Proto: ProtoUDP, TTL: 64, Length: 1478,
			SrcPort: 49739, DstPort: 53,
			DataLen: 1450, PayloadOff: 56, PayloadLen: 520, Have: havePorts},
		HasQuoted: true,
	}},
	{"v4-nflog-snaplen-128", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 576,
			ICMPType: 3, ICMPCode: 10,
			DataLen: 548, PayloadOff: 28, PayloadLen: 100, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoTCP, TTL: 64, Length: 1152,
			SrcPort: 57468, DstPort: 8080, Seq: 3724693532, Ack: 3972260594, Window: 63, Flags: PSH | ACK,
			DataLen: 1100, PayloadOff: 80, PayloadLen: 48, Have: haveTCP},
		HasQuoted: true,
	}},
	{"v4-options-udp-admin-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 104,
			ICMPType: 3, ICMPCode: 13,
			DataLen: 60, PayloadOff: 44, PayloadLen: 60, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoUDP, TTL: 64, Length: 60,
			SrcPort: 35263, DstPort: 53,
			DataLen: 16, PayloadOff: 88, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v4-tcp-data-admin-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 576,
			ICMPType: 3, ICMPCode: 13,
			DataLen: 548, PayloadOff: 28, PayloadLen: 548, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoTCP, TTL: 64, Length: 1163,
			SrcPort: 54276, DstPort: 443, Seq: 249162102, Ack: 3312772424, Window: 63, Flags: PSH | ACK,
			DataLen: 1111, PayloadOff: 80, PayloadLen: 496, Have: haveTCP},
		HasQuoted: true,
	}},
	{"v4-tcp-data-short-host-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 102,
			ICMPType: 3, ICMPCode: 10,
			DataLen: 74, PayloadOff: 28, PayloadLen: 74, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoTCP, TTL: 64, Length: 74,
			SrcPort: 54290, DstPort: 443, Seq: 1286199043, Ack: 3788481033, Window: 63, Flags: PSH | ACK,
			DataLen: 22, PayloadOff: 80, PayloadLen: 22, Have: haveTCP},
		HasQuoted: true,
	}},
	{"v4-tcp-reset", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoTCP, TTL: 64, Length: 40,
			SrcPort: 443, DstPort: 54274, Ack: 2536918328, Flags: RST | ACK,
			Have: haveTCP},
	}},
	{"v4-tcp-syn-host-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 88,
			ICMPType: 3, ICMPCode: 10,
			DataLen: 60, PayloadOff: 28, PayloadLen: 60, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoTCP, TTL: 64, Length: 60,
			SrcPort: 54258, DstPort: 443, Seq: 266991699, Window: 64240, Flags: SYN,
			Have: haveTCP},
		HasQuoted: true,
	}},
	{"v4-tcp-synack", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoTCP, TTL: 64, Length: 60,
			SrcPort: 443, DstPort: 54300, Seq: 1976526643, Ack: 1884633888, Window: 65160, Flags: SYN | ACK,
			Have: haveTCP},
	}},
	{"v4-time-exceeded", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 72,
			ICMPType: 11,
			DataLen:  44, PayloadOff: 28, PayloadLen: 44, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: far4, Proto: ProtoUDP, TTL: 1, Length: 44,
			SrcPort: 34940, DstPort: 33434,
			DataLen: 16, PayloadOff: 56, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v4-udp-fragment-first", Packet{
		Header: Header{Src: client4, Dst: host4, Proto: ProtoUDP, TTL: 64, Length: 1500,
			SrcPort: 40782, DstPort: 9,
			DataLen: 1472, PayloadOff: 28, PayloadLen: 1472, Have: havePorts},
	}},
	{"v4-udp-fragment-last", Packet{
		Header: Header{Src: client4, Dst: host4, Proto: ProtoUDP, TTL: 64, Length: 748, Fragment: true,
			DataLen: -1, Have: HaveProto},
	}},
	{"v4-udp-net-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 72,
			ICMPType: 3, ICMPCode: 9,
			DataLen: 44, PayloadOff: 28, PayloadLen: 44, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoUDP, TTL: 64, Length: 44,
			SrcPort: 56628, DstPort: 53,
			DataLen: 16, PayloadOff: 56, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v4-udp-port-unreachable", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 72,
			ICMPType: 3, ICMPCode: 3,
			DataLen: 44, PayloadOff: 28, PayloadLen: 44, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoUDP, TTL: 64, Length: 44,
			SrcPort: 58912, DstPort: 53,
			DataLen: 16, PayloadOff: 56, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v4-udplite-admin-prohibited", Packet{
		Header: Header{Src: host4, Dst: client4, Proto: ProtoICMP, TTL: 64, Length: 72,
			ICMPType: 3, ICMPCode: 13,
			DataLen: 44, PayloadOff: 28, PayloadLen: 44, Have: haveICMP},
		Quoted: Header{Src: client4, Dst: host4, Proto: ProtoUDPLite, TTL: 64, Length: 44,
			SrcPort: 39429, DstPort: 53,
			DataLen: 16, PayloadOff: 56, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v6-big-tcp", Packet{
		Header: Header{Src: client6, Dst: host6, Proto: ProtoTCP, TTL: 64,
			SrcPort: 39424, DstPort: 9000, Seq: 2656711397, Ack: 3855245500, Window: 64, Flags: PSH | ACK,
			DataLen: -1, PayloadOff: 80, PayloadLen: 80, Have: haveTCP},
	}},
	{"v6-echo-reject-route", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 120,
			ICMPType: 1, ICMPCode: 6,
			DataLen: 72, PayloadOff: 48, PayloadLen: 72, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoICMPv6, TTL: 64, Length: 72,
			ICMPType: 128, ICMPID: 12361,
			DataLen: 24, PayloadOff: 96, PayloadLen: 24, Have: haveEcho},
		HasQuoted: true,
	}},
	{"v6-extensions-udp-admin-prohibited", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 136,
			ICMPType: 1, ICMPCode: 1,
			DataLen: 88, PayloadOff: 48, PayloadLen: 88, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoUDP, TTL: 64, Length: 88,
			SrcPort: 36790, DstPort: 53,
			DataLen: 16, PayloadOff: 120, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v6-extensions-udp", Packet{
		Header: Header{Src: client6, Dst: host6, Proto: ProtoUDP, TTL: 64, Length: 69,
			SrcPort: 39949, DstPort: 9,
			DataLen: 5, PayloadOff: 64, PayloadLen: 5, Have: havePorts},
	}},
	{"v6-packet-too-big", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 1280,
			ICMPType: 2,
			DataLen:  1232, PayloadOff: 48, PayloadLen: 1232, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: far6, Proto: ProtoUDP, TTL: 64, Length: 1478,
			SrcPort: 44692, DstPort: 53,
			DataLen: 1430, PayloadOff: 96, PayloadLen: 1184, Have: havePorts},
		HasQuoted: true,
	}},
	{"v6-tcp-data-admin-prohibited", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 1280,
			ICMPType: 1, ICMPCode: 1,
			DataLen: 1232, PayloadOff: 48, PayloadLen: 1232, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoTCP, TTL: 64, Length: 1381,
			SrcPort: 50536, DstPort: 443, Seq: 4186118655, Ack: 73042057, Window: 64, Flags: PSH | ACK,
			DataLen: 1309, PayloadOff: 120, PayloadLen: 1160, Have: haveTCP},
		HasQuoted: true,
	}},
	{"v6-tcp-reset", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoTCP, TTL: 64, Length: 60,
			SrcPort: 443, DstPort: 50520, Ack: 3911095854, Flags: RST | ACK,
			Have: haveTCP},
	}},
	{"v6-tcp-syn-admin-prohibited", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 128,
			ICMPType: 1, ICMPCode: 1,
			DataLen: 80, PayloadOff: 48, PayloadLen: 80, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoTCP, TTL: 64, Length: 80,
			SrcPort: 50506, DstPort: 443, Seq: 2656579385, Window: 64800, Flags: SYN,
			Have: haveTCP},
		HasQuoted: true,
	}},
	{"v6-time-exceeded", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 112,
			ICMPType: 3,
			DataLen:  64, PayloadOff: 48, PayloadLen: 64, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: far6, Proto: ProtoUDP, TTL: 1, Length: 64,
			SrcPort: 53308, DstPort: 33434,
			DataLen: 16, PayloadOff: 96, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v6-udp-fragment-first", Packet{
		Header: Header{Src: client6, Dst: host6, Proto: ProtoUDP, TTL: 64, Length: 1496,
			SrcPort: 48323, DstPort: 9,
			DataLen: 1440, PayloadOff: 56, PayloadLen: 1440, Have: havePorts},
	}},
	{"v6-udp-fragment-last", Packet{
		Header: Header{Src: client6, Dst: host6, Proto: ProtoUDP, TTL: 64, Length: 808, Fragment: true,
			DataLen: -1, Have: HaveProto},
	}},
	{"v6-udp-policy-fail", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 112,
			ICMPType: 1, ICMPCode: 5,
			DataLen: 64, PayloadOff: 48, PayloadLen: 64, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoUDP, TTL: 64, Length: 64,
			SrcPort: 39094, DstPort: 53,
			DataLen: 16, PayloadOff: 96, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
	{"v6-udplite-admin-prohibited", Packet{
		Header: Header{Src: host6, Dst: client6, Proto: ProtoICMPv6, TTL: 64, Length: 112,
			ICMPType: 1, ICMPCode: 1,
			DataLen: 64, PayloadOff: 48, PayloadLen: 64, Have: haveICMP},
		Quoted: Header{Src: client6, Dst: host6, Proto: ProtoUDPLite, TTL: 64, Length: 64,
			SrcPort: 59254, DstPort: 53,
			DataLen: 16, PayloadOff: 96, PayloadLen: 16, Have: havePorts},
		HasQuoted: true,
	}},
}

func TestDecodeCaptured(t *testing.T) {
	if have := len(fixture.Names(t, captures)); have != len(captured) {
		t.Errorf("%d packets in testdata, %d in the table", have, len(captured))
	}
	for _, tt := range captured {
		t.Run(tt.name, func(t *testing.T) { check(t, capture(t, tt.name), tt.want) })
	}
}
