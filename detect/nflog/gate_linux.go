package nflog

import (
	"encoding/binary"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// wanted are the attributes that Packet is made of (enum nfulnl_attr_type)
// with the bytes that each must have.
var wanted = [...]struct {
	yes bool
	min int
}{
	attrPacketHdr: {true, 4},
	attrMark:      {true, 4},
	attrTimestamp: {true, 16},
	attrIn:        {true, 4},
	attrOut:       {true, 4},
	attrPhysIn:    {true, 4},
	attrPhysOut:   {true, 4},
	attrHwAddr:    {true, 2},
	attrPayload:   {true, 0},
	attrPrefix:    {true, 0},
	attrUID:       {true, 4},
	attrSeq:       {true, 4},
	attrGlobalSeq: {true, 4},
	attrGID:       {true, 4},
	attrHwType:    {true, 2},
	attrHwHeader:  {true, 0},
	attrConntrack: {true, 0},
	attrCTInfo:    {true, 4},
	attrVLAN:      {true, 0},
	attrL2Header:  {true, 0},
}

// connection is the part of *netlink.Conn that gate stands before.
type connection interface {
	Send(netlink.Message) (netlink.Message, error)
	ReceiveIter() iter.Seq2[netlink.Message, error]
	Close() error
}

// gate is the socket that go-nflog v2.3.0 sees in place of its own. It amends
// what passes:
//
//   - Packets of every family are given the one whose header go-nflog skips;
//     for others it takes the header for an attribute (checkHeader).
//   - Attributes that are not wanted are taken out: of some, go-nflog reads
//     more bytes than it has checked, and of others it does not bear with new
//     ones inside. A packet it would stumble over is left out; its number will
//     be missing.
//   - An answer is waited for among the packets which may come before it; these
//     are kept for later.
//   - The kernel's refusals are kept, which go-nflog formats away.
//   - VLAN tags are put in the host's byte order, in which go-nflog reads them.
//   - The flags of the group are replaced: go-nflog refuses the sum of two as
//     unknown.
//
// Its methods are called from one goroutine at a time: first Listen's, then
// go-nflog's. Close may be called at any time.
type gate struct {
	conn  connection
	flags uint16 // NFULA_CFG_FLAGS

	requests int               // sent so far
	awaited  uint32            // number of the request without an answer, or 0
	early    []netlink.Message // packets that came before an answer
	refusal  error             // the last one
}

// Close implements netlink.Socket.
func (g *gate) Close() error { return g.conn.Close() }

// Send implements netlink.Socket.
func (g *gate) Send(m netlink.Message) error {
	if len(m.Data) >= nfgenLen {
		for a := nfnl.Walk(m.Data[nfgenLen:]); a.Next(); {
			if a.Type == cfgFlags && len(a.Value) == 2 {
				binary.BigEndian.PutUint16(a.Value, g.flags)
			}
		}
	}
	g.requests++
	g.awaited = m.Header.Sequence
	_, err := g.conn.Send(m)
	return err
}

// SendMessages implements netlink.Socket.
func (g *gate) SendMessages(msgs []netlink.Message) error {
	for _, m := range msgs {
		if err := g.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// Receive implements netlink.Socket.
func (g *gate) Receive() (msgs []netlink.Message, err error) {
	for m, err := range g.ReceiveIter() {
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// ReceiveIter implements netlink.Socket: the messages of one datagram.
func (g *gate) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		switch {
		case g.awaited != 0:
			yield(g.answer())
		case len(g.early) > 0:
			g.replay(yield)
		default:
			g.packets(yield)
		}
	}
}

// packets passes on those of one datagram.
func (g *gate) packets(yield func(netlink.Message, error) bool) {
	for m, err := range g.conn.ReceiveIter() {
		ok := err != nil
		if !ok {
			m, ok = amend(m)
		}
		if ok && !yield(m, err) {
			return
		}
	}
}

// answer waits for the kernel's answer to the last request.
func (g *gate) answer() (netlink.Message, error) {
	number := g.awaited
	g.awaited = 0
	for {
		var answer *netlink.Message
		for m, err := range g.conn.ReceiveIter() {
			if err != nil {
				g.refusal = err
				return netlink.Message{}, err
			}
			if m.Header.Type == netlink.Error && m.Header.Sequence == number {
				answer = &m
			} else if m, ok := amend(m); ok {
				g.early = append(g.early, m)
			}
		}
		if answer != nil {
			return *answer, nil
		}
	}
}

// replay gives one of the early messages: after an end of batch, go-nflog
// ignores what is left.
func (g *gate) replay(yield func(netlink.Message, error) bool) {
	m := g.early[0]
	g.early = g.early[1:]
	yield(m, nil)
}

// amend makes a packet's message good for go-nflog, in place, or reports false.
func amend(m netlink.Message) (netlink.Message, bool) {
	if m.Header.Type != typePacket || len(m.Data) < nfgenLen {
		return netlink.Message{}, false
	}
	kept := m.Data[:nfgenLen]
	a := nfnl.Walk(m.Data[nfgenLen:])
	for a.Next() {
		if int(a.Type) >= len(wanted) || !wanted[a.Type].yes {
			continue
		}
		if len(a.Value) < wanted[a.Type].min {
			return netlink.Message{}, false
		}
		switch a.Type {
		case attrHwAddr:
			var none nfnl.Fault
			if hwAddr(a.Attr, &none) == nil {
				continue
			}
		case attrVLAN:
			if !hostOrder(a.Value) {
				continue
			}
		}
		// Never overtakes the walk: what is kept moves to the front.
		kept = binary.NativeEndian.AppendUint16(kept, uint16(4+len(a.Value)))
		kept = binary.NativeEndian.AppendUint16(kept, a.Type)
		kept = append(kept, a.Value...)
		for len(kept)%4 != 0 && len(kept) < len(m.Data) {
			kept = append(kept, 0)
		}
	}
	kept[0], kept[1] = unix.AF_INET, unix.NFNETLINK_V0
	m.Data = kept
	return m, a.Err() == nil
}

// hostOrder turns the values of a VLAN tag from network to host byte order, in
// place. It reports false for a tag of other parts than the two, of which
// go-nflog makes an error.
func hostOrder(tag []byte) bool {
	a := nfnl.Walk(tag)
	for a.Next() {
		if a.Type != attrVLANProto && a.Type != attrVLANTCI || len(a.Value) != 2 {
			return false
		}
		binary.NativeEndian.PutUint16(a.Value, binary.BigEndian.Uint16(a.Value))
	}
	return a.Err() == nil
}
