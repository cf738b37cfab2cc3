package conntrack

import (
	"fmt"
	"strings"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// enum ctattr_protoinfo, ctattr_protoinfo_sctp, ctattr_protoinfo_dccp,
// ctattr_help, ctattr_seqadj, ctattr_secctx, ctattr_synproxy
const (
	ctaProtoinfoDCCP = 2 // CTA_PROTOINFO_DCCP
	ctaProtoinfoSCTP = 3 // CTA_PROTOINFO_SCTP

	ctaSCTPState    = 1 // CTA_PROTOINFO_SCTP_STATE
	ctaSCTPTagOrig  = 2 // CTA_PROTOINFO_SCTP_VTAG_ORIGINAL
	ctaSCTPTagReply = 3 // CTA_PROTOINFO_SCTP_VTAG_REPLY

	ctaDCCPState        = 1 // CTA_PROTOINFO_DCCP_STATE
	ctaDCCPRole         = 2 // CTA_PROTOINFO_DCCP_ROLE
	ctaDCCPHandshakeSeq = 3 // CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ

	ctaHelpName = 1 // CTA_HELP_NAME

	ctaSeqAdjPosition = 1 // CTA_SEQADJ_CORRECTION_POS
	ctaSeqAdjBefore   = 2 // CTA_SEQADJ_OFFSET_BEFORE
	ctaSeqAdjAfter    = 3 // CTA_SEQADJ_OFFSET_AFTER

	ctaSecctxName = 1 // CTA_SECCTX_NAME

	ctaSynproxyISN   = 1 // CTA_SYNPROXY_ISN
	ctaSynproxyITS   = 2 // CTA_SYNPROXY_ITS
	ctaSynproxyTSOff = 3 // CTA_SYNPROXY_TSOFF
)

// unusedSynproxy tells the zero record, which every entry made over ctnetlink
// has (ctnetlink_create_conntrack), from one that is used.
func unusedSynproxy(b []byte) bool {
	const one = 8 // struct nlattr and 4 bytes
	if len(b) != 3*one {
		return false
	}
	const value = 4
	var zero [value]byte
	return [value]byte(b[value:]) == zero && [value]byte(b[one+value:]) == zero && [value]byte(b[2*one+value:]) == zero
}

// decodeDetails reads what Flow.decode left: it walks the message once more, so
// that flows without details never have them in their way.
func (f *Flow) decodeDetails(b []byte) error {
	var d Details
	f.Fields &^= fieldsDetails
	for a := nfnl.Walk(b); a.Next(); {
		field, err := d.decode(a.Attr)
		if err != nil {
			return fmt.Errorf("attribute %d: %w", a.Type, err)
		}
		f.Fields |= field
	}
	f.setDetails(d)
	return nil
}

func (d *Details) decode(a nfnl.Attr) (Fields, error) {
	switch a.Type {
	case ctaProtoinfo:
		return d.decodeProtoinfo(a.Value)
	case ctaHelp:
		return FieldHelper, decodeName(a.Value, ctaHelpName, &d.Helper)
	case ctaSecctx:
		return FieldSecurityContext, decodeName(a.Value, ctaSecctxName, &d.SecurityContext)
	case ctaTupleMaster:
		return FieldMaster, d.Master.decode(a.Value, &d.MasterZone)
	case ctaSeqAdjOrig:
		return FieldSeqAdjust, d.OriginalSeq.decode(a.Value)
	case ctaSeqAdjReply:
		return FieldSeqAdjust, d.ReplySeq.decode(a.Value)
	case ctaSynproxy:
		if unusedSynproxy(a.Value) {
			return 0, nil
		}
		return FieldSynproxy, d.Synproxy.decode(a.Value)
	case ctaLabels:
		if len(a.Value) > len(d.Labels) {
			return 0, fmt.Errorf("labels of %d bytes, want %d at most", len(a.Value), len(d.Labels))
		}
		copy(d.Labels[:], a.Value)
		return FieldLabels, nil
	}
	return 0, nil
}

func (d *Details) decodeProtoinfo(b []byte) (Fields, error) {
	for a := nfnl.Walk(b); a.Next(); {
		switch a.Type {
		case ctaProtoinfoSCTP:
			return FieldSCTP, d.SCTP.decode(a.Value)
		case ctaProtoinfoDCCP:
			return FieldDCCP, d.DCCP.decode(a.Value)
		}
	}
	return 0, nil
}

// decodeName reads the string that is the attribute typ of a nest.
func decodeName(b []byte, typ uint16, to *string) error {
	a := nfnl.Walk(b)
	for a.Next() {
		if a.Type == typ {
			*to = strings.ToValidUTF8(a.String(), "?")
		}
	}
	return a.Err()
}

func (s *SeqAdj) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaSeqAdjPosition:
			s.Position = a.U32()
		case ctaSeqAdjBefore:
			s.Before = int32(a.U32())
		case ctaSeqAdjAfter:
			s.After = int32(a.U32())
		}
	}
	return a.Err()
}

func (s *Synproxy) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaSynproxyISN:
			s.ISN = a.U32()
		case ctaSynproxyITS:
			s.ITS = a.U32()
		case ctaSynproxyTSOff:
			s.TimestampOffset = a.U32()
		}
	}
	return a.Err()
}

func (s *SCTPInfo) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaSCTPState:
			s.State = SCTPState(a.U8())
		case ctaSCTPTagOrig:
			s.OriginalTag = a.U32()
		case ctaSCTPTagReply:
			s.ReplyTag = a.U32()
		}
	}
	return a.Err()
}

func (s *DCCPInfo) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaDCCPState:
			s.State = DCCPState(a.U8())
		case ctaDCCPRole:
			s.Role = a.U8()
		case ctaDCCPHandshakeSeq:
			s.HandshakeSeq = a.U64()
		}
	}
	return a.Err()
}
