package conntrack

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"net/netip"
	"time"
	"unique"
)

// flowKey is what no two entries share: the original tuple and the zone of its
// direction. It has no padding, so that it is hashed as one run of bytes.
type flowKey struct {
	src, dst      [16]byte
	first, second uint16 // ports; the ID, and type and code, of ICMP queries
	zone          uint16
	proto         Proto
	family        uint8
}

func keyOf(t *Tuple, zone uint16) flowKey {
	k := flowKey{src: t.Src.As16(), dst: t.Dst.As16(), first: t.SrcPort, second: t.DstPort, zone: zone, proto: t.Proto, family: t.family()}
	if t.Proto == ProtoICMP || t.Proto == ProtoICMPv6 {
		k.first, k.second = t.ICMPID, binary.BigEndian.Uint16([]byte{t.ICMPType, t.ICMPCode})
	}
	return k
}

func (k *flowKey) tuple() Tuple {
	t := Tuple{Src: netip.AddrFrom16(k.src), Dst: netip.AddrFrom16(k.dst), Proto: k.proto}
	if k.family == familyIPv4 {
		t.Src, t.Dst = t.Src.Unmap(), t.Dst.Unmap()
	}
	if k.proto == ProtoICMP || k.proto == ProtoICMPv6 {
		t.ICMPID, t.ICMPType, t.ICMPCode = k.first, uint8(k.second>>8), uint8(k.second)
	} else {
		t.SrcPort, t.DstPort = k.first, k.second
	}
	return t
}

// mirrorRow is a Flow in two thirds of the room. One without a family is free.
type mirrorRow struct {
	flowKey
	reply   *flowKey // nil: the original inverted
	details unique.Handle[Details]
	expires time.Duration // since the mirror was made
	start   Timestamp

	originalCounter, replyCounter Counter

	hash       uint32 // of the key; the next free row's number of a free one
	status     Status
	mark, id   uint32
	fields     Fields
	told       Fields // by events since the dump of this generation began
	generation uint32
	announced  bool // by an event, ever
	replyZone  uint16
	tcp        TCPInfo
}

// originalZone is the zone of the original direction, whether it is that of
// both or not: an entry has only one zone, and a mask of directions.
func (f *Flow) originalZone() uint16 { return max(f.Zone, f.OriginalZone) }

// mirrored are the parts of a Flow that a mirror keeps.
const mirrored = FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldID | FieldCounters | FieldStart | FieldZone | fieldsDetails

// merge takes what f has of the given fields.
func (r *mirrorRow) merge(f *Flow, fields Fields, now time.Duration) {
	fields &= f.Fields & mirrored
	r.fields |= fields
	r.setReply(f)
	if fields&FieldStatus != 0 {
		r.status = f.Status
	}
	if fields&FieldTimeout != 0 {
		r.expires = now + f.Timeout
	}
	if fields&FieldTCP != 0 {
		r.tcp = f.TCP
	}
	if fields&FieldMark != 0 {
		r.mark = f.Mark
	}
	if fields&FieldID != 0 {
		r.id = f.ID
	}
	if fields&FieldCounters != 0 {
		r.originalCounter, r.replyCounter = f.OriginalCounter, f.ReplyCounter
	}
	if fields&FieldStart != 0 {
		r.start = f.Start
	}
	if fields&fieldsDetails != 0 {
		r.mergeDetails(f, fields)
	}
}

func (r *mirrorRow) setReply(f *Flow) {
	r.replyZone = f.ReplyZone
	if f.Reply == f.Original.Invert() {
		r.reply = nil
		return
	}
	if k := keyOf(&f.Reply, 0); r.reply == nil || *r.reply != k {
		r.reply = &k
	}
}

// mergeDetails takes one part for the other: an event has only those that have
// just changed.
func (r *mirrorRow) mergeDetails(f *Flow, fields Fields) {
	d, from := Flow{details: r.details}.Details(), f.Details()
	for _, part := range []struct {
		field Fields
		take  func()
	}{
		{FieldLabels, func() { d.Labels = from.Labels }},
		{FieldHelper, func() { d.Helper = from.Helper }},
		{FieldMaster, func() { d.Master, d.MasterZone = from.Master, from.MasterZone }},
		{FieldSeqAdjust, func() { d.OriginalSeq, d.ReplySeq = from.OriginalSeq, from.ReplySeq }},
		{FieldSynproxy, func() { d.Synproxy = from.Synproxy }},
		{FieldSecurityContext, func() { d.SecurityContext = from.SecurityContext }},
		{FieldSCTP, func() { d.SCTP = from.SCTP }},
		{FieldDCCP, func() { d.DCCP = from.DCCP }},
	} {
		if fields&part.field != 0 {
			part.take()
		}
	}
	var whole Flow
	whole.setDetails(d)
	r.details = whole.details
}

