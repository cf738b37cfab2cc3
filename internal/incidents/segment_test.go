package incidents

import (
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// TestSegment has the decoder read what is made by hand. That the checksums are
// right is shown by the scenarios: the kernel calls no other than the damaged
// one damaged.
func TestSegment(t *testing.T) {
	for _, ends := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		s := segment{
			Tuple: conntrack.Tuple{Src: netip.MustParseAddr(ends[0]), Dst: netip.MustParseAddr(ends[1]), SrcPort: 1000, DstPort: 443,
				Proto: conntrack.ProtoTCP},
			seq: 0xdeadbeef, ack: 0x01020304, flags: packet.PSH | packet.ACK, data: "odd",
		}
		b := s.bytes()
		p, err := packet.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if p.Src != s.Src || p.Dst != s.Dst || p.SrcPort != 1000 || p.DstPort != 443 || p.Seq != s.seq || p.Ack != s.ack ||
			p.Flags != s.flags || string(p.Payload(b)) != s.data || p.TTL != hops {
			t.Errorf("%+v, of %+v", p.Header, s)
		}
	}
}

// TestChecksum has the example of RFC 1071, section 3.
func TestChecksum(t *testing.T) {
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("%#x", got)
	}
}
