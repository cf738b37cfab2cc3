package conntrack

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// rareInputs are the captured messages of flows with details and of events, by
// name.
func rareInputs(t testing.TB) map[string][]byte {
	messages := make(map[string][]byte)
	for _, dir := range []string{"details/", "events/"} {
		for _, name := range fixture.Names(t, "testdata/"+dir) {
			messages[dir+name] = fixture.Netlink(t, "testdata/"+dir+name+".hex", nfgenmsgLen)
		}
	}
	return messages
}

// TestDecodeDetails decodes what the kernel sent of flows with details and
// writes it as conntrack -L -o extended,id did at the same moment.
func TestDecodeDetails(t *testing.T) {
	control := tuple(ProtoTCP, "192.0.2.1:59670", "192.0.2.2:21")
	want := map[string]Details{
		"ftp-seqadj": {Helper: "ftp", Labels: LabelSet(3), ReplySeq: SeqAdj{Position: 867958784, After: -3}},
		"ftp-data":   {Master: control},
		"labels":     {Labels: LabelSet(127)},
		"sctp":       {SCTP: SCTPInfo{SCTPCookieEchoed, 0x01020304, 0x05060708}},
		"synproxy": {Synproxy: Synproxy{ISN: 1690642547, ITS: 3060506, TimestampOffset: 533940474},
			ReplySeq: SeqAdj{Before: -1192593070, After: -1192593070}},
	}
	for _, name := range fixture.Names(t, "testdata/details") {
		var f Flow
		if err := decodeFlow(fixture.Netlink(t, "testdata/details/"+name+".hex", nfgenmsgLen), &f); err != nil {
			t.Fatal(name, err)
		}
		if got, want := f.String(), captured(t, "details/"+name); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", name, got, want)
		}
		d := want[name]
		if f.Details() != d || f.Fields&fieldsDetails != d.fields() || f.WithDetails(d) != f {
			t.Errorf("%s: fields %b\ngot  %+v\nwant %+v", name, f.Fields, f.Details(), d)
		}
		delete(want, name)
	}
	if len(want) != 0 {
		t.Errorf("no fixtures of %v", want)
	}
}

// TestDecodeEvents decodes captured events, of which the last comment tells
// what they say. The kernel's clock is in each.
func TestDecodeEvents(t *testing.T) {
	for _, name := range fixture.Names(t, "testdata/events") {
		b := fixture.Netlink(t, "testdata/events/"+name+".hex", nfgenmsgLen)
		var f Flow
		if err := decodeFlow(b, &f); err != nil {
			t.Fatal(name, err)
		}
		e, err := ParseEvent(captured(t, "events/"+name))
		if err != nil {
			t.Fatal(name, err)
		}
		if got, want := f.String(), e.Flow.String(); got != want || !strings.HasPrefix(name, strings.ToLower(e.Type.String())) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, e.Type, got, want)
		}
		at := Timestamp(0)
		for a := nfnl.Walk(b[nfgenmsgLen:]); a.Next(); {
			if a.Type == ctaEventTime {
				at = Timestamp(a.U64())
			}
		}
		if at.Time().Year() < 2026 || f.Stop != 0 && at < f.Stop {
			t.Errorf("%s: at %v, stopped %v", name, at.Time(), f.Stop.Time())
		}
	}
}

// TestDecodeDetailsAgain checks that details are kept once: decoding them again
// gives the same handle, and allocates for strings only.
func TestDecodeDetailsAgain(t *testing.T) {
	for name, b := range rareInputs(t) {
		var f, again Flow
		must(t, decodeFlow(b, &f))
		d := f.Details()
		want := float64(strings.Count(d.Helper, "ftp"))
		if n := testing.AllocsPerRun(100, func() { _ = decodeFlow(b, &again) }); n > want {
			t.Errorf("%s: %v allocations, want %v", name, n, want)
		}
		if f != again {
			t.Errorf("%s: another flow", name)
		}
	}
}

