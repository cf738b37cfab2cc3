package conntrack

import (
	"math"
	"net/netip"
	"testing"
	"time"
)

// matchFlow has something of everything, translated both ways.
func matchFlow() Flow {
	f := Flow{
		Original: tuple(ProtoTCP, "10.0.0.1:40000", "203.0.113.1:443"),
		Reply:    tuple(ProtoTCP, "10.9.0.3:8443", "192.0.2.1:1024"),
		Zone:     7, Status: SeenReply | Assured | Confirmed, Mark: 0x105, ID: 11, Timeout: 90 * time.Second,
		TCP:             TCPInfo{State: TCPEstablished},
		OriginalCounter: Counter{10, 1000}, ReplyCounter: Counter{5, 500},
		Fields: FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldID | FieldCounters | FieldZone,
	}
	return f.WithDetails(Details{Labels: LabelSet(1, 127), Helper: "ftp"})
}

// TestMatchParts gives each part of a filter a value that the flow has, and
// one that it has not.
func TestMatchParts(t *testing.T) {
	flow := matchFlow()
	p := netip.MustParsePrefix
	tests := map[string]struct{ yes, no []Filter }{
		"ReplySrc": {[]Filter{{ReplySrc: p("10.9.0.0/16")}}, []Filter{{ReplySrc: p("10.0.0.0/16")}}},
		"ReplyDst": {[]Filter{{ReplyDst: p("192.0.2.1/32")}}, []Filter{{ReplyDst: p("192.0.2.2/32")}}},
		"Addr": {[]Filter{{Addr: p("10.0.0.1/32")}, {Addr: p("203.0.113.0/24")}, {Addr: p("10.9.0.3/32")}, {Addr: p("192.0.2.1/32")}},
			[]Filter{{Addr: p("10.0.0.2/32")}, {Addr: p("::/0")}, {Addr: netip.PrefixFrom(flow.Original.Src, 33)}}},
		"Port": {[]Filter{{Port: PortRange{40000, 0}}, {Port: PortRange{443, 443}}, {Port: PortRange{8443, 8444}}, {Port: PortRange{0, 1024}}},
			[]Filter{{Port: PortRange{444, 1023}}, {Port: PortRange{50000, 40000}}}},
		"SrcPort":      {[]Filter{{SrcPort: PortRange{40000, 0}}}, []Filter{{SrcPort: PortRange{443, 0}}}},
		"DstPort":      {[]Filter{{DstPort: PortRange{1, 443}}}, []Filter{{DstPort: PortRange{1, 442}}, {DstPort: PortRange{444, 65535}}}},
		"ReplySrcPort": {[]Filter{{ReplySrcPort: PortRange{8443, 65535}}}, []Filter{{ReplySrcPort: PortRange{443, 0}}}},
		"ReplyDstPort": {[]Filter{{ReplyDstPort: PortRange{1024, 1024}}}, []Filter{{ReplyDstPort: PortRange{40000, 0}}}},
		"ICMP":         {nil, []Filter{{ICMPType: 8}, {ICMPCode: 1}, {ICMPID: 99}}},
		"states":       {[]Filter{{TCPStates: TCPStateSet(TCPEstablished, TCPClose)}}, []Filter{{SCTPStates: SCTPStateSet(SCTPEstablished)}}},
		"Mark": {[]Filter{{Mark: 0x105}, {Mark: 0x5, MarkMask: 0xff}, {Mark: 0, MarkMask: 0xf0}},
			[]Filter{{Mark: 5}, {MarkMask: math.MaxUint32}, {Mark: 0x105, MarkMask: 0xff}}},
		"Zone": {[]Filter{{Zone: 7}, {Zone: 7, InZone: true}}, []Filter{{InZone: true}, {Zone: 8}, {OriginalZone: 7}, {ReplyZone: 7}}},
		"Labels": {[]Filter{{Labels: LabelSet(1)}, {Labels: LabelSet(1, 127)}},
			[]Filter{{Labels: LabelSet(2)}, {Labels: LabelSet(1, 2)}}},
		"Timeout": {[]Filter{{MinTimeout: 90 * time.Second}, {MaxTimeout: 90 * time.Second}},
			[]Filter{{MinTimeout: 91 * time.Second}, {MaxTimeout: 89 * time.Second}, {MaxTimeout: -time.Second}}},
		"Packets": {[]Filter{{MinPackets: 15}, {MaxPackets: 15}}, []Filter{{MinPackets: 16}, {MaxPackets: 14}}},
		"Bytes":   {[]Filter{{MinBytes: 1500}, {MaxBytes: 1500}}, []Filter{{MinBytes: 1501}, {MaxBytes: 1499}}},
		"NAT": {[]Filter{{Translated: true}, {SourceNAT: true}, {DestinationNAT: true}, {SourceNATTo: p("192.0.2.0/24")},
			{DestinationNATTo: p("10.9.0.0/16")}, {TranslatedTo: p("192.0.2.1/32")}, {TranslatedTo: p("10.9.0.3/32")}},
			[]Filter{{SourceNATTo: p("10.9.0.0/16")}, {DestinationNATTo: p("192.0.2.0/24")}, {TranslatedTo: p("203.0.113.1/32")}}},
		"Helper": {[]Filter{{Helper: "ftp"}}, []Filter{{Helper: "ft"}}},
		"ID":     {[]Filter{{ID: 11}}, []Filter{{ID: 12}}},
		"mapped": {[]Filter{{Src: p("::ffff:10.0.0.0/104")}, {Src: p("::ffff:10.0.0.1/128"), IPv4Only: true}, {Addr: p("::ffff:0.0.0.0/96")}},
			[]Filter{{Src: p("::ffff:11.0.0.0/104")}, {Src: p("::/64")}, {Src: p("::/0")}, {Src: p("::ffff:10.0.0.1/128"), IPv6Only: true}}},
	}
	for name, tt := range tests {
		for want, filters := range map[bool][]Filter{true: tt.yes, false: tt.no} {
			for _, f := range filters {
				if f.Match(&flow) != want {
					t.Errorf("%s: %v: not %v", name, f, want)
				}
			}
		}
	}
}

