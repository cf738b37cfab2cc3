package packet

import (
	"encoding/binary"
	"net/netip"
)

// flowKey is both ends of a connection, the lesser first, packed: address,
// port, address, port.
type flowKey [36]byte

// flowOf returns the key of the connection of a packet with ports, and its
// direction: 0 from the lesser end to the greater, 1 the other way.
func flowOf(h *Header) (k flowKey, dir int) {
	src, dst := h.Src.As16(), h.Dst.As16()
	from, to := flowEnd(src, h.SrcPort), flowEnd(dst, h.DstPort)
	if string(from[:]) > string(to[:]) {
		from, to, dir = to, from, 1
	}
	copy(k[:18], from[:])
	copy(k[18:], to[:])
	return k, dir
}

func flowEnd(a [16]byte, port uint16) (e [18]byte) {
	copy(e[:], a[:])
	binary.BigEndian.PutUint16(e[16:], port)
	return e
}

// ends returns where a packet is from and where it goes to.
func (h *Header) ends() (from, to netip.AddrPort) {
	return netip.AddrPortFrom(h.Src, h.SrcPort), netip.AddrPortFrom(h.Dst, h.DstPort)
}

// flowTable keeps a value for each of so many connections. A new one takes the
// place of the one that was asked for least recently.
type flowTable[V any] struct {
	index     map[flowKey]int32
	rows      []flowRow[V] // rows[0] is the head of the ring: next is the latest
	free      int32        // the first row without a value, by next; 0 is none
	limit     int
	forgotten uint64 // values that lost their place
}

type flowRow[V any] struct {
	key        flowKey
	prev, next int32
	value      V
}

func newFlowTable[V any](limit int) flowTable[V] {
	return flowTable[V]{index: make(map[flowKey]int32), rows: make([]flowRow[V], 1), limit: max(limit, 1)}
}

// get returns the value of a connection, nil if there is none. It is good until
// the next put.
func (t *flowTable[V]) get(k flowKey) *V {
	i, ok := t.index[k]
	if !ok {
		return nil
	}
	t.unlink(i)
	t.link(i)
	return &t.rows[i].value
}

// put gives a connection a value in place of the one it may have.
func (t *flowTable[V]) put(k flowKey, v V) *V {
	if old := t.get(k); old != nil {
		*old = v
		return old
	}
	i := t.room()
	t.rows[i].key, t.rows[i].value = k, v
	t.index[k] = i
	t.link(i)
	return &t.rows[i].value
}

// room returns a row that is in no list.
func (t *flowTable[V]) room() int32 {
	if i := t.free; i != 0 {
		t.free = t.rows[i].next
		return i
	}
	if len(t.rows) <= t.limit {
		t.rows = append(t.rows, flowRow[V]{})
		return int32(len(t.rows) - 1)
	}
	i := t.rows[0].prev
	t.unlink(i)
	delete(t.index, t.rows[i].key)
	t.forgotten++
	return i
}

func (t *flowTable[V]) delete(k flowKey) {
	i, ok := t.index[k]
	if !ok {
		return
	}
	delete(t.index, k)
	t.unlink(i)
	t.rows[i].next, t.free = t.free, i
}

func (t *flowTable[V]) link(i int32) {
	next := t.rows[0].next
	t.rows[i].prev, t.rows[i].next = 0, next
	t.rows[next].prev, t.rows[0].next = i, i
}

func (t *flowTable[V]) unlink(i int32) {
	prev, next := t.rows[i].prev, t.rows[i].next
	t.rows[prev].next, t.rows[next].prev = next, prev
}
