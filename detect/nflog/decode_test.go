package nflog

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

func TestDecode(t *testing.T) {
	names := newPrefixes()
	b := payload(uint8(NetDev), full)
	b[2], b[3] = 1, 2 // group 0x0102
	want := Packet{
		Group: 0x0102, Family: NetDev, Time: time.Unix(0x6b49d200, 250_000), Hook: Forward, HwProtocol: 0x86dd,
		Mark: 0xcafe, In: 2, PhysIn: 3, Out: 4, PhysOut: 5, Prefix: "why: ", UID: 1000, GID: 1001, HasUID: true,
		HwAddr: []byte{2, 0, 0, 0, 0, 1}, HwType: 1, LinkHeader: []byte{13: 2}, GlobalSeq: 99,
		VLAN: VLAN{0x8100, 0x6007}, HasVLAN: true,
		Payload: []byte{0x60, 1, 2, 3, 4}, CTInfo: EstablishedReply, HasCTInfo: true,
		Conntrack: []byte{0, 0, 3, 0, 0, 0, 0, 14},
	}
	var got Packet
	var numbered, ok bool
	allocations := testing.AllocsPerRun(100, func() { got, numbered, ok = decode(b, names) })
	if len(got.Conntrack) == 8 { // a nested attribute is in the host's byte order
		got.Conntrack = append([]byte{0, 0, 3, 0}, got.Conntrack[4:]...)
	}
	if !ok || !numbered || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %t, %t\nwant %+v", got, numbered, ok, want)
	}
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
	if id := got.VLAN.ID(); id != 7 {
		t.Errorf("VLAN %d, want 7", id)
	}
}

// An attribute that is cut short makes no packet, one that is not known or odd
// is passed over.
func TestDecodeOdd(t *testing.T) {
	names := newPrefixes()
	for _, typ := range []uint16{
		attrPacketHdr, attrMark, attrTimestamp, attrIn, attrOut, attrPhysIn, attrPhysOut, attrHwAddr, attrUID,
		attrSeq, attrGlobalSeq, attrGID, attrHwType, attrCTInfo,
	} {
		b := payload(uint8(IPv4), func(b *nfnl.Builder) { b.U32(attrSeq, 1); b.Bytes(typ, []byte{1}) })
		if p, numbered, ok := decode(b, names); ok || numbered || !reflect.DeepEqual(p, Packet{}) {
			t.Errorf("attribute %d: %+v, %t, %t", typ, p, numbered, ok)
		}
	}
	for name, attrs := range map[string]func(b *nfnl.Builder){
		"unknown":           func(b *nfnl.Builder) { b.Bytes(333, []byte{1}) },
		"address too long":  func(b *nfnl.Builder) { b.Bytes(attrHwAddr, []byte{0, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}) },
		"tag cut short":     func(b *nfnl.Builder) { b.Bytes(attrVLAN, []byte{6, 0, 1, 0, 0x81}) },
		"UID without a GID": func(b *nfnl.Builder) { b.U32(attrUID, 5) },
	} {
		p, numbered, ok := decode(payload(uint8(IPv4), attrs), names)
		if want := (Packet{Family: IPv4}); !ok || numbered || !reflect.DeepEqual(p, want) {
			t.Errorf("%s: %+v, %t, %t", name, p, numbered, ok)
		}
	}
	for _, b := range [][]byte{nil, {2, 0, 0}, {2, 0, 0, 0, 8}, {2, 0, 0, 0, 3, 0, 1, 0}} {
		if p, _, ok := decode(b, names); ok {
			t.Errorf("%x: %+v", b, p)
		}
	}
}

// Any number of prefixes comes out right, and those that keep coming cost
// nothing.
func TestPrefixes(t *testing.T) {
	names := newPrefixes()
	for range 2 {
		for i := range 10 * len(names.kept) {
			want := fmt.Sprint("SEQ is over upper bound ", i)
			if got := names.name(append([]byte(want), 0)); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	reason := []byte("nf_ct_proto_6: invalid rst \x00")
	var got string
	if n := testing.AllocsPerRun(100, func() { got = names.name(reason) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got != strings.TrimRight(string(reason), "\x00") {
		t.Errorf("got %q", got)
	}
}
