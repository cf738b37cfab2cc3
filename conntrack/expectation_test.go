package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

const dirExpect = "testdata/expect"

func capturedExpectation(t testing.TB, name string) Expectation {
	t.Helper()
	var e Expectation
	must(t, decodeExpectation(fixture.Netlink(t, dirExpect+"/"+name+".hex", nfgenmsgLen), &e))
	return e
}

// TestDecodeExpectation decodes what the kernel sent and writes it as
// conntrack -L expect did at the same moment.
func TestDecodeExpectation(t *testing.T) {
	for _, name := range fixture.Names(t, dirExpect) {
		e := capturedExpectation(t, name)
		if got, want := e.String(), captured(t, "expect/"+name); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
		if !e.Has(ExpectFieldID|ExpectFieldClass|ExpectFieldFlags|ExpectFieldTimeout) || e.ID == 0 || e.Has(ExpectFieldZone) {
			t.Errorf("%s: fields %b of %+v", name, e.Fields, e)
		}
	}
	e := capturedExpectation(t, "ftp-translated")
	nat := ExpectationNAT{Reply: true, Tuple: Tuple{Proto: ProtoTCP, Src: netip.IPv4Unspecified(), SrcPort: e.Tuple.DstPort}}
	if e.NAT != nat || !e.Has(ExpectFieldNAT) || e.Function != "nat-follow-master" {
		t.Errorf("got %+v, %q", e.NAT, e.Function)
	}
	if e := capturedExpectation(t, "irc-flags"); e.Flags != ExpectPermanent|ExpectInactive || e.Has(ExpectFieldNAT) || e.Function != "" {
		t.Errorf("got %+v", e)
	}
}

