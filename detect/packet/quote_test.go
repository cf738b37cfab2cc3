package packet

import (
	"slices"
	"testing"
)

// icmpv4 is an ICMP message from client4 to host4 with the given type, code
// and second word; icmpv6 is its ICMPv6 likeness.
func icmpv4(typ, code byte, word string, parts ...[]byte) []byte {
	return v4(ProtoICMP, []byte{typ, code, 0, 0}, raw(word), slices.Concat(parts...))
}

func icmpv6(typ, code byte, word string, parts ...[]byte) []byte {
	return v6(ProtoICMPv6, []byte{typ, code, 0, 0}, raw(word), slices.Concat(parts...))
}

// errorWant is the header of such an error of which n bytes were captured
// behind the ICMP header.
func errorWant(typ, code uint8, n int) Header {
	h := Header{ICMPType: typ, ICMPCode: code, Have: haveICMP}
	return h4(ProtoICMP, 28+n, data(h, 28, n, n))
}

func errorWant6(typ, code uint8, n int) Header {
	h := Header{ICMPType: typ, ICMPCode: code, Have: haveICMP}
	return h6(ProtoICMPv6, 48+n, data(h, 48, n, n))
}

// TestQuote has the quotes that Linux does not send.
func TestQuote(t *testing.T) {
	var (
		tcp4   = v4(ProtoTCP, tcpData)                     // 43 bytes
		syn4   = v4(ProtoTCP, tcpSYN)                      // 40 bytes
		long4  = with(v4(ProtoTCP, tcpData), 2, 5, 0xdc)   // claims 1500 bytes
		long6  = with(v6(ProtoTCP, tcpData), 4, 5, 0xb4)   // claims 1500 bytes
		echo4  = v4(ProtoICMP, raw("0800 0000 1234 0001")) // 28 bytes
		extend = raw("2000 0000 0008 0101 00000000")       // RFC 4884: version 2, one object
	)
	quoted := func(length int, h Header) Header { return h4(ProtoTCP, length, h) }
	ports := Header{SrcPort: 54504, DstPort: 443, DataLen: -1, Have: havePorts}
	seq := Header{SrcPort: 54504, DstPort: 443, Seq: 0x11223344, DataLen: -1, Have: havePorts | HaveSeq}
	syn := Header{SrcPort: 54504, DstPort: 443, Seq: 0x11223344, Window: 1024, Flags: SYN, Have: haveTCP}
	nothing := Header{DataLen: -1, Have: HaveProto}
	echo := Header{ICMPType: 8, ICMPID: 0x1234, Have: haveEcho}
	tests := []struct {
		name string
		b    []byte
		want Packet
	}{
		{"RFC 792: IP header and 8 bytes", icmpv4(3, 10, "00000000", tcp4[:28]),
			Packet{errorWant(3, 10, 28), quoted(43, seq), true}},
		{"7 bytes of transport", icmpv4(3, 10, "00000000", tcp4[:27]), Packet{errorWant(3, 10, 27), quoted(43, ports), true}},
		{"3 bytes of transport", icmpv4(3, 10, "00000000", tcp4[:23]), Packet{errorWant(3, 10, 23), quoted(43, nothing), true}},
		{"IP header alone", icmpv4(3, 10, "00000000", tcp4[:20]), Packet{errorWant(3, 10, 20), quoted(43, nothing), true}},
		{"19 bytes of IP header", icmpv4(3, 10, "00000000", tcp4[:19]), Packet{Header: errorWant(3, 10, 19)}},
		{"nothing quoted", icmpv4(3, 10, "00000000"), Packet{Header: errorWant(3, 10, 0)}},
		{"quote of IPv6 in ICMP", icmpv4(3, 10, "00000000", long6), Packet{Header: errorWant(3, 10, 63)}},
		{"quote of IPv4 in ICMPv6", icmpv6(1, 1, "00000000", tcp4), Packet{Header: errorWant6(1, 1, 43)}},
		{"echo is no error", icmpv4(8, 0, "12340001", tcp4),
			Packet{Header: h4(ProtoICMP, 71, data(echo, 28, 43, 43))}},
		{"ICMP echo", icmpv4(11, 0, "00000000", echo4), Packet{errorWant(11, 0, 28), h4(ProtoICMP, 28, echo), true}},
		{"ICMP error, not followed", icmpv4(3, 1, "00000000", icmpv4(3, 10, "00000000", tcp4)),
			Packet{errorWant(3, 1, 71), data(errorWant(3, 10, 43), 56, 43, 43), true}},
		{"source quench", icmpv4(4, 0, "00000000", syn4), Packet{errorWant(4, 0, 40), quoted(40, syn), true}},
		{"padding behind a short packet", icmpv4(3, 13, "00200000", syn4, zeros(88)),
			Packet{errorWant(3, 13, 128), quoted(40, syn), true}},
		{"RFC 4884: extensions are no data", icmpv4(3, 13, "00200000", long4, zeros(85), extend),
			Packet{errorWant(3, 13, 140), quoted(1500, data(tcpWant, 68, 1460, 88)), true}},
		{"RFC 4884: length beyond the message", icmpv4(3, 13, "00ff0000", long4, zeros(85)),
			Packet{errorWant(3, 13, 128), quoted(1500, data(tcpWant, 68, 1460, 88)), true}},
		{"RFC 4884: length below 128 bytes", icmpv4(3, 13, "00080000", long4),
			Packet{errorWant(3, 13, 43), quoted(1500, data(tcpWant, 68, 1460, 3)), true}},
		{"redirect has a gateway, no length", icmpv4(5, 1, "c0200203", long4, zeros(99)),
			Packet{errorWant(5, 1, 142), quoted(1500, data(tcpWant, 68, 1460, 102)), true}},
		{"RFC 4884 in ICMPv6", icmpv6(1, 1, "10000000", long6, zeros(65), extend),
			Packet{errorWant6(1, 1, 140), h6(ProtoTCP, 1500, data(tcpWant, 108, 1440, 68)), true}},
		{"packet too big has an MTU, no length", icmpv6(2, 0, "10000500", long6, zeros(99)),
			Packet{errorWant6(2, 0, 162), h6(ProtoTCP, 1500, data(tcpWant, 108, 1440, 102)), true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.b, tt.want) })
	}
}

