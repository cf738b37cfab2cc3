package nflog

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"reflect"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// FuzzMessage reads the payload of a message with this project's decoder, and
// through the gate with go-nflog's. Nothing may panic. A packet that go-nflog
// can read is the same packet here, but for what it does not tell; it refuses
// some that have more bytes than they need.
func FuzzMessage(f *testing.F) {
	f.Add(payload(2, full))
	f.Add(payload(5, full))
	f.Add(numbered(7).Data)
	f.Add(payload(7, func(b *nfnl.Builder) { b.Nested(20, func() { b.U16(2, 1); b.U16(3, 1) }) }))
	f.Add(payload(7, func(b *nfnl.Builder) { b.Bytes(20, []byte{5, 0, 1, 0, 1}) }))
	f.Add(payload(7, func(b *nfnl.Builder) { b.Bytes(8, []byte{0, 6, 0, 0, 1}) }))
	f.Add(payload(7, func(b *nfnl.Builder) { b.Bytes(21, make([]byte, 18)); b.Bytes(16, make([]byte, 14)) }))
	f.Add([]byte{5, 0, 1, 0, 8, 0, 1, 0, 8, 0, 0, 0}) // netdev, group 256: ends a process
	f.Add([]byte{2, 0, 0, 0, 0, 0, 1, 0, 5, 0, 1, 0, 1})
	w := newWire()
	r, err := listenOn(f, w, Config{GoNflog: true})
	if err != nil {
		f.Fatal(err)
	}
	next, stop := iter.Pull2(r.Packets(context.Background()))
	defer stop()
	f.Fuzz(func(t *testing.T, data []byte) {
		own, numbered, ok := decode(bytes.Clone(data), newPrefixes())
		if !ok && !reflect.DeepEqual(own, Packet{}) || numbered && !ok {
			t.Errorf("a packet that cannot be read is %+v, %t", own, numbered)
		}
		got := gated(t, w, next, data)
		switch {
		case !ok && got != nil:
			t.Fatalf("go-nflog reads %+v", got)
		case got == nil || twice(data):
			return
		}
		own.Family, own.Group = 0, 0
		if !got.HasVLAN {
			own.VLAN, own.HasVLAN = VLAN{}, false
		}
		if !reflect.DeepEqual(*got, own) {
			t.Fatalf("got %+v\ngo-nflog %+v", own, *got)
		}
	})
}

// twice reports whether an attribute is there twice, which the kernel never
// sends: which one counts is not told.
func twice(data []byte) bool {
	seen := make(map[uint16]bool)
	for a := nfnl.Walk(data[nfgenLen:]); a.Next(); seen[a.Type] = true {
		if seen[a.Type] {
			return true
		}
	}
	return false
}

// gated sends data through the gate and returns what go-nflog makes of it, or
// nil.
func gated(t *testing.T, w *wire, next func() (Packet, error, bool), data []byte) (got *Packet) {
	t.Helper()
	// The last packet tells that the first has been through, or not.
	const behind = "conntrack will not write this"
	datagram := append(bytes.Clone(data), make([]byte, 64)...)
	m := netlink.Message{Header: netlink.Header{Type: typePacket}, Data: datagram[:len(data)]}
	last := message(2, func(b *nfnl.Builder) { b.String(10, behind) })
	w.datagrams <- []netlink.Message{m, last}
	for {
		p, err, _ := next()
		switch {
		case errors.Is(err, ErrLost):
			continue // the numbers of the input are any
		case err != nil:
			t.Fatal(err)
		case p.Prefix != behind:
			got = &p
			continue
		}
		if !bytes.Equal(datagram[len(data):], make([]byte, 64)) {
			t.Fatal("wrote behind the message")
		}
		return got
	}
}