// TestMatchAbsent asks flows for values they lack, as zero as they would be.
func TestMatchAbsent(t *testing.T) {
	icmp, other, bare := Flow{Original: tupleEcho}, entry(tuple(112, "10.0.0.1:0", "224.0.0.18:0")), Flow{}
	icmp.Reply = icmp.Original.Invert()
	tests := []struct {
		filter Filter
		flow   Flow
	}{
		{Filter{SrcPort: PortRange{0, 1023}}, icmp},
		{Filter{Port: PortRange{0, 65535}}, icmp},
		{Filter{DstPort: PortRange{0, 65535}}, other},
		{Filter{MaxTimeout: time.Hour}, bare},
		{Filter{MaxPackets: 1}, bare},
		{Filter{MaxBytes: 1}, bare},
		{Filter{SCTPStates: SCTPStateSet(SCTPNone)}, bare},
		{Filter{Translated: true}, icmp},
		{Filter{SourceNAT: true}, icmp},
		{Filter{SourceNATTo: netip.MustParsePrefix("0.0.0.0/0")}, icmp},
		{Filter{DestinationNATTo: netip.MustParsePrefix("0.0.0.0/0")}, icmp},
		{Filter{TranslatedTo: netip.MustParsePrefix("0.0.0.0/0")}, icmp},
		{Filter{Addr: netip.MustParsePrefix("0.0.0.0/0")}, bare},
	}
	for _, tt := range tests {
		if tt.filter.Match(&tt.flow) {
			t.Errorf("%v matches %v", tt.filter, tt.flow)
		}
	}
	for _, f := range []Filter{{ICMPType: 8, ICMPID: 99}, {MarkMask: math.MaxUint32}, {InZone: true}} {
		if !f.Match(&icmp) {
			t.Errorf("%v does not match %v", f, icmp)
		}
	}
	redirected := entry(tuple(ProtoTCP, "10.0.0.1:40000", "10.0.0.2:80"))
	redirected.Reply.SrcPort = 8080
	if f := (Filter{DestinationNATTo: netip.MustParsePrefix("10.0.0.2/32")}); f.Match(&redirected) {
		t.Errorf("%v matches %v", f, redirected)
	}
	sctp := entry(tuple(ProtoSCTP, "10.0.0.1:1", "10.0.0.2:2")).WithDetails(Details{SCTP: SCTPInfo{State: SCTPCookieWait}})
	if f := (Filter{SCTPStates: SCTPStateSet(SCTPCookieWait)}); !f.Match(&sctp) {
		t.Errorf("%v does not match", f)
	}
	full := Flow{Fields: FieldCounters, OriginalCounter: Counter{math.MaxUint64, 1}, ReplyCounter: Counter{2, math.MaxUint64}}
	if f := (Filter{MinPackets: math.MaxUint64, MinBytes: math.MaxUint64}); !f.Match(&full) {
		t.Error("a sum goes round")
	}
}