// TestDecodeExpectationAllocates nothing but a name that the last one did not
// have.
func TestDecodeExpectationAllocates(t *testing.T) {
	for _, name := range fixture.Names(t, dirExpect) {
		b := fixture.Netlink(t, dirExpect+"/"+name+".hex", nfgenmsgLen)
		var e Expectation
		if n := testing.AllocsPerRun(100, func() { _ = decodeExpectation(b, &e) }); n != 0 || e.Helper == "" {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestDecodeExpectationErrors(t *testing.T) {
	message := func(fill func(b *nfnl.Builder)) []byte {
		b := nfnl.NewNetfilter(subsystemExpect, opExpectNew, 0, 2)
		b.U32(ctaExpectID, 7)
		b.U32(999, 7) // of no known kind
		fill(b)
		return b.Message().Data
	}
	for want, b := range map[string][]byte{
		"message shorter than struct nfgenmsg": {2, 0, 0},
		"netlink attribute 4: 2 bytes, want 4": message(func(b *nfnl.Builder) { b.U16(ctaExpectTimeout, 1) }),
		"netlink attribute 7: 1 bytes, want 2": message(func(b *nfnl.Builder) { b.U8(ctaExpectZone, 1) }),
		"attribute 3: address of 5 bytes": message(func(b *nfnl.Builder) {
			b.Nested(ctaExpectMask, func() { b.Nested(ctaTupleIP, func() { b.Bytes(ctaIPv4Src, make([]byte, 5)) }) })
		}),
		"attribute 10: netlink attribute 1: 1 bytes, want 4": message(func(b *nfnl.Builder) {
			b.Nested(ctaExpectNAT, func() { b.U8(ctaExpectNATDir, 1) })
		}),
		"netlink attribute 0: 3 bytes, want 4": append(message(func(*nfnl.Builder) {}), 1, 2, 3),
	} {
		e := Expectation{ID: 1}
		if err := decodeExpectation(b, &e); err == nil || err.Error() != want || e != (Expectation{}) {
			t.Errorf("got %v with %+v, want %s", err, e, want)
		}
	}
	var e Expectation
	if err := decodeExpectation(message(func(*nfnl.Builder) {}), &e); err != nil || e.ID != 7 {
		t.Errorf("with an unknown attribute: %+v, %v", e, err)
	}
}

// FuzzDecodeExpectation checks that no bytes panic, that an error comes with
// the zero Expectation, and that what can be made decodes to the same.
func FuzzDecodeExpectation(f *testing.F) {
	for _, name := range fixture.Names(f, dirExpect) {
		f.Add(fixture.Netlink(f, dirExpect+"/"+name+".hex", nfgenmsgLen))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := Expectation{ID: 1, Helper: "ftp"}
		if err := decodeExpectation(b, &e); err != nil {
			if e != (Expectation{}) {
				t.Fatalf("%v with %+v", err, e)
			}
			return
		}
		reqs, err := e.encodeCreate()
		if err != nil {
			return // not one that could be made
		}
		var again Expectation
		must(t, decodeExpectation(reqs[len(reqs)-1].Data, &again))
		if want := creatableExpectation(e); again != want {
			t.Fatalf("got  %+v\nwant %+v", again, want)
		}
	})
}

// creatableExpectation is what a create request carries.
func creatableExpectation(e Expectation) Expectation {
	want := e
	want.ID, want.Fields = 0, e.Fields&ExpectFieldNAT
	want.Mask.Proto = e.Tuple.Proto
	want.Tuple, want.Mask, want.Master = portable(want.Tuple), portable(want.Mask), portable(want.Master)
	want.NAT.Tuple = portable(want.NAT.Tuple)
	for _, part := range []struct {
		there bool
		field ExpectFields
	}{
		{e.Timeout != 0, ExpectFieldTimeout}, {e.Zone != 0, ExpectFieldZone},
		{e.Flags != 0, ExpectFieldFlags}, {e.Helper != "", ExpectFieldClass},
	} {
		if part.there {
			want.Fields |= part.field
		}
	}
	if e.Helper == "" {
		want.Class = 0
	}
	return want
}

// TestExpectationDeleteIsNeverAFlush looks at the requests themselves: a delete
// request without CTA_EXPECT_TUPLE removes all, and is not made.
func TestExpectationDeleteIsNeverAFlush(t *testing.T) {
	whole := capturedExpectation(t, "ftp-port")
	c := &Conn{} // a request that is made would panic
	for name, spoil := range map[string]func(*Expectation){
		"no ID":    func(e *Expectation) { e.Fields &^= ExpectFieldID },
		"no tuple": func(e *Expectation) { e.Tuple = Tuple{} },
		"families": func(e *Expectation) { e.Tuple.Dst = netip.IPv6Loopback() },
	} {
		e := whole
		spoil(&e)
		if err := c.DeleteExpectation(context.Background(), e); !isOp(err, "delete expectation") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, helper := range []string{"", "sixteen-bytes-xx", "a\x00b"} {
		if err := c.DeleteExpectationsOfHelper(context.Background(), helper); !isOp(err, "delete expectations") {
			t.Errorf("helper %q: %v", helper, err)
		}
	}
}

// TestExpectationDeleteOldKernels has a kernel that compares the ID with
// another value than it tells.
func TestExpectationDeleteOldKernels(t *testing.T) {
	e := capturedExpectation(t, "ftp-port")
	data := fixture.Netlink(t, dirExpect+"/ftp-port.hex", nfgenmsgLen)
	there, others := true, false
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		asked := Expectation{}
		must(t, decodeExpectation(r.Data, &asked))
		byID := asked.Has(ExpectFieldID)
		if asked.Tuple != e.Tuple {
			t.Errorf("asked for %v", asked)
		}
		switch {
		case r.Type == 0x201 && there && !others:
			return [][]byte{nfnltest.Message(0x200, 0, r.Seq, data), nfnltest.Acknowledge(r, 0, "", 0)}
		case r.Type == 0x202 && !byID && there:
			there = false
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}
		return [][]byte{nfnltest.Acknowledge(r, 2, "", 0)} // ENOENT
	})
	others = true
	if err := c.DeleteExpectation(t.Context(), e); err == nil || !there {
		t.Errorf("another one of the tuple: %v", err)
	}
	others = false
	if err := c.DeleteExpectation(t.Context(), e); err != nil || there {
		t.Errorf("got %v", err)
	}
}

func TestCreateExpectationRefuses(t *testing.T) {
	whole := capturedExpectation(t, "ftp-translated")
	for want, spoil := range map[string]func(*Expectation){
		"address is missing": func(e *Expectation) { e.Master = Tuple{} },
		"not of one family":  func(e *Expectation) { e.Mask = capturedExpectation(t, "ftp6-eprt").Mask },
		"of one family":      func(e *Expectation) { e.NAT.Tuple.Src = netip.Addr{} },
		"timeout 999ms":      func(e *Expectation) { e.Timeout = 999 * time.Millisecond },
		"timeout 1193046h":   func(e *Expectation) { e.Timeout = 1193046 * time.Hour },
		"helper name":        func(e *Expectation) { e.Helper = "sixteen-bytes-xx" },
	} {
		e := whole
		spoil(&e)
		if err := (&Conn{}).CreateExpectation(t.Context(), e); !isOp(err, "create expectation") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestExpectationEventStream has the kernel tell of one that comes, one that
// goes, a loss, and what cannot be read.
func TestExpectationEventStream(t *testing.T) {
	data := fixture.Netlink(t, dirExpect+"/ftp-port.hex", nfgenmsgLen)
	c, peer := fake(t, silent)
	opts := &ExpectationEventOptions{Ready: func() {
		peer.Multicast(4, nfnltest.Message(0x200, nfnl.Create|nfnl.Exclude, 0, data))
		peer.Multicast(6, nil, nfnltest.Message(0x100, 0, 0, nil), nfnltest.Message(0x202, 0, 0, data), nfnltest.Message(0x202, 0, 0, []byte{2}))
	}}
	e := capturedExpectation(t, "ftp-port")
	want := []ExpectationEvent{{Type: EventNew, Expectation: e}, {}, {Type: EventDestroy, Expectation: e}, {}}
	wantErr := []error{nil, ErrOverrun, nil, errShort}
	n := 0
	for got, err := range c.ExpectationEvents(within(t), opts) {
		if n >= len(want) || got != want[n] || !errors.Is(err, wantErr[n]) || err != nil && !isOp(err, "expectation events") {
			t.Fatalf("%d: got %+v, %v", n, got, err)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d events", n)
	}
	for types, groups := range map[EventType][]uint32{EventNew: {4}, EventUpdate: {5}, EventDestroy: {6}} {
		o := ExpectationEventOptions{Types: []EventType{types}}
		if got := o.groups(); !slices.Equal(got, groups) {
			t.Errorf("%v: groups %v", types, got)
		}
	}
}

// TestReadExpectations reads back what conntrack -L expect printed.
func TestReadExpectations(t *testing.T) {
	var text strings.Builder
	var want []Expectation
	for _, name := range fixture.Names(t, dirExpect) {
		text.WriteString(captured(t, "expect/"+name) + "\n\n")
		e := capturedExpectation(t, name)
		e.ID, e.NAT, e.Function, e.Master.Proto = 0, ExpectationNAT{}, "", 0
		e.Fields = ExpectFieldTimeout | ExpectFieldClass
		if e.Flags != 0 {
			e.Fields |= ExpectFieldFlags
		}
		want = append(want, e)
	}
	var got []Expectation
	for e, err := range ReadExpectations(strings.NewReader(text.String())) {
		must(t, err)
		got = append(got, e)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	e := want[0]
	e.Zone, e.Fields, e.Flags = 7, e.Fields|ExpectFieldZone|ExpectFieldFlags, ExpectUserspace
	if got, err := ParseExpectation(e.String() + " later=1"); got != e || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, e)
	}
}

func TestParseExpectationErrors(t *testing.T) {
	line := captured(t, "expect/ftp-port")
	for want, spoil := range map[string][2]string{
		`column 1: "x": want a number of 32 bits`:                     {"300", "x"},
		`column 5: "proto=256": want a number of 8 bits`:              {"proto=6", "proto=256"},
		`"src=192.0.2": want an IP address`:                           {"src=192.0.2.2", "src=192.0.2"},
		`"sport=65536": want a number of 16 bits`:                     {"sport=0", "sport=65536"},
		`"dst=192.0.2.9": comes twice in one tuple`:                   {"sport=0", "dst=192.0.2.9"},
		`the mask is not whole`:                                       {"mask-dst=255.255.255.255", ""},
		`the master is not whole`:                                     {"master-src", "other-src"},
		`the addresses are of different families`:                     {"mask-src=255.255.255.255", "mask-src=::1"},
		`"class": want key=value or flags of an expectation`:          {"class=0", "class"},
		`"helper=sixteen-bytes-xx": want a name of 15 bytes at most`:  {"helper=ftp", "helper=sixteen-bytes-xx"},
		`"PERMANENT,BLUE": want key=value or flags of an expectation`: {"class=0", "PERMANENT,BLUE"},
		`"class=4294967296": want a number of 32 bits`:                {"class=0", "class=4294967296"},
	} {
		bad := strings.Replace(line, spoil[0], spoil[1], 1)
		e, err := ParseExpectation(bad)
		perr, ok := errors.AsType[*ParseError](err)
		if !ok || e != (Expectation{}) || perr.Line != 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %s", bad, e, err, want)
		}
	}
	var lines []int
	for e, err := range ReadExpectations(strings.NewReader("x\n\n" + line + "\ny\n")) {
		perr, ok := errors.AsType[*ParseError](err)
		switch {
		case ok:
			lines = append(lines, perr.Line)
		case err != nil || e == (Expectation{}):
			t.Errorf("got %v, %v", e, err)
		}
	}
	if !slices.Equal(lines, []int{1, 4}) {
		t.Errorf("faults in lines %v", lines)
	}
	broken := errors.New("broken")
	for _, err := range ReadExpectations(iotest.ErrReader(broken)) {
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
}

// FuzzParseExpectation checks that no text panics, that an error comes with the
// zero Expectation, and that what was read is read back from what is written.
func FuzzParseExpectation(f *testing.F) {
	for _, name := range fixture.Names(f, dirExpect) {
		f.Add(captured(f, "expect/"+name))
	}
	f.Add("1 proto=0 src=:: dst=::1 zone=9 mask-src=:: mask-dst=:: master-src=:: dport=7 master-dst=:: USERSPACE")
	f.Fuzz(func(t *testing.T, line string) {
		e, err := ParseExpectation(line)
		if err != nil {
			if _, ok := errors.AsType[*ParseError](err); !ok || e != (Expectation{}) {
				t.Fatalf("%v with %+v", err, e)
			}
			return
		}
		if again, err := ParseExpectation(e.String()); err != nil || again.String() != e.String() {
			t.Fatalf("%v\nis read back as %v, %v", e, again, err)
		}
	})
}

func BenchmarkDecodeExpectation(b *testing.B) {
	data := fixture.Netlink(b, dirExpect+"/ftp-translated.hex", nfgenmsgLen)
	var e Expectation
	b.ReportAllocs()
	for b.Loop() {
		must(b, decodeExpectation(data, &e))
	}
}
