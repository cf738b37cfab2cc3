package conntrack

import (
	"fmt"
	"net/netip"
	"time"
	"unique"
)

// Flow is one entry of the connection tracking table (struct nf_conn as
// ctnetlink shows it). It is comparable. What few entries have is behind
// Details.
type Flow struct {
	// Original is the tuple of the packets of the direction that was seen
	// first, as they enter the tracker: before any translation.
	Original Tuple
	// Reply is the tuple expected of the packets of the other direction, as
	// they enter the tracker. It is Original inverted unless addresses are
	// translated.
	Reply Tuple

	// Zone is the conntrack zone both directions are in (CTA_ZONE).
	// OriginalZone and ReplyZone are those of one direction only
	// (CTA_TUPLE_ZONE). 0 is the default zone.
	Zone, OriginalZone, ReplyZone uint16

	TCP    TCPInfo
	Status Status
	// Fields says which of the values the kernel, or the text, gave.
	Fields Fields

	// Timeout is the time left until the entry expires, in whole seconds.
	// Offloaded flows have none: see Has.
	Timeout time.Duration
	Mark    uint32
	// ID is made of the tuple and of where the entry lies in the kernel's
	// memory (CTA_ID, nf_ct_get_id). It tells an entry from a later one of the
	// same tuple, unless that one was given the same memory: right after the
	// earlier one went, it often is. Start then tells them apart.
	ID uint32
	// Use is the entry's reference count.
	Use uint32
	// Secmark is the obsolete secmark= of old textual forms.
	Secmark uint32

	// The counters are kept with net.netfilter.nf_conntrack_acct=1, for
	// entries made since it was set.
	OriginalCounter, ReplyCounter Counter

	// Start and Stop are kept with net.netfilter.nf_conntrack_timestamp=1,
	// for entries made since it was set.
	Start, Stop Timestamp

	details unique.Handle[Details] // the zero Handle when there are none
}

// Tuple is what the packets of one direction have in common. It is comparable
// and can be a map key.
type Tuple struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are the ports of TCP, UDP, UDP-Lite, SCTP and DCCP,
	// and the low 16 bits of the keys of GRE.
	SrcPort, DstPort uint16
	// ICMPID, ICMPType and ICMPCode are those of ICMP and ICMPv6 queries.
	ICMPID             uint16
	ICMPType, ICMPCode uint8
	// Proto is the transport protocol (IPPROTO_*).
	Proto Proto
}

// Invert returns the tuple of the answer to a packet of t: addresses and ports
// exchanged, an ICMP query's type replaced by its reply's.
func (t Tuple) Invert() Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	switch t.Proto {
	case ProtoICMP:
		t.ICMPType = invertICMP(t.ICMPType)
	case ProtoICMPv6:
		t.ICMPType = invertICMPv6(t.ICMPType)
	}
	return t
}

// invertICMP is invmap of nf_conntrack_proto_icmp.c: echo, timestamp,
// information and address mask queries. Other types are left.
func invertICMP(typ uint8) uint8 {
	switch typ {
	case 0, 8:
		return 8 - typ
	case 13, 15, 17:
		return typ + 1
	case 14, 16, 18:
		return typ - 1
	}
	return typ
}

// invertICMPv6 is invmap of nf_conntrack_proto_icmpv6.c: echo (128, 129) and
// node information (139, 140).
func invertICMPv6(typ uint8) uint8 {
	switch typ {
	case 128, 139:
		return typ + 1
	case 129, 140:
		return typ - 1
	}
	return typ
}

// hasPorts reports whether the protocol's tuples have ports.
func (t Tuple) hasPorts() bool {
	switch t.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP, ProtoGRE:
		return true
	}
	return false
}

// check says why the kernel could not take t.
func (t Tuple) check() error {
	switch {
	case !t.Src.IsValid() || !t.Dst.IsValid():
		return fmt.Errorf("tuple %v: an address is missing", t)
	case t.Src.Is4() != t.Dst.Is4():
		return fmt.Errorf("tuple %v: the addresses are of different families", t)
	case t.Src.Zone() != "" || t.Dst.Zone() != "":
		return fmt.Errorf("tuple %v: conntrack knows no scope zone of an address", t)
	}
	return nil
}

// String writes t in conntrack(8)'s words: src=… dst=… sport=… dport=….
func (t Tuple) String() string { return string(t.append(nil)) }

// Counter is the traffic of one direction.
type Counter struct {
	Packets, Bytes uint64
}

// Timestamp is a wall-clock instant in nanoseconds since the Unix epoch; 0 is
// not recorded.
type Timestamp int64

// Time returns the instant; the zero Time when it was not recorded.
func (t Timestamp) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(t))
}

// TCPInfo is what the tracker knows of a TCP connection (CTA_PROTOINFO_TCP).
type TCPInfo struct {
	State TCPState
	// OriginalFlags and ReplyFlags are IP_CT_TCP_FLAG_* of each direction.
	OriginalFlags, ReplyFlags uint8
	// OriginalScale and ReplyScale are the window scale shifts, 0 to 14.
	OriginalScale, ReplyScale uint8
}

// Fields is a set of the parts of a Flow that can be absent.
type Fields uint32

// The parts of a Flow that can be absent.
const (
	FieldStatus Fields = 1 << iota
	FieldTimeout
	FieldTCP // the state at least; textual forms have no more
	FieldMark
	FieldID
	FieldUse
	FieldCounters
	FieldStart
	FieldStop
	FieldZone
	FieldSecmark

	// Of Details.
	FieldLabels
	FieldHelper
	FieldMaster
	FieldSeqAdjust
	FieldSynproxy
	FieldSecurityContext
	FieldSCTP
	FieldDCCP
)

// Has reports whether all of the fields were given.
func (f Flow) Has(fields Fields) bool { return f.Fields&fields == fields }

// Unreplied reports that no packet of the reply direction was ever seen
// (IPS_SEEN_REPLY unset): [UNREPLIED].
func (f Flow) Unreplied() bool { return f.Has(FieldStatus) && f.Status&SeenReply == 0 }

// Assured reports that the entry survives early drop: [ASSURED].
func (f Flow) Assured() bool { return f.Status&Assured != 0 }

// Offloaded reports that a flow table forwards the packets past the tracker
// (IPS_OFFLOAD or IPS_HW_OFFLOAD): the kernel then shows neither timeout nor
// TCP state.
func (f Flow) Offloaded() bool { return f.Status&(Offload|HWOffload) != 0 }
