package packet

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// contradiction names the first fact in part that is not in whole, where part
// was decoded from the first bytes of the same packet; "" if there is none.
func contradiction(part, whole Header) string {
	have := func(f Have) bool { return part.Have.Has(f) }
	switch {
	case !whole.Have.Has(part.Have):
		return "Have"
	case part.Src != whole.Src || part.Dst != whole.Dst:
		return "addresses"
	case part.TTL != whole.TTL || part.Length != whole.Length:
		return "TTL or Length"
	case have(HaveProto) && (part.Proto != whole.Proto || part.Fragment != whole.Fragment):
		return "Proto or Fragment"
	case part.Fragment && !whole.Fragment:
		return "Fragment"
	case have(HavePorts) && (part.SrcPort != whole.SrcPort || part.DstPort != whole.DstPort):
		return "ports"
	case have(HaveSeq) && part.Seq != whole.Seq:
		return "Seq"
	case have(HaveFlags) && (part.Ack != whole.Ack || part.Window != whole.Window || part.Flags != whole.Flags):
		return "Ack, Window or Flags"
	case have(HaveICMP) && (part.ICMPType != whole.ICMPType || part.ICMPCode != whole.ICMPCode):
		return "ICMPType or ICMPCode"
	case have(HaveICMPID) && part.ICMPID != whole.ICMPID:
		return "ICMPID"
	case part.DataLen >= 0 && part.DataLen != whole.DataLen:
		return "DataLen"
	case part.PayloadLen != 0 && (part.PayloadOff != whole.PayloadOff || part.PayloadLen > whole.PayloadLen):
		return "payload"
	}
	return ""
}

// flaw names what is wrong with a header decoded from size bytes.
func flaw(h Header, size int) string {
	switch {
	case !h.Src.IsValid() || !h.Dst.IsValid() || h.Src.BitLen() != h.Dst.BitLen() || h.Src.Zone() != "":
		return "addresses"
	case h.Fragment && h.Have&^HaveProto != 0:
		return "transport header in a later fragment"
	case !h.Have.Has(HavePorts) && (h.SrcPort != 0 || h.DstPort != 0),
		!h.Have.Has(HaveSeq) && h.Seq != 0,
		!h.Have.Has(HaveFlags) && (h.Ack != 0 || h.Window != 0 || h.Flags != 0),
		!h.Have.Has(HaveICMP) && (h.ICMPType != 0 || h.ICMPCode != 0),
		!h.Have.Has(HaveICMPID) && h.ICMPID != 0:
		return "a field without its bit"
	case h.DataLen < -1 || h.DataLen >= 0 && h.PayloadLen > h.DataLen:
		return "more captured than claimed"
	case h.PayloadLen < 0 || h.PayloadOff+h.PayloadLen > size || (h.PayloadOff == 0) != (h.PayloadLen == 0):
		return "payload"
	case h.String() == "":
		return "String"
	}
	return ""
}

// checkCut decodes b and its first n bytes and compares.
func checkCut(t *testing.T, b []byte, n int) {
	t.Helper()
	whole, err := Decode(b)
	if err != nil && whole != (Packet{}) {
		t.Fatalf("packet %s with error %v", plain(whole), err)
	}
	part, cutErr := Decode(b[:n])
	if cutErr != nil {
		return
	}
	if err != nil {
		t.Fatalf("%d of %d bytes decode, all do not: %v", n, len(b), err)
	}
	if what := contradiction(part.Header, whole.Header); what != "" {
		t.Fatalf("%d of %d bytes: %s\n%s\n%s", n, len(b), what, plain(part), plain(whole))
	}
	if !part.HasQuoted {
		return
	}
	if what := contradiction(part.Quoted, whole.Quoted); what != "" || !whole.HasQuoted {
		t.Fatalf("%d of %d bytes, quoted: %s\n%s\n%s", n, len(b), what, plain(part), plain(whole))
	}
}

// checkSane asserts what holds for every decoded packet.
func checkSane(t *testing.T, b []byte) {
	t.Helper()
	p, err := Decode(b)
	if err != nil {
		return
	}
	if what := flaw(p.Header, len(b)); what != "" {
		t.Fatalf("%s\n%s", what, plain(p))
	}
	switch {
	case p.HasQuoted && !p.ICMPError():
		t.Fatalf("quoted without an ICMP error\n%s", plain(p))
	case p.Prohibited() && !p.ICMPError():
		t.Fatalf("prohibited without an ICMP error\n%s", plain(p))
	case !p.HasQuoted && p.Quoted != (Header{}):
		t.Fatalf("quoted, but not said\n%s", plain(p))
	case !p.HasQuoted:
		return
	}
	if what := flaw(p.Quoted, p.PayloadOff+p.PayloadLen); what != "" {
		t.Fatalf("quoted: %s\n%s", what, plain(p))
	}
	if q := p.Quoted; q.PayloadLen != 0 && q.PayloadOff < p.PayloadOff+ipv4HeaderLen {
		t.Fatalf("quoted payload before the quoted header\n%s", plain(p))
	}
}

// TestCut cuts every captured packet everywhere.
func TestCut(t *testing.T) {
	for _, name := range fixture.Names(t, captures) {
		b := capture(t, name)
		for n := range len(b) + 1 {
			checkCut(t, b, n)
			checkSane(t, b[:n])
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range fixture.Names(f, captures) {
		b := capture(f, name)
		f.Add(b, uint16(len(b)/2))
	}
	f.Add(v6(extHopByHop, raw("2c 00 0104 00000000"), raw("33 00 0001 00000001"),
		raw("06 01 0000 00000001 00000001"), tcpData), uint16(60))
	f.Add(icmpv4(3, 13, "00200000", with(v4(ProtoTCP, tcpData), 2, 5, 0xdc), zeros(85), zeros(12)), uint16(150))
	f.Add(icmpv6(1, 1, "10000000", v6(ProtoUDP, udpData), zeros(77), zeros(12)), uint16(150))
	f.Add(v4(ProtoDCCP, raw("d4e8 0035 04 00 0000 00000000 00000001 6869")), uint16(30))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		checkCut(t, b, min(int(n), len(b)))
		checkSane(t, b)
	})
}
