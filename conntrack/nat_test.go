package conntrack

import (
	"net/netip"
	"testing"
)

// TestNAT reads the two ends of a flow off its tuples.
func TestNAT(t *testing.T) {
	none := netip.AddrPort{}
	at := netip.MustParseAddrPort
	icmp := func(src, dst string, id uint16, typ uint8) Tuple {
		u := tuple(ProtoICMP, src+":0", dst+":0")
		u.ICMPID, u.ICMPType = id, typ
		return u
	}
	for name, tt := range map[string]struct {
		original, reply     Tuple
		srcFrom, srcTo      netip.AddrPort
		dstFrom, dstTo      netip.AddrPort
		source, destination bool
	}{
		"none": {original: tupleTCP, reply: tupleTCP.Invert()},
		"source": {original: tuple(ProtoUDP, "10.0.0.1:1000", "192.0.2.1:53"), reply: tuple(ProtoUDP, "192.0.2.1:53", "198.51.100.1:2000"),
			source: true, srcFrom: at("10.0.0.1:1000"), srcTo: at("198.51.100.1:2000")},
		"port only": {original: tuple(ProtoTCP, "10.0.0.1:1000", "192.0.2.1:53"), reply: tuple(ProtoTCP, "192.0.2.1:53", "10.0.0.1:1001"),
			source: true, srcFrom: at("10.0.0.1:1000"), srcTo: at("10.0.0.1:1001")},
		"destination": {original: tuple(ProtoTCP, "[fd00::1]:1000", "[fd00::2]:80"), reply: tuple(ProtoTCP, "[fd00::3]:8080", "[fd00::1]:1000"),
			destination: true, dstFrom: at("[fd00::2]:80"), dstTo: at("[fd00::3]:8080")},
		"redirect": {original: tuple(ProtoTCP, "10.0.0.1:1000", "192.0.2.1:80"), reply: tuple(ProtoTCP, "192.0.2.1:3128", "10.0.0.1:1000"),
			destination: true, dstFrom: at("192.0.2.1:80"), dstTo: at("192.0.2.1:3128")},
		"both": {original: tuple(ProtoTCP, "10.0.0.1:1000", "192.0.2.1:80"), reply: tuple(ProtoTCP, "10.0.0.9:8080", "10.0.0.8:4000"),
			source: true, srcFrom: at("10.0.0.1:1000"), srcTo: at("10.0.0.8:4000"),
			destination: true, dstFrom: at("192.0.2.1:80"), dstTo: at("10.0.0.9:8080")},
		"ICMP id": {original: icmp("10.0.0.1", "192.0.2.1", 7, 8), reply: icmp("192.0.2.1", "198.51.100.1", 9, 0),
			source: true, srcFrom: at("10.0.0.1:7"), srcTo: at("198.51.100.1:9")},
		"ICMP destination": {original: icmp("10.0.0.1", "192.0.2.1", 7, 8), reply: icmp("192.0.2.9", "10.0.0.1", 7, 0),
			destination: true, dstFrom: at("192.0.2.1:0"), dstTo: at("192.0.2.9:0")},
		"no ports": {original: tuple(112, "10.0.0.1:0", "192.0.2.1:0"), reply: tuple(112, "192.0.2.1:0", "198.51.100.1:0"),
			source: true, srcFrom: at("10.0.0.1:0"), srcTo: at("198.51.100.1:0")},
	} {
		f := Flow{Original: tt.original, Reply: tt.reply}
		src, ok := f.SourceNAT()
		if ok != tt.source || ok && (src != Translation{tt.srcFrom, tt.srcTo}) || !ok && src.From != src.To {
			t.Errorf("%s: source %v, %v", name, src, ok)
		}
		dst, ok := f.DestinationNAT()
		if ok != tt.destination || ok && (dst != Translation{tt.dstFrom, tt.dstTo}) || !ok && dst.From != dst.To {
			t.Errorf("%s: destination %v, %v", name, dst, ok)
		}
		if f.Translated() != (tt.source || tt.destination) || src.From == none {
			t.Errorf("%s: Translated is %v", name, f.Translated())
		}
	}
	if s := (Translation{at("10.0.0.1:1"), at("[::1]:2")}).String(); s != "10.0.0.1:1 -> [::1]:2" {
		t.Errorf("got %s", s)
	}
}
