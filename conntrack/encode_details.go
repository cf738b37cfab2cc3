package conntrack

import "github.com/connsleuth/connsleuth/internal/nfnl"

// encode appends the details that are not zero, as far as the kernel takes them:
// a security context it does not.
func (d *Details) encode(b *nfnl.Builder, proto Proto) {
	d.encodeProtoinfo(b, proto)
	if d.Helper != "" {
		encodeHelper(b, d.Helper)
	}
	if d.Master != (Tuple{}) {
		d.Master.encode(b, ctaTupleMaster, 0) // EINVAL with a zone
	}
	if d.OriginalSeq != (SeqAdj{}) || d.ReplySeq != (SeqAdj{}) {
		d.OriginalSeq.encode(b, ctaSeqAdjOrig)
		d.ReplySeq.encode(b, ctaSeqAdjReply)
	}
	if d.Synproxy != (Synproxy{}) {
		d.Synproxy.encode(b)
	}
	if !d.Labels.IsZero() {
		b.Bytes(ctaLabels, d.Labels[:])
	}
}

func (d *Details) encodeProtoinfo(b *nfnl.Builder, proto Proto) {
	switch proto {
	case ProtoSCTP:
		b.Nested(ctaProtoinfo, func() { d.SCTP.encode(b) })
	case ProtoDCCP:
		b.Nested(ctaProtoinfo, func() { d.DCCP.encode(b) })
	}
}

// encodeHelper appends a helper's name; the empty one removes the helper.
func encodeHelper(b *nfnl.Builder, name string) {
	b.Nested(ctaHelp, func() { b.String(ctaHelpName, name) })
}

func (s SeqAdj) encode(b *nfnl.Builder, typ uint16) {
	b.Nested(typ, func() {
		b.U32(ctaSeqAdjPosition, s.Position)
		b.U32(ctaSeqAdjBefore, uint32(s.Before))
		b.U32(ctaSeqAdjAfter, uint32(s.After))
	})
}

func (s Synproxy) encode(b *nfnl.Builder) {
	b.Nested(ctaSynproxy, func() {
		b.U32(ctaSynproxyISN, s.ISN)
		b.U32(ctaSynproxyITS, s.ITS)
		b.U32(ctaSynproxyTSOff, s.TimestampOffset)
	})
}

func (s SCTPInfo) encode(b *nfnl.Builder) {
	b.Nested(ctaProtoinfoSCTP, func() {
		b.U8(ctaSCTPState, uint8(s.State))
		b.U32(ctaSCTPTagOrig, s.OriginalTag)
		b.U32(ctaSCTPTagReply, s.ReplyTag)
	})
}

func (s DCCPInfo) encode(b *nfnl.Builder) {
	b.Nested(ctaProtoinfoDCCP, func() {
		b.U8(ctaDCCPState, uint8(s.State))
		b.U8(ctaDCCPRole, s.Role)
		b.U64(ctaDCCPHandshakeSeq, s.HandshakeSeq)
	})
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
