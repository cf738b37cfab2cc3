package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	subsystem = 1 // NFNL_SUBSYS_CTNETLINK

	opNew    = 0 // IPCTNL_MSG_CT_NEW
	opGet    = 1 // IPCTNL_MSG_CT_GET
	opDelete = 2 // IPCTNL_MSG_CT_DELETE

	nfgenmsgLen = 4 // struct nfgenmsg

	familyUnspec = 0  // AF_UNSPEC
	familyIPv4   = 2  // AF_INET
	familyIPv6   = 10 // AF_INET6
)

// enum ctattr_type
const (
	ctaTupleOrig     = 1  // CTA_TUPLE_ORIG
	ctaTupleReply    = 2  // CTA_TUPLE_REPLY
	ctaStatus        = 3  // CTA_STATUS
	ctaProtoinfo     = 4  // CTA_PROTOINFO
	ctaHelp          = 5  // CTA_HELP
	ctaTimeout       = 7  // CTA_TIMEOUT
	ctaMark          = 8  // CTA_MARK
	ctaCountersOrig  = 9  // CTA_COUNTERS_ORIG
	ctaCountersReply = 10 // CTA_COUNTERS_REPLY
	ctaUse           = 11 // CTA_USE
	ctaID            = 12 // CTA_ID
	ctaTupleMaster   = 14 // CTA_TUPLE_MASTER
	ctaSeqAdjOrig    = 15 // CTA_SEQ_ADJ_ORIG
	ctaSeqAdjReply   = 16 // CTA_SEQ_ADJ_REPLY
	ctaZone          = 18 // CTA_ZONE
	ctaSecctx        = 19 // CTA_SECCTX
	ctaTimestamp     = 20 // CTA_TIMESTAMP
	ctaMarkMask      = 21 // CTA_MARK_MASK
	ctaLabels        = 22 // CTA_LABELS
	ctaLabelsMask    = 23 // CTA_LABELS_MASK
	ctaSynproxy      = 24 // CTA_SYNPROXY
	ctaFilter        = 25 // CTA_FILTER
	ctaStatusMask    = 26 // CTA_STATUS_MASK
	ctaEventTime     = 27 // CTA_TIMESTAMP_EVENT: Linux 6.16
)

// enum ctattr_tuple, ctattr_ip, ctattr_l4proto
const (
	ctaTupleIP    = 1 // CTA_TUPLE_IP
	ctaTupleProto = 2 // CTA_TUPLE_PROTO
	ctaTupleZone  = 3 // CTA_TUPLE_ZONE

	ctaIPv4Src = 1 // CTA_IP_V4_SRC
	ctaIPv4Dst = 2 // CTA_IP_V4_DST
	ctaIPv6Src = 3 // CTA_IP_V6_SRC
	ctaIPv6Dst = 4 // CTA_IP_V6_DST

	ctaProtoNum     = 1 // CTA_PROTO_NUM
	ctaProtoSrcPort = 2 // CTA_PROTO_SRC_PORT
	ctaProtoDstPort = 3 // CTA_PROTO_DST_PORT
	ctaICMPID       = 4 // CTA_PROTO_ICMP_ID
	ctaICMPType     = 5 // CTA_PROTO_ICMP_TYPE
	ctaICMPCode     = 6 // CTA_PROTO_ICMP_CODE
	ctaICMPv6ID     = 7 // CTA_PROTO_ICMPV6_ID
	ctaICMPv6Type   = 8 // CTA_PROTO_ICMPV6_TYPE
	ctaICMPv6Code   = 9 // CTA_PROTO_ICMPV6_CODE
)

// enum ctattr_protoinfo, ctattr_protoinfo_tcp, ctattr_counters, ctattr_tstamp
const (
	ctaProtoinfoTCP = 1 // CTA_PROTOINFO_TCP

	ctaTCPState      = 1 // CTA_PROTOINFO_TCP_STATE
	ctaTCPScaleOrig  = 2 // CTA_PROTOINFO_TCP_WSCALE_ORIGINAL
	ctaTCPScaleReply = 3 // CTA_PROTOINFO_TCP_WSCALE_REPLY
	ctaTCPFlagsOrig  = 4 // CTA_PROTOINFO_TCP_FLAGS_ORIGINAL
	ctaTCPFlagsReply = 5 // CTA_PROTOINFO_TCP_FLAGS_REPLY

	ctaCountersPackets = 1 // CTA_COUNTERS_PACKETS
	ctaCountersBytes   = 2 // CTA_COUNTERS_BYTES

	ctaTimestampStart = 1 // CTA_TIMESTAMP_START
	ctaTimestampStop  = 2 // CTA_TIMESTAMP_STOP
)

var errShort = errors.New("message shorter than struct nfgenmsg")

// decodeFlow reads the payload of an IPCTNL_MSG_CT_NEW or _DELETE message.
// Unknown attributes are skipped. On error *f is the zero Flow.
func decodeFlow(b []byte, f *Flow) error {
	*f = Flow{}
	if len(b) < nfgenmsgLen {
		return errShort
	}
	err := f.decode(b[nfgenmsgLen:])
	if err == nil && f.Fields&fieldsDetails != 0 {
		err = f.decodeDetails(b[nfgenmsgLen:])
	}
	if err != nil {
		*f = Flow{}
	}
	return err
}

