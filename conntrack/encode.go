package conntrack

import (
	"errors"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

func (t Tuple) family() uint8 {
	switch {
	case t.Src.Is4():
		return familyIPv4
	case t.Src.IsValid():
		return familyIPv6
	}
	return familyUnspec
}

// encode appends t as the attribute typ. The zone is that of one direction
// only; 0 is left out.
func (t Tuple) encode(b *nfnl.Builder, typ, zone uint16) {
	b.Nested(typ, func() {
		b.Nested(ctaTupleIP, func() { t.encodeIP(b) })
		b.Nested(ctaTupleProto, func() { t.encodeProto(b) })
		if zone != 0 {
			b.U16(ctaTupleZone, zone)
		}
	})
}

func (t Tuple) encodeIP(b *nfnl.Builder) {
	if t.Src.Is4() {
		src, dst := t.Src.As4(), t.Dst.As4()
		b.Bytes(ctaIPv4Src, src[:])
		b.Bytes(ctaIPv4Dst, dst[:])
		return
	}
	src, dst := t.Src.As16(), t.Dst.As16()
	b.Bytes(ctaIPv6Src, src[:])
	b.Bytes(ctaIPv6Dst, dst[:])
}

func (t Tuple) encodeProto(b *nfnl.Builder) {
	b.U8(ctaProtoNum, uint8(t.Proto))
	switch {
	case t.Proto == ProtoICMP:
		b.U16(ctaICMPID, t.ICMPID)
		b.U8(ctaICMPType, t.ICMPType)
		b.U8(ctaICMPCode, t.ICMPCode)
	case t.Proto == ProtoICMPv6:
		b.U16(ctaICMPv6ID, t.ICMPID)
		b.U8(ctaICMPv6Type, t.ICMPType)
		b.U8(ctaICMPv6Code, t.ICMPCode)
	case t.hasPorts():
		b.U16(ctaProtoSrcPort, t.SrcPort)
		b.U16(ctaProtoDstPort, t.DstPort)
	}
}

var errNoID = errors.New("the flow has no ID (CTA_ID): take it from All, Snapshot or Get, " +
	"so that a later entry of the same tuple is not hit")

// encodeDelete asks to remove exactly one entry. A delete request without
// CTA_TUPLE_ORIG or CTA_TUPLE_REPLY empties the table (ctnetlink_del_conntrack),
// and one without CTA_ID hits whatever has the tuple by now: neither is ever made.
func encodeDelete(f *Flow) (nfnl.Message, error) {
	return encodeEntry(new(nfnl.Builder), opDelete, f)
}

// encodeEntry starts a request about the one entry that has the flow's original
// tuple, zone and ID. Of the operations, only a delete compares the ID.
func encodeEntry(b *nfnl.Builder, op uint8, f *Flow) (nfnl.Message, error) {
	if !f.Has(FieldID) {
		return nfnl.Message{}, errors.Join(f.Original.check(), errNoID)
	}
	if _, err := encodeLookup(b, op, f); err != nil {
		return nfnl.Message{}, err
	}
	b.U32(ctaID, f.ID)
	return b.Message(), nil
}

// encodeLookup starts a request about whatever entry has the flow's original
// tuple, in either direction, and zone.
func encodeLookup(b *nfnl.Builder, op uint8, f *Flow) (nfnl.Message, error) {
	if err := f.Original.check(); err != nil {
		return nfnl.Message{}, err
	}
	b.Netfilter(subsystem, op, 0, f.Original.family())
	f.Original.encode(b, ctaTupleOrig, f.OriginalZone)
	if f.Zone != 0 {
		b.U16(ctaZone, f.Zone)
	}
	return b.Message(), nil
}
