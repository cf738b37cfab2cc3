package conntrack

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Filter chooses flows: those that all its parts agree to. The zero Filter, as
// a nil one, chooses all, and each part that is zero is no condition. It is
// comparable. Its String is what ParseFilter reads.
//
// A flow that lacks the value a part asks for does not match: an ICMP flow has
// no ports, an offloaded one no timeout. See Flow.Has.
//
// What the kernel can check, and checks rightly on every version that takes
// the question, is checked there: Explain tells what that is. Everything is
// checked again here, because kernels ignore the filters they do not know.
type Filter struct {
	// IPv4Only and IPv6Only choose a family. A prefix of a family asks for
	// it, too.
	IPv4Only, IPv6Only bool
	// Proto is the transport protocol.
	Proto Proto

	// Src and Dst hold the addresses of the original direction, ReplySrc and
	// ReplyDst those of the reply. An IPv4-mapped prefix (::ffff:192.0.2.0/120)
	// stands for the IPv4 prefix. The zero Prefix is no condition, 0.0.0.0/0
	// holds all of IPv4, and a prefix that is not valid holds none.
	Src, Dst, ReplySrc, ReplyDst netip.Prefix
	// SrcPort and DstPort hold the ports of the original direction,
	// ReplySrcPort and ReplyDstPort those of the reply: see Tuple.
	SrcPort, DstPort, ReplySrcPort, ReplyDstPort PortRange
	// Addr holds one address or more, Port one port or more, of the four that
	// source and destination have in the two directions; not necessarily of
	// the same end.
	Addr netip.Prefix
	Port PortRange

	// ICMPType, ICMPCode and ICMPID are those of the original direction's
	// ICMP or ICMPv6 queries. 0 is no condition: code 0 and ID 0 cannot be
	// asked for, and type 0, an answer, begins no entry.
	ICMPType, ICMPCode uint8
	ICMPID             uint16

	// TCPStates is the set of TCP states that match, made by TCPStateSet, and
	// SCTPStates that of SCTP. What is not of the protocol does not match.
	TCPStates  TCPStates
	SCTPStates SCTPStates
	// StatusSet must all be set and StatusUnset all be unset: unreplied flows
	// are those with StatusUnset: SeenReply.
	StatusSet, StatusUnset Status

	// Mark is what the bits of MarkMask must be. MarkMask 0 with another Mark
	// than 0 is all bits, and Mark 0 with MarkMask ^uint32(0) asks for the
	// unmarked. With a bit outside of MarkMask nothing matches. A flow without
	// a mark has mark 0: events leave that out.
	Mark, MarkMask uint32
	// Zone is the conntrack zone of the entry, whether it is of both
	// directions or of one (nf_ct_zone): any of Flow.Zone, OriginalZone and
	// ReplyZone. InZone is needed to ask for the default zone, 0.
	InZone bool
	Zone   uint16
	// OriginalZone and ReplyZone are zones of one direction only.
	OriginalZone, ReplyZone uint16
	// Labels must all be set.
	Labels Labels

	// MinTimeout and MaxTimeout bound the time left. Flows have it in whole
	// seconds.
	MinTimeout, MaxTimeout time.Duration
	// MinPackets to MaxBytes bound the traffic of both directions together,
	// for entries with counters.
	MinPackets, MaxPackets uint64
	MinBytes, MaxBytes     uint64

	// Translated, SourceNAT and DestinationNAT ask for what Flow's methods of
	// these names tell.
	Translated, SourceNAT, DestinationNAT bool
	// SourceNATTo and DestinationNATTo hold the address that source or
	// destination is rewritten to, and TranslatedTo either of them. One of
	// which only the port is rewritten does not match.
	TranslatedTo, SourceNATTo, DestinationNATTo netip.Prefix

	// Helper is the name of the tracking helper, such as "ftp".
	Helper string
	// ID is the entry's ID.
	ID uint32
}

// PortRange is the ports from First to Last. The zero PortRange is no
// condition, and Last 0 stands for First. One that ends before it begins holds
// none.
type PortRange struct{ First, Last uint16 }

// Contains reports whether the range holds the port; the zero PortRange holds
// all.
func (r PortRange) Contains(port uint16) bool {
	return r == PortRange{} || r.First <= port && port <= r.last()
}

func (r PortRange) last() uint16 {
	if r.Last == 0 {
		return r.First
	}
	return r.Last
}

// String returns "80" or "1000:2000"; the zero PortRange is "".
func (r PortRange) String() string {
	switch {
	case r == PortRange{}:
		return ""
	case r.Last == 0:
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + ":" + strconv.Itoa(int(r.Last))
}

// TCPStates is a set of TCP states.
type TCPStates uint16

// TCPStateSet makes a set.
func TCPStateSet(states ...TCPState) TCPStates {
	var set TCPStates
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether the state is in the set.
func (set TCPStates) Has(s TCPState) bool { return set&(1<<s) != 0 }

// String returns the kernel's words for the states, joined by commas.
func (set TCPStates) String() string { return joinStates(uint16(set), TCPState.String) }

// SCTPStates is a set of SCTP states.
type SCTPStates uint16

// SCTPStateSet makes a set.
func SCTPStateSet(states ...SCTPState) SCTPStates {
	var set SCTPStates
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether the state is in the set.
func (set SCTPStates) Has(s SCTPState) bool { return set&(1<<s) != 0 }

// String returns the kernel's words for the states, joined by commas.
func (set SCTPStates) String() string { return joinStates(uint16(set), SCTPState.String) }

func joinStates[S ~uint8](set uint16, word func(S) string) string {
	var words []string
	for s := range S(16) {
		if set&(1<<s) != 0 {
			words = append(words, word(s))
		}
	}
	return strings.Join(words, ",")
}