// TestDecodeDetailsErrors spoils each attribute that is nested in another.
func TestDecodeDetailsErrors(t *testing.T) {
	nest := func(types ...uint16) func(b *nfnl.Builder) {
		return func(b *nfnl.Builder) { nested(b, types) }
	}
	for want, fill := range map[string]func(b *nfnl.Builder){
		"attribute 4: netlink attribute 1: 0 bytes, want 1":  nest(ctaProtoinfo, ctaProtoinfoSCTP, ctaSCTPState),
		"attribute 4: netlink attribute 2: 0 bytes, want 4":  nest(ctaProtoinfo, ctaProtoinfoSCTP, ctaSCTPTagOrig),
		"attribute 4: netlink attribute 3: 0 bytes, want 8":  nest(ctaProtoinfo, ctaProtoinfoDCCP, ctaDCCPHandshakeSeq),
		"attribute 14: netlink attribute 3: 0 bytes, want 2": nest(ctaTupleMaster, ctaTupleZone),
		"attribute 14: address of 0 bytes":                   nest(ctaTupleMaster, ctaTupleIP, ctaIPv6Src),
		"attribute 15: netlink attribute 1: 0 bytes, want 4": nest(ctaSeqAdjOrig, ctaSeqAdjPosition),
		"attribute 16: netlink attribute 3: 0 bytes, want 4": nest(ctaSeqAdjReply, ctaSeqAdjAfter),
		"attribute 24: netlink attribute 2: 0 bytes, want 4": nest(ctaSynproxy, ctaSynproxyITS),
		"attribute 22: labels of 17 bytes, want 16 at most":  func(b *nfnl.Builder) { b.Bytes(ctaLabels, make([]byte, 17)) },
		"attribute 5: netlink attribute 0: 3 bytes, want 4":  func(b *nfnl.Builder) { b.Bytes(ctaHelp, []byte{1, 2, 3}) },
		"attribute 19: netlink attribute 1: 4 bytes, want 9": func(b *nfnl.Builder) {
			b.Bytes(ctaSecctx, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 9), ctaSecctxName))
		},
	} {
		b := nfnl.NewNetfilter(subsystem, opNew, 0, familyIPv4)
		b.U32(ctaMark, 7)
		fill(b)
		f := Flow{Mark: 1}
		if err := decodeFlow(b.Message().Data, &f); err == nil || err.Error() != want || f != (Flow{}) {
			t.Errorf("got %v, want %s; %+v", err, want, plain(f))
		}
	}
}

// nested writes an empty attribute inside others.
func nested(b *nfnl.Builder, types []uint16) {
	if len(types) == 1 {
		b.Flag(types[0])
		return
	}
	b.Nested(types[0], func() { nested(b, types[1:]) })
}

// TestDecodeSpoiled cuts captured messages at every byte, and changes every
// bit: nothing panics, and an error comes with the zero Flow.
func TestDecodeSpoiled(t *testing.T) {
	check := func(name string, b []byte) {
		f := Flow{Mark: 1}
		if err := decodeFlow(b, &f); err != nil && f != (Flow{}) {
			t.Fatalf("%s: % x: %v with %+v", name, b, err, plain(f))
		}
	}
	for name, b := range rareInputs(t) {
		for i := range b {
			check(name, b[:i:i])
		}
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			check(name, b)
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestUnusedSynproxy leaves the zero record that entries made over ctnetlink
// have for absent, beside other details too.
func TestUnusedSynproxy(t *testing.T) {
	b := nfnl.NewNetfilter(subsystem, opNew, 0, familyIPv4)
	b.Nested(ctaHelp, func() { b.String(ctaHelpName, "s\xffp") })
	b.Nested(ctaSynproxy, func() {
		b.U32(ctaSynproxyISN, 0)
		b.U32(ctaSynproxyITS, 0)
		b.U32(ctaSynproxyTSOff, 0)
	})
	var f Flow
	must(t, decodeFlow(b.Message().Data, &f))
	if f.Fields != FieldHelper || f.Details() != (Details{Helper: "s?p"}) {
		t.Errorf("got %b, %+v", f.Fields, f.Details())
	}
}

func TestLabels(t *testing.T) {
	l := LabelSet(127, 3, 17, 128, 255)
	if !l.Has(3) || !l.Has(127) || l.Has(0) || l.Has(128) || l.IsZero() || l.String() != "3,17,127" {
		t.Errorf("got %v", l)
	}
	if !l.HasAll(LabelSet(3, 17)) || l.HasAll(LabelSet(3, 4)) || !l.HasAll(Labels{}) || (Labels{}).HasAll(l) {
		t.Error("HasAll is wrong")
	}
	text, err := l.MarshalText()
	if want := "08000200000000000000000000000080"; string(text) != want || err != nil {
		t.Errorf("got %s, %v; want %s", text, err, want)
	}
	again := LabelSet(1)
	if err := again.UnmarshalText(text); err != nil || again != l {
		t.Errorf("got %v, %v", again, err)
	}
	for _, bad := range []string{"", "08", strings.Repeat("0", 31) + "g", strings.Repeat("0", 33)} {
		if err := again.UnmarshalText([]byte(bad)); err == nil || again != l {
			t.Errorf("%q: got %v, %v", bad, again, err)
		}
	}
}

func TestWithDetails(t *testing.T) {
	f := rich(t)
	bare := f.WithDetails(Details{})
	if bare.Fields&fieldsDetails != 0 || bare.Details() != (Details{}) || bare.Fields|fieldsDetails != f.Fields || bare == f {
		t.Errorf("got %+v", plain(bare))
	}
	if again := bare.WithDetails(f.Details()); again != f {
		t.Errorf("got  %+v\nwant %+v", plain(again), plain(f))
	}
	for _, field := range []Fields{FieldLabels, FieldHelper, FieldMaster, FieldSeqAdjust, FieldSynproxy, FieldSecurityContext, FieldSCTP, FieldDCCP} {
		if !f.Has(field) || bare.Has(field) {
			t.Errorf("field %b", field)
		}
	}
}