func TestPayload(t *testing.T) {
	b := icmpv4(3, 1, "00000000", v4(ProtoTCP, tcpData))
	p, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Quoted.Payload(b); string(got) != "hi\n" || cap(got) != 3 {
		t.Errorf("quoted payload %q, capacity %d", got, cap(got))
	}
	if got := p.Payload(b); len(got) != 43 || &got[0] != &b[28] {
		t.Errorf("payload %x is not the quoted packet", got)
	}
	if got := p.Quoted.Payload(b[:70]); got != nil {
		t.Errorf("payload %x of a shorter slice", got)
	}
	for _, h := range []Header{{}, {PayloadLen: -1}, {PayloadOff: -1, PayloadLen: 1}, {PayloadOff: 1 << 30, PayloadLen: 1 << 30}} {
		if got := h.Payload(b); got != nil {
			t.Errorf("%d+%d: payload %x", h.PayloadOff, h.PayloadLen, got)
		}
	}
}

// TestICMPError tries every type and code in both IP versions.
func TestICMPError(t *testing.T) {
	errs := map[bool][]uint8{false: {3, 4, 5, 11, 12}, true: {1, 2, 3, 4}}
	prohibited := map[bool][]uint8{false: {9, 10, 13}, true: {1, 5, 6}}
	unreach := map[bool]uint8{false: 3, true: 1}
	for i := range 1 << 17 {
		is6, typ, code := i>>16 != 0, uint8(i>>8), uint8(i)
		h := Header{Src: client4, ICMPType: typ, ICMPCode: code, Have: haveICMP}
		if is6 {
			h.Src = client6
		}
		if want := slices.Contains(errs[is6], typ); h.ICMPError() != want {
			t.Errorf("IPv6 %t %d/%d: ICMPError is not %t", is6, typ, code, want)
		}
		if want := typ == unreach[is6] && slices.Contains(prohibited[is6], code); h.Prohibited() != want {
			t.Errorf("IPv6 %t %d/%d: Prohibited is not %t", is6, typ, code, want)
		}
		h.Have = HaveProto
		if h.ICMPError() || h.Prohibited() {
			t.Fatalf("IPv6 %t %d/%d: an error without an ICMP header", is6, typ, code)
		}
	}
}
