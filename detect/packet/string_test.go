package packet

import "testing"

func TestString(t *testing.T) {
	tests := []struct {
		name, want string
		b          []byte
	}{
		{"TCP", "192.0.2.2:54504 > 192.0.2.1:443 TCP PSH|ACK", v4(ProtoTCP, tcpData)},
		{"TCP without flags", "192.0.2.2:54504 > 192.0.2.1:443 TCP none", with(v4(ProtoTCP, tcpData), 33, 0)},
		{"TCP cut before the flags", "192.0.2.2:54504 > 192.0.2.1:443 TCP", v4(ProtoTCP, tcpData[:8])},
		{"TCP cut before the ports", "192.0.2.2 > 192.0.2.1 TCP", v4(ProtoTCP)},
		{"TCP in IPv6", "[fd00::2]:54504 > [fd00::1]:443 TCP SYN", v6(ProtoTCP, tcpSYN)},
		{"UDP", "192.0.2.2:54504 > 192.0.2.1:53 UDP", v4(ProtoUDP, udpData)},
		{"UDPlite", "192.0.2.2:54504 > 192.0.2.1:53 UDPlite", v4(ProtoUDPLite, udpData)},
		{"SCTP", "192.0.2.2:54504 > 192.0.2.1:53 SCTP", v4(ProtoSCTP, udpData)},
		{"DCCP", "192.0.2.2:54504 > 192.0.2.1:53 DCCP", v4(ProtoDCCP, udpData)},
		{"GRE", "192.0.2.2 > 192.0.2.1 proto 47", v4(47, udpData)},
		{"fragment", "192.0.2.2 > 192.0.2.1 UDP fragment", with(v4(ProtoUDP, udpData), 7, 1)},
		{"extension headers cut", "fd00::2 > fd00::1 proto ?", v6(extHopByHop)},
		{"ICMP echo", "192.0.2.2 > 192.0.2.1 ICMP 8/0", icmpv4(8, 0, "00010001")},
		{"ICMP error", "192.0.2.2 > 192.0.2.1 ICMP 3/10 host administratively prohibited" +
			" (192.0.2.2:54504 > 192.0.2.1:443 TCP SYN)", icmpv4(3, 10, "00000000", v4(ProtoTCP, tcpSYN))},
		{"ICMPv6 error that quotes nothing", "fd00::2 > fd00::1 ICMPv6 1/1 communication with destination" +
			" administratively prohibited", icmpv6(1, 1, "00000000")},
		{"nothing", "no packet", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := Decode(tt.b)
			if got := p.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	var h Header
	if got := h.String(); got != "no packet" {
		t.Errorf("zero Header: %s", got)
	}
}

func TestBits(t *testing.T) {
	flags := map[TCPFlags]string{
		0:               "none",
		SYN | ACK:       "SYN|ACK",
		SYN | ECE | CWR: "SYN|ECE|CWR",
		0xff:            "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR",
	}
	for f, want := range flags {
		if got := f.String(); got != want {
			t.Errorf("%#x: got %s, want %s", uint8(f), got, want)
		}
	}
	if !(SYN | ACK).Has(SYN) || SYN.Has(SYN|ACK) {
		t.Error("TCPFlags.Has")
	}
	if got := (haveTCP | haveEcho).String(); got != "proto|ports|seq|flags|icmp|icmpid" {
		t.Error(got)
	}
	if got := Have(0).String(); got != "none" {
		t.Error(got)
	}
}

func TestICMPName(t *testing.T) {
	tests := []struct {
		v6        bool
		typ, code uint8
		want      string
	}{
		{false, 3, 0, "network unreachable"},
		{false, 3, 3, "port unreachable"},
		{false, 3, 9, "network administratively prohibited"},
		{false, 3, 10, "host administratively prohibited"},
		{false, 3, 13, "communication administratively filtered"},
		{false, 3, 15, "precedence cutoff in effect"},
		{false, 3, 16, "destination unreachable code 16"},
		{false, 0, 0, "echo reply"},
		{false, 8, 1, "echo request code 1"},
		{false, 11, 1, "fragment reassembly time exceeded"},
		{false, 1, 1, "type 1 code 1"},
		{false, 99, 0, "type 99 code 0"},
		{true, 1, 1, "communication with destination administratively prohibited"},
		{true, 1, 5, "source address failed ingress/egress policy"},
		{true, 1, 6, "reject route to destination"},
		{true, 2, 0, "packet too big"},
		{true, 3, 0, "hop limit exceeded in transit"},
		{true, 4, 1, "unrecognized next header type encountered"},
		{true, 4, 200, "parameter problem code 200"},
		{true, 128, 0, "echo request"},
		{true, 255, 255, "type 255 code 255"},
	}
	for _, tt := range tests {
		if got := ICMPName(tt.v6, tt.typ, tt.code); got != tt.want {
			t.Errorf("ICMPName(%t, %d, %d) is %q, want %q", tt.v6, tt.typ, tt.code, got, tt.want)
		}
	}
	for i := range 1 << 17 {
		if ICMPName(i>>16 != 0, uint8(i>>8), uint8(i)) == "" {
			t.Fatalf("%#x has no name", i)
		}
	}
}
