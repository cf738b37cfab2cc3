package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

var deltaTime = regexp.MustCompile(` delta-time=\d+`)

// captured returns what conntrack(8) printed of a fixture, which the last
// comment line of the file holds. The age it adds is not in the message.
func captured(t testing.TB, name string) string {
	text, err := os.ReadFile("testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	i := strings.LastIndex(string(text), "# ")
	line, _, _ := strings.Cut(string(text)[i+2:], "\n")
	return deltaTime.ReplaceAllString(line, "")
}

// TestDecodeAgainstConntrack decodes what the kernel sent and writes it as
// conntrack -L -o extended,id did at the same moment.
func TestDecodeAgainstConntrack(t *testing.T) {
	for _, name := range fixture.Names(t, "testdata") {
		t.Run(name, func(t *testing.T) {
			var f Flow
			if err := decodeFlow(fixture.Netlink(t, "testdata/"+name+".hex", nfgenmsgLen), &f); err != nil {
				t.Fatal(err)
			}
			if got, want := f.String(), captured(t, name); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestDecode looks at what the tool's line does not show.
func TestDecode(t *testing.T) {
	got := make(map[string]Flow)
	for _, name := range fixture.Names(t, "testdata") {
		var f Flow
		if err := decodeFlow(fixture.Netlink(t, "testdata/"+name+".hex", nfgenmsgLen), &f); err != nil {
			t.Fatal(name, err)
		}
		got[name] = f
	}
	lo := netip.MustParseAddr("127.0.0.1")
	want := Flow{
		Original: Tuple{Src: lo, Dst: lo, SrcPort: 42158, DstPort: 81, Proto: ProtoTCP},
		Reply:    Tuple{Src: lo, Dst: lo, SrcPort: 8080, DstPort: 42158, Proto: ProtoTCP},
		TCP: TCPInfo{State: TCPEstablished, OriginalFlags: 0x23, ReplyFlags: 0x23,
			OriginalScale: 10, ReplyScale: 10},
		Status: SeenReply | Assured | Confirmed | DstNAT | SrcNATDone | DstNATDone,
		Fields: FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldID | FieldUse | FieldCounters | FieldStart,
		ID:     544573214, Use: 1, Timeout: 431999 * time.Second,
		OriginalCounter: Counter{2, 112}, ReplyCounter: Counter{1, 60},
	}
	dnat := got["tcp-dnat"]
	if age := time.Since(dnat.Start.Time()); age < 0 || dnat.Start.Time().Year() < 2026 {
		t.Errorf("started %v", dnat.Start.Time())
	}
	dnat.Start = 0
	if dnat != want {
		t.Errorf("got  %+v\nwant %+v", plain(dnat), plain(want))
	}
	for name, f := range got {
		if f.Translated() != (name == "tcp-dnat") {
			t.Errorf("%s: Translated is %v", name, f.Translated())
		}
		if f.Unreplied() != strings.Contains(f.String(), "[UNREPLIED]") {
			t.Errorf("%s: Unreplied is %v", name, f.Unreplied())
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for _, name := range fixture.Names(t, "testdata") {
		b := fixture.Netlink(t, "testdata/"+name+".hex", nfgenmsgLen)
		var f Flow
		if n := testing.AllocsPerRun(100, func() { _ = decodeFlow(b, &f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestDecodeSkipsUnknown adds attributes of no known kind at every level.
func TestDecodeSkipsUnknown(t *testing.T) {
	plain, odd := nfnl.NewNetfilter(subsystem, opNew, 0, 2), nfnl.NewNetfilter(subsystem, opNew, 0, 2)
	for _, b := range []*nfnl.Builder{plain, odd} {
		unknown := func() {
			if b == odd {
				b.U32(999, 7)
			}
		}
		unknown()
		b.Nested(ctaTupleOrig, func() {
			unknown()
			b.Nested(ctaTupleIP, func() { unknown(); b.Bytes(ctaIPv4Src, []byte{1, 2, 3, 4}) })
			b.Nested(ctaTupleProto, func() { unknown(); b.U8(ctaProtoNum, 6) })
		})
		b.Nested(ctaProtoinfo, func() {
			unknown()
			b.Nested(ctaProtoinfoTCP, func() { unknown(); b.U8(ctaTCPState, 3) })
		})
		b.Nested(ctaCountersOrig, func() { unknown(); b.U64(ctaCountersBytes, 9) })
		b.Nested(ctaTimestamp, func() { unknown(); b.U64(ctaTimestampStart, 9) })
	}
	var a, b Flow
	if err := errors.Join(decodeFlow(plain.Message().Data, &a), decodeFlow(odd.Message().Data, &b)); err != nil {
		t.Fatal(err)
	}
	if a != b || a.TCP.State != TCPEstablished {
		t.Errorf("got %+v\nwant %+v", b, a)
	}
}

func TestDecodeErrors(t *testing.T) {
	message := func(fill func(b *nfnl.Builder)) []byte {
		b := nfnl.NewNetfilter(subsystem, opNew, 0, 2)
		b.U32(ctaMark, 7)
		fill(b)
		return b.Message().Data
	}
	for want, b := range map[string][]byte{
		"message shorter than struct nfgenmsg": {2, 0, 0},
		"netlink attribute 3: 2 bytes, want 4": message(func(b *nfnl.Builder) { b.U16(ctaStatus, 1) }),
		"attribute 1: address of 5 bytes": message(func(b *nfnl.Builder) {
			b.Nested(ctaTupleOrig, func() { b.Nested(ctaTupleIP, func() { b.Bytes(ctaIPv4Src, make([]byte, 5)) }) })
		}),
		"attribute 4: netlink attribute 1: 0 bytes, want 1": message(func(b *nfnl.Builder) {
			b.Nested(ctaProtoinfo, func() { b.Nested(ctaProtoinfoTCP, func() { b.Flag(ctaTCPState) }) })
		}),
		"attribute 9: netlink attribute 1: 4 bytes, want 8":  message(func(b *nfnl.Builder) { b.Nested(ctaCountersOrig, func() { b.U32(ctaCountersPackets, 1) }) }),
		"attribute 20: netlink attribute 1: 4 bytes, want 8": message(func(b *nfnl.Builder) { b.Nested(ctaTimestamp, func() { b.U32(ctaTimestampStart, 1) }) }),
		"attribute 2: netlink attribute 3: 1 bytes, want 2":  message(func(b *nfnl.Builder) { b.Nested(ctaTupleReply, func() { b.U8(ctaTupleZone, 1) }) }),
		"netlink attribute 0: 3 bytes, want 4":               append(message(func(*nfnl.Builder) {}), 1, 2, 3),
		"attribute 1: netlink attribute 2: 1 bytes, want 2": message(func(b *nfnl.Builder) {
			b.Nested(ctaTupleOrig, func() { b.Nested(ctaTupleProto, func() { b.U8(ctaProtoSrcPort, 1) }) })
		}),
	} {
		f := Flow{Mark: 1}
		if err := decodeFlow(b, &f); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if f != (Flow{}) {
			t.Errorf("%s: not the zero Flow: %+v", want, plain(f))
		}
	}
}

// FuzzDecode checks that no bytes panic, that an error comes with the zero
// Flow, and that what can be decoded and made again decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, name := range fixture.Names(f, "testdata") {
		f.Add(fixture.Netlink(f, "testdata/"+name+".hex", nfgenmsgLen))
	}
	for _, b := range rareInputs(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		flow := Flow{Mark: 1}
		if err := decodeFlow(b, &flow); err != nil {
			if flow != (Flow{}) {
				t.Fatalf("%v with %+v", err, plain(flow))
			}
			return
		}
		m, err := encodeCreate(&flow)
		if err != nil {
			return // not an entry that could be made
		}
		var again Flow
		if err := decodeFlow(m.Data, &again); err != nil {
			t.Fatal(err)
		}
		if want := creatable(flow); again != want {
			t.Fatalf("got  %+v\nwant %+v", plain(again), plain(want))
		}
	})
}

// creatable is what a create request carries of a flow.
func creatable(f Flow) Flow {
	zone := func(z uint16) Fields {
		if z != 0 {
			return FieldZone
		}
		return 0
	}
	want := Flow{
		Original: portable(f.Original), Reply: portable(f.Reply),
		Zone: f.Zone, OriginalZone: f.OriginalZone, ReplyZone: f.ReplyZone,
		Status: f.Status&settable | Confirmed, Timeout: f.Timeout, Mark: f.Mark,
		Fields: FieldStatus | FieldTimeout | f.Fields&FieldMark | zone(f.Zone),
	}
	if f.Original.Proto == ProtoTCP {
		want.TCP, want.Fields = f.TCP, want.Fields|FieldTCP
	}
	if f.Status&natted != 0 { // the translation is in CTA_NAT_SRC and CTA_NAT_DST
		want.Reply = portable(f.Original.Invert())
	}
	return want.creatable(f.Details())
}

// creatable adds the details that a create request carries.
func (f Flow) creatable(d Details) Flow {
	d.SecurityContext, d.Master, d.MasterZone = "", portable(d.Master), 0
	always := Fields(0)
	switch f.Original.Proto {
	case ProtoSCTP:
		always, d.DCCP = FieldSCTP, DCCPInfo{}
	case ProtoDCCP:
		always, d.SCTP = FieldDCCP, SCTPInfo{}
	default:
		d.SCTP, d.DCCP = SCTPInfo{}, DCCPInfo{}
	}
	f = f.WithDetails(d)
	f.Fields |= always
	return f
}

// portable is what a request carries of a tuple: what its protocol has.
func portable(t Tuple) Tuple {
	if !t.hasPorts() {
		t.SrcPort, t.DstPort = 0, 0
	}
	if t.Proto != ProtoICMP && t.Proto != ProtoICMPv6 {
		t.ICMPID, t.ICMPType, t.ICMPCode = 0, 0, 0
	}
	return t
}

// TestDeleteIsNeverAFlush looks at the requests themselves: whatever the flow,
// a delete request carries CTA_TUPLE_ORIG and CTA_ID, or is not made.
func TestDeleteIsNeverAFlush(t *testing.T) {
	whole, err := ParseFlow("tcp 6 9 CLOSE src=1.2.3.4 dst=1.2.3.5 sport=1 dport=2 src=1.2.3.5 dst=1.2.3.4 sport=2 dport=1 id=7")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(f *Flow){
		"no ID":          func(f *Flow) { f.Fields &^= FieldID },
		"no tuple":       func(f *Flow) { f.Original = Tuple{} },
		"no source":      func(f *Flow) { f.Original.Src = netip.Addr{} },
		"no destination": func(f *Flow) { f.Original.Dst = netip.Addr{} },
		"mixed families": func(f *Flow) { f.Original.Dst = netip.MustParseAddr("::1") },
		"scope zone":     func(f *Flow) { f.Original.Src = netip.MustParseAddr("fe80::1%eth0"); f.Original.Dst = f.Original.Src },
	}
	c := &Conn{} // a request that is made would panic
	for name, spoil := range tests {
		f := whole
		spoil(&f)
		if err := c.Delete(context.Background(), f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m, err := encodeDelete(&whole)
	if err != nil {
		t.Fatal(err)
	}
	has := map[uint16]bool{}
	for a := nfnl.Walk(m.Data[nfgenmsgLen:]); a.Next(); {
		has[a.Type] = true
	}
	if !has[ctaTupleOrig] || !has[ctaID] {
		t.Errorf("attributes %v", has)
	}
}

// plain prints every field: String leaves some out.
type plain Flow

// decodeInputs are the captured messages.
func decodeInputs(t testing.TB) (messages [][]byte) {
	for _, name := range fixture.Names(t, "testdata") {
		messages = append(messages, fixture.Netlink(t, "testdata/"+name+".hex", nfgenmsgLen))
	}
	return messages
}
