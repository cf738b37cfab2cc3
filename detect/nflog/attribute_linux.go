package nflog

import (
	"bytes"

	gonflog "github.com/florianl/go-nflog/v2"
)

// fromAttribute copies what go-nflog has read. numbered tells whether there is
// a Seq. The bytes are cloned: since the commits after v2.3.0 go-nflog's may be
// those of a buffer that is used again, and another goroutine gets them.
func fromAttribute(a *gonflog.Attribute) (p Packet, numbered bool) {
	p = Packet{
		Time:       value(a.Timestamp),
		Hook:       Hook(value(a.Hook)),
		HwProtocol: value(a.HwProtocol),
		Mark:       value(a.Mark),
		In:         value(a.InDev),
		Out:        value(a.OutDev),
		PhysIn:     value(a.PhysInDev),
		PhysOut:    value(a.PhysOutDev),
		Prefix:     value(a.Prefix),
		HwAddr:     bytes.Clone(value(a.HwAddr)),
		HwType:     value(a.HwType),
		LinkHeader: bytes.Clone(value(a.HwHeader)),
		VLAN:       VLAN(value(a.VLAN)),
		HasVLAN:    a.VLAN != nil,
		Seq:        value(a.Seq),
		GlobalSeq:  value(a.SeqGlobal),
		Payload:    bytes.Clone(value(a.Payload)),
		CTInfo:     CTInfo(value(a.CtInfo)),
		HasCTInfo:  a.CtInfo != nil,
		Conntrack:  bytes.Clone(value(a.Ct)),
		HasUID:     a.UID != nil && a.GID != nil,
	}
	if p.HasUID {
		p.UID, p.GID = *a.UID, *a.GID
	}
	if a.Layer2Hdr != nil {
		p.LinkHeader = bytes.Clone(*a.Layer2Hdr)
	}
	return p, a.Seq != nil
}

// value is what p points to, or zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