// flow is the row as a Flow: the timeout is what is left of it.
func (r *mirrorRow) flow(now time.Duration) Flow {
	f := Flow{
		Original: r.tuple(), ReplyZone: r.replyZone, TCP: r.tcp, Status: r.status, Fields: r.fields, Mark: r.mark, ID: r.id,
		OriginalCounter: r.originalCounter, ReplyCounter: r.replyCounter, Start: r.start, details: r.details,
	}
	f.Reply = f.Original.Invert()
	if r.reply != nil {
		f.Reply = r.reply.tuple()
	}
	if f.Has(FieldZone) {
		f.Zone = r.zone
	} else {
		f.OriginalZone = r.zone
	}
	if f.Has(FieldTimeout) {
		f.Timeout = max(0, r.expires-now).Round(time.Second)
	}
	return f
}

// mirrorTable is a hash table of rows that stay where they are: 8 bytes beside
// each row, where a map takes 70.
type mirrorTable struct {
	seed  maphash.Seed
	slots []uint32      // a power of two of them: row numbers, 0 is free
	rows  [][]mirrorRow // in pieces; row 1 is the first
	made  uint32        // rows, free ones included
	free  uint32        // the first free row
	n     int
}

const (
	pieceBits = 9
	pieceLen  = 1 << pieceBits
)

func newMirrorTable() mirrorTable {
	return mirrorTable{seed: maphash.MakeSeed(), slots: make([]uint32, pieceLen)}
}

func (t *mirrorTable) row(number uint32) *mirrorRow {
	return &t.rows[(number-1)>>pieceBits][(number-1)%pieceLen]
}

func (t *mirrorTable) hash(k *flowKey) uint32 { return uint32(maphash.Comparable(t.seed, *k)) }

// slot returns where the key is, or where it would be put.
func (t *mirrorTable) slot(k *flowKey, hash uint32) uint32 {
	mask := uint32(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if t.slots[i] == 0 {
			return i
		}
		if r := t.row(t.slots[i]); r.hash == hash && r.flowKey == *k {
			return i
		}
	}
}

// find returns the key's row, nil if it has none.
func (t *mirrorTable) find(k *flowKey) *mirrorRow {
	if number := t.slots[t.slot(k, t.hash(k))]; number != 0 {
		return t.row(number)
	}
	return nil
}

// add makes a row for a key that has none.
func (t *mirrorTable) add(k *flowKey) *mirrorRow {
	if t.n++; t.n > len(t.slots)/4*3 {
		t.grow()
	}
	hash, number := t.hash(k), t.unused()
	t.slots[t.slot(k, hash)] = number
	r := t.row(number)
	*r = mirrorRow{flowKey: *k, hash: hash}
	return r
}

// unused takes a free row, or makes one.
func (t *mirrorTable) unused() uint32 {
	if number := t.free; number != 0 {
		t.free = t.row(number).hash
		return number
	}
	if t.made%pieceLen == 0 {
		t.rows = append(t.rows, make([]mirrorRow, pieceLen))
	}
	t.made++
	return t.made
}

func (t *mirrorTable) grow() {
	old := t.slots
	t.slots = make([]uint32, 2*len(old))
	for _, number := range old {
		if number != 0 {
			r := t.row(number)
			t.slots[t.slot(&r.flowKey, r.hash)] = number
		}
	}
}

// remove frees a row, and moves up those that its slot had pushed aside.
func (t *mirrorTable) remove(r *mirrorRow) {
	mask := uint32(len(t.slots) - 1)
	hole := t.slot(&r.flowKey, r.hash)
	number := t.slots[hole]
	for i := (hole + 1) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if home := t.row(t.slots[i]).hash & mask; (i-home)&mask >= (i-hole)&mask {
			t.slots[hole], hole = t.slots[i], i
		}
	}
	t.slots[hole] = 0
	*r = mirrorRow{hash: t.free}
	t.free = number
	t.n--
}

// all yields the rows, which may be removed meanwhile.
func (t *mirrorTable) all() iter.Seq[*mirrorRow] {
	return func(yield func(*mirrorRow) bool) {
		for _, piece := range t.rows {
			for i := range piece {
				if r := &piece[i]; r.family != 0 && !yield(r) {
					return
				}
			}
		}
	}
}