func (f *Flow) decode(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		var err error
		switch a.Type {
		case ctaTupleOrig:
			err = f.Original.decode(a.Value, &f.OriginalZone)
		case ctaTupleReply:
			err = f.Reply.decode(a.Value, &f.ReplyZone)
		case ctaStatus:
			f.Status, f.Fields = Status(a.U32(&bad)), f.Fields|FieldStatus
		case ctaProtoinfo:
			err = f.decodeProtoinfo(a.Value)
		case ctaTimeout:
			f.Timeout, f.Fields = time.Duration(a.U32(&bad))*time.Second, f.Fields|FieldTimeout
		case ctaMark:
			f.Mark, f.Fields = a.U32(&bad), f.Fields|FieldMark
		case ctaID:
			f.ID, f.Fields = a.U32(&bad), f.Fields|FieldID
		case ctaUse:
			f.Use, f.Fields = a.U32(&bad), f.Fields|FieldUse
		case ctaZone:
			f.Zone, f.Fields = a.U16(&bad), f.Fields|FieldZone
		case ctaCountersOrig:
			f.Fields |= FieldCounters
			err = f.OriginalCounter.decode(a.Value)
		case ctaCountersReply:
			f.Fields |= FieldCounters
			err = f.ReplyCounter.decode(a.Value)
		case ctaTimestamp:
			err = f.decodeTimestamp(a.Value)
		case ctaHelp, ctaTupleMaster, ctaSeqAdjOrig, ctaSeqAdjReply, ctaSecctx, ctaLabels:
			f.Fields |= fieldsDetails // until they are read: see decodeFlow
		case ctaSynproxy:
			if !unusedSynproxy(a.Value) {
				f.Fields |= fieldsDetails
			}
		}
		if err != nil {
			return fmt.Errorf("attribute %d: %w", a.Type, err)
		}
	}
	return bad.After(a)
}

func (t *Tuple) decode(b []byte, zone *uint16) error {
	if t.decodeUsual(b) {
		return nil
	}
	return t.decodeAny(b, zone)
}

// decodeAny reads a tuple however it is laid out.
func (t *Tuple) decodeAny(b []byte, zone *uint16) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		var err error
		switch a.Type {
		case ctaTupleIP:
			err = t.decodeIP(a.Value)
		case ctaTupleProto:
			err = t.decodeProto(a.Value)
		case ctaTupleZone:
			*zone = a.U16(&bad)
		}
		if err != nil {
			return err
		}
	}
	return bad.After(a)
}

func (t *Tuple) decodeIP(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		addr, ok := netip.AddrFromSlice(a.Value)
		switch a.Type {
		case ctaIPv4Src, ctaIPv6Src:
			t.Src = addr
		case ctaIPv4Dst, ctaIPv6Dst:
			t.Dst = addr
		default:
			ok = true
		}
		if !ok {
			return fmt.Errorf("address of %d bytes", len(a.Value))
		}
	}
	return bad.After(a)
}

func (t *Tuple) decodeProto(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case ctaProtoNum:
			t.Proto = Proto(a.U8(&bad))
		case ctaProtoSrcPort:
			t.SrcPort = a.U16(&bad)
		case ctaProtoDstPort:
			t.DstPort = a.U16(&bad)
		case ctaICMPID, ctaICMPv6ID:
			t.ICMPID = a.U16(&bad)
		case ctaICMPType, ctaICMPv6Type:
			t.ICMPType = a.U8(&bad)
		case ctaICMPCode, ctaICMPv6Code:
			t.ICMPCode = a.U8(&bad)
		}
	}
	return bad.After(a)
}

func (f *Flow) decodeProtoinfo(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case ctaProtoinfoTCP:
			f.Fields |= FieldTCP
			if err := f.TCP.decode(a.Value); err != nil {
				return err
			}
		case ctaProtoinfoSCTP, ctaProtoinfoDCCP:
			f.Fields |= fieldsDetails
		}
	}
	return bad.After(a)
}

func (t *TCPInfo) decode(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case ctaTCPState:
			t.State = TCPState(a.U8(&bad))
		case ctaTCPScaleOrig:
			t.OriginalScale = a.U8(&bad)
		case ctaTCPScaleReply:
			t.ReplyScale = a.U8(&bad)
		case ctaTCPFlagsOrig: // struct nf_ct_tcp_flags: flags, mask
			t.OriginalFlags = a.U8(&bad)
		case ctaTCPFlagsReply:
			t.ReplyFlags = a.U8(&bad)
		}
	}
	return bad.After(a)
}

func (c *Counter) decode(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case ctaCountersPackets:
			c.Packets = a.U64(&bad)
		case ctaCountersBytes:
			c.Bytes = a.U64(&bad)
		}
	}
	return bad.After(a)
}

func (f *Flow) decodeTimestamp(b []byte) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case ctaTimestampStart:
			f.Start, f.Fields = Timestamp(a.U64(&bad)), f.Fields|FieldStart
		case ctaTimestampStop:
			f.Stop, f.Fields = Timestamp(a.U64(&bad)), f.Fields|FieldStop
		}
	}
	return bad.After(a)
}
