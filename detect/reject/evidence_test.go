package reject

import (
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

func TestParsePrefix(t *testing.T) {
	for prefix, want := range map[string]State{
		"":                     StateUnknown,
		"new":                  New,
		"new ":                 New,
		"NEW: ":                New,
		"[fw] ct=Invalid drop": Invalid,
		"ct_state_established": Established,
		"related-refused":      Related,
		"untracked":            Untracked,
		"REJECT ":              StateUnknown,
		"newest ":              StateUnknown,
		"renew ":               StateUnknown,
		"unknown ":             StateUnknown,
		"invalid new":          Invalid, // the first word counts
		"IN-9-new":             New,
		"über new":             New,
		"\xff\xfe invalid":     Invalid,
	} {
		if got := ParsePrefix(prefix); got != want {
			t.Errorf("%q: %v, want %v", prefix, got, want)
		}
	}
}

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{
		StateUnknown: "unknown", New: "new", Established: "established", Related: "related",
		Invalid: "invalid", Untracked: "untracked", Untracked + 1: "unknown", 255: "unknown",
	} {
		if got := s.String(); got != want {
			t.Errorf("%d: %q, want %q", s, got, want)
		}
		if s != StateUnknown && s <= Untracked && ParsePrefix(want) != s {
			t.Errorf("%q is not read back", want)
		}
	}
}

func TestLookup(t *testing.T) {
	if got := Found(7); got.Value != 7 || got.Result != Present {
		t.Errorf("got %+v", got)
	}
	if got := NotFound[int](); got.Value != 0 || got.Result != Absent {
		t.Errorf("got %+v", got)
	}
	if (Lookup[int]{}).Result != NotLooked {
		t.Error("the zero Lookup was looked for")
	}
}

func TestPacketTuple(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tt := range []struct {
		header packet.Header
		want   conntrack.Tuple
	}{
		{packet.Header{Src: a, Dst: b, Proto: 6, SrcPort: 1, DstPort: 2, Seq: 3, Flags: packet.SYN, TTL: 64},
			conntrack.Tuple{Src: a, Dst: b, Proto: conntrack.ProtoTCP, SrcPort: 1, DstPort: 2}},
		{packet.Header{Src: a6, Dst: b6, Proto: 17, SrcPort: 53, DstPort: 1025},
			conntrack.Tuple{Src: a6, Dst: b6, Proto: conntrack.ProtoUDP, SrcPort: 53, DstPort: 1025}},
		{packet.Header{Src: a, Dst: b, Proto: 1, ICMPType: 8, ICMPID: 7},
			conntrack.Tuple{Src: a, Dst: b, Proto: conntrack.ProtoICMP, ICMPType: 8, ICMPID: 7}},
		{packet.Header{Src: a6, Dst: b6, Proto: 58, ICMPType: 128, ICMPCode: 1, ICMPID: 7},
			conntrack.Tuple{Src: a6, Dst: b6, Proto: conntrack.ProtoICMPv6, ICMPType: 128, ICMPCode: 1, ICMPID: 7}},
		{packet.Header{}, conntrack.Tuple{}},
	} {
		if got := PacketTuple(tt.header); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.header, got, tt.want)
		}
	}
}

func TestLeaves(t *testing.T) {
	for h, want := range map[nflog.Hook]bool{
		nflog.Prerouting: false, nflog.Input: false, nflog.Ingress: false,
		nflog.Forward: true, nflog.Output: true, nflog.Postrouting: true,
	} {
		if got := leaves(h); got != want {
			t.Errorf("%v: %t", h, got)
		}
	}
}

func TestUnreachablePort(t *testing.T) {
	for _, tt := range []struct {
		proto, typ, code uint8
		want             bool
	}{
		{packet.ProtoICMP, 3, 3, true}, {packet.ProtoICMP, 3, 4, false}, {packet.ProtoICMP, 1, 4, false},
		{packet.ProtoICMPv6, 1, 4, true}, {packet.ProtoICMPv6, 3, 3, false}, {packet.ProtoTCP, 3, 3, false},
	} {
		if got := unreachablePort(packet.Header{Proto: tt.proto, ICMPType: tt.typ, ICMPCode: tt.code}); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}
