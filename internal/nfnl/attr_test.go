package nfnl_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func TestBuilderRefusesLongValues(t *testing.T) {
	c, _ := nfnltest.Dial(nil)
	defer c.Close()
	long := nfnl.NewBuilder(1, 0)
	long.Bytes(7, make([]byte, 1<<16))
	nested := nfnl.NewBuilder(1, 0)
	nested.Nested(8, func() {
		nested.Bytes(1, make([]byte, 40000))
		nested.Bytes(2, make([]byte, 40000))
	})
	for want, b := range map[string]*nfnl.Builder{
		"netlink attribute 7: 65540 bytes": long, "netlink attribute 8: 80012 bytes": nested,
	} {
		if err := c.Do(t.Context(), b.Message(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestRoundTrip writes each kind of attribute and walks it back.
func TestRoundTrip(t *testing.T) {
	b := nfnl.NewNetfilter(1, 2, nfnl.Ack, 10)
	b.U8(1, 0x12)
	b.U16(2, 0x1234)
	b.U32(3, 0x12345678)
	b.U64(4, 0x123456789abcdef0)
	b.HostU32(5, 0x12345678)
	b.String(6, "word")
	b.Bytes(7, []byte{1, 2, 3, 4, 5})
	b.Flag(8)
	b.Nested(9, func() { b.U8(1, 9) })
	m := b.Message()
	if m.Type != 0x102 || m.Flags != nfnl.Request|nfnl.Ack || !bytes.Equal(m.Data[:4], []byte{10, 0, 0, 0}) {
		t.Fatalf("header: %+v", m)
	}
	order := uint16(0)
	a := nfnl.Walk(m.Data[4:])
	for a.Next() {
		if order++; a.Type != order {
			t.Fatalf("attribute %d in place %d", a.Type, order)
		}
		ok := true
		switch a.Type {
		case 1:
			ok = a.U8() == 0x12
		case 2:
			ok = a.U16() == 0x1234
		case 3:
			ok = a.U32() == 0x12345678
		case 4:
			ok = a.U64() == 0x123456789abcdef0
		case 5:
			ok = a.HostU32() == 0x12345678
		case 6:
			ok = a.String() == "word"
		case 7:
			ok = bytes.Equal(a.Value, []byte{1, 2, 3, 4, 5})
		case 8:
			ok = len(a.Value) == 0
		case 9:
			in := nfnl.Walk(a.Value)
			ok = in.Next() && in.Type == 1 && in.U8() == 9 && !in.Next() && in.Err() == nil
		}
		if !ok {
			t.Errorf("attribute %d: % x", a.Type, a.Value)
		}
	}
	if a.Err() != nil || order != 9 {
		t.Errorf("%d attributes, %v", order, a.Err())
	}
}

func TestShortValues(t *testing.T) {
	reads := map[string]func(*nfnl.Attrs){
		"U8":      func(a *nfnl.Attrs) { a.U8() },
		"U16":     func(a *nfnl.Attrs) { a.U16() },
		"U32":     func(a *nfnl.Attrs) { a.U32() },
		"U64":     func(a *nfnl.Attrs) { a.U64() },
		"HostU32": func(a *nfnl.Attrs) { a.HostU32() },
		"HostU64": func(a *nfnl.Attrs) { a.HostU64() },
	}
	for name, read := range reads {
		b := nfnl.NewBuilder(0, 0)
		b.Flag(5)
		b.U8(6, 1)
		a := nfnl.Walk(b.Message().Data)
		a.Next()
		read(&a)
		attr, ok := errors.AsType[*nfnl.AttrError](a.Err())
		if !ok || attr.Type != 5 || attr.Have != 0 || a.Next() {
			t.Errorf("%s: %v", name, a.Err())
		}
	}
}

// FuzzWalk checks that a walk over any bytes ends, stays inside them, and that
// what it found, written again, is walked the same.
func FuzzWalk(f *testing.F) {
	b := nfnl.NewBuilder(0, 0)
	b.U32(1, 7)
	b.Nested(2, func() { b.String(3, "x") })
	f.Add(b.Message().Data)
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		again := nfnl.NewBuilder(0, 0)
		total, n := 0, 0
		a := nfnl.Walk(in)
		for a.Next() {
			n++
			total += 4 + len(a.Value)
			again.Bytes(a.Type, a.Value)
		}
		if total > len(in) {
			t.Fatalf("%d bytes of attributes in %d", total, len(in))
		}
		second := nfnl.Walk(again.Message().Data)
		for second.Next() {
			n--
		}
		if n != 0 || second.Err() != nil {
			t.Fatalf("written again, it has %d fewer attributes: %v", n, second.Err())
		}
	})
}

// TestBegin: what is between Begin and End is nested, however it was begun.
func TestBegin(t *testing.T) {
	a, b := nfnl.NewBuilder(1, 0), nfnl.NewBuilder(1, 0)
	a.Nested(1, func() {
		a.Nested(2, func() { a.U32(3, 4) })
		a.U16(5, 6)
	})
	one := b.Begin(1)
	two := b.Begin(2)
	b.U32(3, 4)
	b.End(two)
	b.U16(5, 6)
	b.End(one)
	if want, got := a.Message().Data, b.Message().Data; !bytes.Equal(got, want) || b.Len() != len(want) {
		t.Errorf("% x in %d bytes, want % x", got, b.Len(), want)
	}
}
