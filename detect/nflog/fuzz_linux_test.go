package nflog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"reflect"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// FuzzMessage sends the payload of a message through the gate, go-nflog and
// the Reader, and compares the packet with that of a second decoder. Nothing
// may panic, and what the second cannot read must be left out.
func FuzzMessage(f *testing.F) {
	f.Add(message(2, full).Data)
	f.Add(message(5, full).Data)
	f.Add(numbered(7).Data)
	f.Add([]byte{5, 0, 1, 0, 8, 0, 1, 0, 8, 0, 0, 0}) // netdev, group 256: ends a process
	f.Add([]byte{2, 0, 0, 0, 0, 0, 1, 0, 5, 0, 1, 0, 1})
	w := newWire()
	r, err := listenOn(f, w, nil)
	if err != nil {
		f.Fatal(err)
	}
	next, stop := iter.Pull2(r.Packets(context.Background()))
	defer stop()
	f.Fuzz(func(t *testing.T, data []byte) {
		want, ok := decodePacket(data)
		// The last packet tells that the first has been through, or not.
		const behind = "conntrack will not write this"
		datagram := append(bytes.Clone(data), make([]byte, 64)...)
		m := netlink.Message{Header: netlink.Header{Type: typePacket}, Data: datagram[:len(data)]}
		last := message(2, func(b *nfnl.Builder) { b.String(10, behind) })
		w.datagrams <- []netlink.Message{m, last}
		var got []Packet
		for {
			p, err, _ := next()
			if err != nil {
				if !errors.Is(err, ErrLost) {
					t.Fatal(err)
				}
				continue // the numbers of the input are any
			}
			if p.Prefix == behind {
				break
			}
			got = append(got, p)
		}
		if !bytes.Equal(datagram[len(data):], make([]byte, 64)) {
			t.Fatal("wrote behind the message")
		}
		switch {
		case ok != (len(got) == 1):
			t.Fatalf("got %d packets, want one: %t", len(got), ok)
		case ok && !reflect.DeepEqual(got[0], want):
			t.Fatalf("got %+v\nwant %+v", got[0], want)
		}
	})
}

// decodePacket reads an NFULNL_MSG_PACKET by itself.
func decodePacket(data []byte) (p Packet, ok bool) {
	if len(data) < nfgenLen {
		return Packet{}, false
	}
	var uid, gid bool
	a := nfnl.Walk(data[nfgenLen:])
	for a.Next() {
		v := a.Value
		word := uint32(0)
		switch a.Type {
		case 2, 4, 5, 6, 7, 11, 12, 14, 19:
			if len(v) != 4 {
				return Packet{}, false
			}
			word = binary.BigEndian.Uint32(v)
		}
		switch a.Type {
		case 1:
			if len(v) < 4 {
				return Packet{}, false
			}
			p.HwProtocol, p.Hook = binary.BigEndian.Uint16(v), Hook(v[2])
		case 2:
			p.Mark = word
		case 3:
			if len(v) < 16 {
				return Packet{}, false
			}
			p.Time = time.Unix(int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))*1000)
		case 4:
			p.In = word
		case 5:
			p.Out = word
		case 6:
			p.PhysIn = word
		case 7:
			p.PhysOut = word
		case 9:
			p.Payload = bytes.Clone(v)
		case 10:
			p.Prefix = string(bytes.TrimRight(v, "\x00"))
		case 11:
			p.UID, uid = word, true
		case 12:
			p.Seq = word
		case 14:
			p.GID, gid = word, true
		case 18:
			p.Conntrack = bytes.Clone(v)
		case 19:
			p.CTInfo, p.HasCTInfo = CTInfo(word), true
		}
	}
	if p.HasUID = uid && gid; !p.HasUID {
		p.UID, p.GID = 0, 0
	}
	return p, a.Err() == nil
}
