package nflog

import (
	"bytes"

	gonflog "github.com/florianl/go-nflog/v2"
)

// fromAttribute copies what go-nflog has read. numbered tells whether there is
// a Seq. The bytes are cloned: since the commits after v2.3.0 go-nflog's may be
// those of a buffer that is used again.
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
		Seq:        value(a.Seq),
		Payload:    bytes.Clone(value(a.Payload)),
		CTInfo:     CTInfo(value(a.CtInfo)),
		HasCTInfo:  a.CtInfo != nil,
		Conntrack:  bytes.Clone(value(a.Ct)),
		HasUID:     a.UID != nil && a.GID != nil,
	}
	if p.HasUID {
		p.UID, p.GID = *a.UID, *a.GID
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
