package packet

import (
	"errors"
	"net/netip"
	"testing"
)

// check decodes b, compares, and asserts that nothing was allocated.
func check(t *testing.T, b []byte, want Packet) {
	t.Helper()
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", plain(got), plain(want))
	}
	var sink Packet
	if n := testing.AllocsPerRun(100, func() { sink, _ = Decode(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	_ = sink
}

func TestDecodeIPv4(t *testing.T) {
	noTransport := Header{DataLen: -1, Have: HaveProto}
	ports := Header{SrcPort: 54504, DstPort: 443, DataLen: -1, Have: havePorts}
	seq := Header{SrcPort: 54504, DstPort: 443, Seq: 0x11223344, DataLen: -1, Have: havePorts | HaveSeq}
	options := with(v4(ProtoTCP, zeros(4), tcpData), 0, 0x46)
	tests := []struct {
		name string
		b    []byte
		want Header
	}{
		{"plain", v4(ProtoTCP, tcpData), h4(ProtoTCP, 43, data(tcpWant, 40, 3, 3))},
		{"options", options, h4(ProtoTCP, 47, data(tcpWant, 44, 3, 3))},
		{"options cut", options[:22], h4(ProtoTCP, 47, noTransport)},
		{"IHL 4", with(v4(ProtoTCP, tcpData), 0, 0x44), h4(ProtoTCP, 43, noTransport)},
		{"padding after the total length", append(v4(ProtoTCP, tcpData), 0, 0, 0), h4(ProtoTCP, 43, data(tcpWant, 40, 3, 3))},
		{"total length 0", with(v4(ProtoTCP, tcpData), 2, 0, 0), h4(ProtoTCP, 0, data(tcpWant, 40, -1, 3))},
		{"total length within the IP header", with(v4(ProtoTCP, tcpData), 2, 0, 19), h4(ProtoTCP, 19, noTransport)},
		{"total length without transport", with(v4(ProtoTCP, tcpData), 2, 0, 20), h4(ProtoTCP, 20, noTransport)},
		{"total length within the transport header", with(v4(ProtoTCP, tcpData), 2, 0, 24), h4(ProtoTCP, 24, ports)},
		{"captured 3 bytes of transport", v4(ProtoTCP, tcpData)[:23], h4(ProtoTCP, 43, noTransport)},
		{"captured the ports", v4(ProtoTCP, tcpData)[:27], h4(ProtoTCP, 43, ports)},
		{"captured the sequence number", v4(ProtoTCP, tcpData)[:35], h4(ProtoTCP, 43, seq)},
		{"captured up to the window", v4(ProtoTCP, tcpData)[:36], h4(ProtoTCP, 43, data(tcpWant, 0, 3, 0))},
		{"captured 1 byte of data", v4(ProtoTCP, tcpData)[:41], h4(ProtoTCP, 43, data(tcpWant, 40, 3, 1))},
		{"data offset 4", with(v4(ProtoTCP, tcpData), 32, 0x40), h4(ProtoTCP, 43, tcpWant)},
		{"data offset beyond the claimed length", with(v4(ProtoTCP, tcpData), 32, 0xf0), h4(ProtoTCP, 43, tcpWant)},
		{"data offset beyond the captured bytes", with(with(v4(ProtoTCP, tcpData), 2, 0, 90), 32, 0xf0),
			h4(ProtoTCP, 90, data(tcpWant, 0, 10, 0))},
		{"first fragment", with(v4(ProtoTCP, tcpData), 6, 0x20, 0), h4(ProtoTCP, 43, data(tcpWant, 40, 3, 3))},
		{"later fragment", with(v4(ProtoTCP, tcpData), 6, 0x20, 1),
			h4(ProtoTCP, 43, Header{Fragment: true, DataLen: -1, Have: HaveProto})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.b, Packet{Header: tt.want}) })
	}
}

