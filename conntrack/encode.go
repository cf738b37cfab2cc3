package conntrack

import (
	"errors"
	"fmt"
	"math"
	"time"

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
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if !t.Src.Is4() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	b.Bytes(src, t.Src.AsSlice())
	b.Bytes(dst, t.Dst.AsSlice())
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

// encodeGet asks for one entry by the tuple of either direction.
func encodeGet(t Tuple, zone uint16) (nfnl.Message, error) {
	if err := t.check(); err != nil {
		return nfnl.Message{}, err
	}
	b := nfnl.NewNetfilter(subsystem, opGet, 0, t.family())
	t.encode(b, ctaTupleOrig, 0)
	if zone != 0 {
		b.U16(ctaZone, zone)
	}
	return b.Message(), nil
}

var errNoID = errors.New("the flow has no ID (CTA_ID): take it from All, Snapshot or Get, " +
	"so that a later entry of the same tuple is not hit")

// encodeDelete asks to remove exactly one entry. A delete request without
// CTA_TUPLE_ORIG or CTA_TUPLE_REPLY empties the table (ctnetlink_del_conntrack),
// and one without CTA_ID hits whatever has the tuple by now: neither is ever
// made.
func encodeDelete(f *Flow) (nfnl.Message, error) {
	if err := f.Original.check(); err != nil {
		return nfnl.Message{}, err
	}
	if !f.Has(FieldID) {
		return nfnl.Message{}, errNoID
	}
	b := nfnl.NewNetfilter(subsystem, opDelete, 0, f.Original.family())
	f.Original.encode(b, ctaTupleOrig, f.OriginalZone)
	if f.Zone != 0 {
		b.U16(ctaZone, f.Zone)
	}
	b.U32(ctaID, f.ID)
	return b.Message(), nil
}

// encodeCreate asks for a new entry.
func encodeCreate(f *Flow) (nfnl.Message, error) {
	for _, t := range []Tuple{f.Original, f.Reply} {
		if err := t.check(); err != nil {
			return nfnl.Message{}, err
		}
	}
	if f.Timeout < time.Second || f.Timeout > math.MaxUint32*time.Second {
		return nfnl.Message{}, fmt.Errorf("timeout %v: want 1s to %v", f.Timeout, math.MaxUint32*time.Second)
	}
	b := nfnl.NewNetfilter(subsystem, opNew, nfnl.Create|nfnl.Exclude, f.Original.family())
	f.Original.encode(b, ctaTupleOrig, f.OriginalZone)
	f.Reply.encode(b, ctaTupleReply, f.ReplyZone)
	if f.Zone != 0 {
		b.U16(ctaZone, f.Zone)
	}
	b.U32(ctaStatus, uint32(f.Status|Confirmed)) // EBUSY without it
	b.U32(ctaTimeout, uint32(f.Timeout/time.Second))
	if f.Has(FieldMark) || f.Mark != 0 {
		b.U32(ctaMark, f.Mark)
	}
	if f.Original.Proto == ProtoTCP {
		f.TCP.encode(b)
	}
	return b.Message(), nil
}

func (t *TCPInfo) encode(b *nfnl.Builder) {
	b.Nested(ctaProtoinfo, func() {
		b.Nested(ctaProtoinfoTCP, func() {
			b.U8(ctaTCPState, uint8(t.State))
			b.Bytes(ctaTCPFlagsOrig, []byte{t.OriginalFlags, t.OriginalFlags})
			b.Bytes(ctaTCPFlagsReply, []byte{t.ReplyFlags, t.ReplyFlags})
			b.U8(ctaTCPScaleOrig, t.OriginalScale)
			b.U8(ctaTCPScaleReply, t.ReplyScale)
		})
	})
}