// TestMatchZones tells the zone of an entry whatever its directions.
func TestMatchZones(t *testing.T) {
	none, both, original, reply := zoned()
	for name, tt := range map[string]struct {
		filter Filter
		want   string // of none, both (7), original (9), reply (11)
	}{
		"default":    {Filter{InZone: true}, "ynnn"},
		"both":       {Filter{Zone: 7}, "nynn"},
		"original":   {Filter{Zone: 9}, "nnyn"},
		"reply":      {Filter{Zone: 11}, "nnny"},
		"orig-zone":  {Filter{OriginalZone: 9}, "nnyn"},
		"reply-zone": {Filter{ReplyZone: 11}, "nnny"},
	} {
		var got []byte
		for _, f := range []Flow{none, both, original, reply} {
			got = append(got, map[bool]byte{true: 'y', false: 'n'}[tt.filter.Match(&f)])
		}
		if string(got) != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

// everyPart asks for all that matchFlow has.
func everyPart() Filter {
	p := netip.MustParsePrefix
	return Filter{
		IPv4Only: true, Proto: ProtoTCP, Src: p("10.0.0.0/8"), Dst: p("203.0.113.1/32"), ReplySrc: p("::ffff:10.9.0.0/112"), ReplyDst: p("192.0.2.1/32"),
		SrcPort: PortRange{40000, 0}, DstPort: PortRange{1, 500}, ReplySrcPort: PortRange{8443, 8443}, ReplyDstPort: PortRange{1, 2000},
		Addr: p("192.0.2.0/24"), Port: PortRange{1024, 0}, TCPStates: TCPStateSet(TCPEstablished),
		StatusSet: Assured, StatusUnset: Dying, Mark: 5, MarkMask: 0xff, Zone: 7, Labels: LabelSet(127),
		MinTimeout: time.Second, MaxTimeout: time.Hour, MinPackets: 1, MaxPackets: 100, MinBytes: 1, MaxBytes: 10000,
		Translated: true, SourceNAT: true, DestinationNAT: true, TranslatedTo: p("192.0.2.1/32"),
		SourceNATTo: p("192.0.2.0/24"), DestinationNATTo: p("10.9.0.3/32"), Helper: "ftp", ID: 11,
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	flow, every := matchFlow(), everyPart()
	if !every.Match(&flow) {
		t.Fatalf("%v does not match", every)
	}
	for _, f := range []*Filter{nil, {}, &every} {
		if n := testing.AllocsPerRun(100, func() { f.Match(&flow) }); n != 0 {
			t.Errorf("%v: %v allocations", f, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	flow, every := matchFlow(), everyPart()
	for name, f := range map[string]*Filter{"nil": nil, "zero": {}, "status": {StatusSet: Assured}, "every": &every} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !f.Match(&flow) {
					b.Fatal("does not match")
				}
			}
		})
	}
}