func TestDecodeIPv6(t *testing.T) {
	var (
		hop      = raw("2b 00 0104 00000000")                    // next: routing
		routing  = raw("3c 02 0401 00000000" + "fd01" + zeros14) // next: destination options
		dest     = raw("33 00 0104 00000000")                    // next: AH
		auth     = raw("2c 04 0000 00000001 00000001" + "000000000000000000000000")
		first    = raw("06 00 0001 00000001") // next: TCP, offset 0, more follow
		later    = raw("06 00 0009 00000001") // offset 8
		laterExt = raw("3c 00 0009 00000001") // continues in destination options
		destTCP  = raw("06 00 0104 00000000")
		destLong = raw("06 10 0104 00000000") // 136 bytes, of which 8 are there
	)
	chain := v6(extHopByHop, hop, routing, dest, auth, first, tcpData)
	nothing := Header{DataLen: -1}
	proto := Header{DataLen: -1, Have: HaveProto}
	mapped := with(v6(ProtoTCP, tcpData), 8, raw("00000000000000000000ffffc0000202")...)
	mappedWant := h6(ProtoTCP, 63, data(tcpWant, 60, 3, 3))
	mappedWant.Src = netip.MustParseAddr("::ffff:192.0.2.2")
	tests := []struct {
		name string
		b    []byte
		want Header
	}{
		{"plain", v6(ProtoTCP, tcpData), h6(ProtoTCP, 63, data(tcpWant, 60, 3, 3))},
		{"padding after the payload length", append(v6(ProtoTCP, tcpData), 0), h6(ProtoTCP, 63, data(tcpWant, 60, 3, 3))},
		{"IPv4-mapped address", mapped, mappedWant},
		{"all extension headers", chain, h6(ProtoTCP, 135, data(tcpWant, 132, 3, 3))},
		{"cut before the first extension header", chain[:41], h6(extHopByHop, 135, nothing)},
		{"cut within the fragment header", chain[:111], h6(extFragment, 135, nothing)},
		{"cut after the extension headers", chain[:112], h6(ProtoTCP, 135, proto)},
		{"extension header longer than the packet", v6(extDestination, destLong), h6(ProtoTCP, 48, proto)},
		{"payload length within the extension headers", with(chain, 4, 0, 9), h6(extRouting, 49, nothing)},
		{"payload length 0", with(v6(ProtoTCP, tcpData), 4, 0, 0), h6(ProtoTCP, 0, data(tcpWant, 60, -1, 3))},
		{"later fragment", v6(extFragment, later, tcpData),
			h6(ProtoTCP, 71, Header{Fragment: true, DataLen: -1, Have: HaveProto})},
		{"later fragment of extension headers", v6(extFragment, laterExt, destTCP, tcpData),
			h6(extDestination, 79, Header{Fragment: true, DataLen: -1})},
		{"no next header", v6(59, tcpData), h6(59, 63, proto)},
		{"ESP", v6(50, tcpData), h6(50, 63, proto)},
		{"ICMP of IPv4", v6(ProtoICMP, raw("0800 0000 0001 0001")), h6(ProtoICMP, 48, proto)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.b, Packet{Header: tt.want}) })
	}
}

const zeros14 = "0000000000000000000000000000"

func TestDecodeTransport(t *testing.T) {
	proto := Header{DataLen: -1, Have: HaveProto}
	ports := Header{SrcPort: 54504, DstPort: 53, DataLen: -1, Have: havePorts}
	echo := Header{ICMPType: 8, ICMPID: 0x1234, DataLen: -1, Have: haveEcho}
	stamp := Header{ICMPType: 13, ICMPID: 0x1234, DataLen: -1, Have: haveEcho}
	tests := []struct {
		name string
		b    []byte
		want Header
	}{
		{"UDP", v4(ProtoUDP, udpData), h4(ProtoUDP, 31, data(ports, 28, 3, 3))},
		{"UDP cut after the ports", v4(ProtoUDP, udpData)[:27], h4(ProtoUDP, 31, ports)},
		{"UDP with options behind its length", v4(ProtoUDP, udpData, zeros(9)), h4(ProtoUDP, 40, data(ports, 28, 3, 3))},
		{"UDP longer than the packet", with(v4(ProtoUDP, udpData), 24, 5, 0xdc), h4(ProtoUDP, 31, data(ports, 28, 3, 3))},
		{"UDP without data, padded", with(v4(ProtoUDP, udpData), 24, 0, 8), h4(ProtoUDP, 31, data(ports, 0, 0, 0))},
		{"UDP length below 8", with(v4(ProtoUDP, udpData), 24, 0, 7), h4(ProtoUDP, 31, ports)},
		{"UDP length 0", with(v4(ProtoUDP, udpData), 24, 0, 0), h4(ProtoUDP, 31, data(ports, 28, 3, 3))},
		{"UDP with a length in an IP packet without", with(v4(ProtoUDP, udpData, zeros(9)), 2, 0, 0), h4(ProtoUDP, 0, data(ports, 28, 3, 3))},
		{"UDP jumbogram", with(v6(ProtoUDP, with(udpData, 4, 0, 0)), 4, 0, 0), h6(ProtoUDP, 0, data(ports, 48, -1, 3))},
		{"UDPlite, checksum coverage 8", v4(ProtoUDPLite, with(udpData, 5, 8)), h4(ProtoUDPLite, 31, data(ports, 28, 3, 3))},
		{"SCTP", v4(ProtoSCTP, raw("d4e8 0035 00000001 00000000 03 00 0010")), h4(ProtoSCTP, 36, data(ports, 32, 4, 4))},
		{"DCCP", v4(ProtoDCCP, raw("d4e8 0035 04 00 0000 00000000 00000001 6869")), h4(ProtoDCCP, 38, data(ports, 36, 2, 2))},
		{"DCCP data offset 2", v4(ProtoDCCP, raw("d4e8 0035 02 00 0000 00000000")), h4(ProtoDCCP, 32, ports)},
		{"DCCP cut after the ports", v4(ProtoDCCP, raw("d4e8 0035")), h4(ProtoDCCP, 24, ports)},
		{"GRE", v4(47, raw("0000 0800"), v4(ProtoTCP, tcpData)), h4(47, 67, proto)},
		{"ICMP echo", v4(ProtoICMP, raw("0800 0000 1234 0001 6869")), h4(ProtoICMP, 30, data(echo, 28, 2, 2))},
		{"ICMP timestamp", v4(ProtoICMP, raw("0d00 0000 1234 0001"), zeros(12)), h4(ProtoICMP, 40, data(stamp, 28, 12, 12))},
		{"ICMP cut after the code", v4(ProtoICMP, raw("0800 0000 1234 0001"))[:22],
			h4(ProtoICMP, 28, Header{ICMPType: 8, Have: haveICMP})},
		{"ICMP cut after the type", v4(ProtoICMP, raw("0800 0000 1234 0001"))[:21], h4(ProtoICMP, 28, proto)},
		{"ICMPv6 neighbor solicitation", v6(ProtoICMPv6, raw("8700 0000 12340000"), zeros(16)),
			h6(ProtoICMPv6, 64, data(Header{ICMPType: 135, Have: haveICMP}, 48, 16, 16))},
		{"ICMPv6 in IPv4", v4(ProtoICMPv6, raw("8000 0000 1234 0001")), h4(ProtoICMPv6, 28, proto)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.b, Packet{Header: tt.want}) })
	}
}

func TestDecodeError(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want Error
		text string
	}{
		{"nil", nil, Error{"no IP header", 0}, "packet: no IP header at offset 0"},
		{"empty", []byte{}, Error{"no IP header", 0}, "packet: no IP header at offset 0"},
		{"version 5", with(v4(ProtoTCP, tcpData), 0, 0x55), Error{"IP version neither 4 nor 6", 0},
			"packet: IP version neither 4 nor 6 at offset 0"},
		{"first byte of IPv4", []byte{0x45}, Error{"IPv4 header cut short", 1}, "packet: IPv4 header cut short at offset 1"},
		{"19 bytes of IPv4", v4(ProtoTCP)[:19], Error{"IPv4 header cut short", 19}, "packet: IPv4 header cut short at offset 19"},
		{"39 bytes of IPv6", v6(ProtoTCP)[:39], Error{"IPv6 header cut short", 39}, "packet: IPv6 header cut short at offset 39"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Decode(tt.b)
			var e *Error
			if !errors.As(err, &e) || *e != tt.want || err.Error() != tt.text {
				t.Errorf("error %v, want %s", err, tt.text)
			}
			if p != (Packet{}) {
				t.Errorf("packet %s with an error", plain(p))
			}
			if n := testing.AllocsPerRun(100, func() { _, err = Decode(tt.b) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
