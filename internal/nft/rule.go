package nft

import "net/netip"

// CTState is a set of connection-tracking states (NF_CT_STATE_BIT). A rule
// that names any makes the kernel track the connections of the network
// namespace: without such a rule, and without NAT, nothing is tracked.
type CTState uint32

// The states.
const (
	Invalid     CTState = 1 << 0 // NF_CT_STATE_INVALID_BIT
	Established CTState = 1 << 1 // IP_CT_ESTABLISHED
	Related     CTState = 1 << 2 // IP_CT_RELATED
	New         CTState = 1 << 3 // IP_CT_NEW
	Untracked   CTState = 1 << 6 // NF_CT_STATE_UNTRACKED_BIT

	allStates = Invalid | Established | Related | New | Untracked
)

// Transport protocols for Rule.Proto (IPPROTO_*).
const (
	ICMP    uint8 = 1
	TCP     uint8 = 6
	UDP     uint8 = 17
	DCCP    uint8 = 33
	ICMPv6  uint8 = 58
	SCTP    uint8 = 132
	UDPLite uint8 = 136
)

// Bits of the TCP header for TCPFlags.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// TCPFlags holds when the header's flags, of those in Mask, are exactly those
// in Value. A zero Mask always holds.
type TCPFlags struct{ Mask, Value uint8 }

// ICMP types of the errors that say why a packet went no further.
const (
	ICMPUnreachable   uint8 = 3 // ICMP_DEST_UNREACH
	ICMPv6Unreachable uint8 = 1 // ICMPV6_DEST_UNREACH
)

// Direction is which way of its connection a packet goes (ct direction). A
// packet of no connection, such as an invalid one, goes neither way.
type Direction uint8

// The directions.
const (
	AnyDirection Direction = iota
	Original               // IP_CT_DIR_ORIGINAL: as the first packet
	Reply                  // IP_CT_DIR_REPLY: as the answer to it
)

// Limit holds for Burst packets at once and PerSecond of them a second after
// that. A zero Limit always holds.
type Limit struct {
	PerSecond uint64
	Burst     uint32 // 0 is 5, as for nft(8)
}

// Log sends a copy of the packet to a group of nfnetlink_log.
type Log struct {
	Group uint16
	// Prefix goes with each packet: up to 127 bytes (NF_LOG_PREFIXLEN).
	Prefix string
	// Snaplen is how many bytes of the packet are copied; 0 is all.
	Snaplen uint32
	// Threshold is how many packets the kernel gathers before it sends; 0
	// leaves the choice to the listener.
	Threshold uint16
}

// Rule matches packets and does something with them. Every match that is set
// must hold; a zero field matches anything.
type Rule struct {
	// CTState holds when the packet's state is one of the set.
	CTState CTState
	// Proto is the transport protocol (meta l4proto).
	Proto uint8
	// SrcPort and DstPort need a Proto with ports.
	SrcPort, DstPort uint16
	// Src and Dst are the packet's addresses. In an INet table they also
	// choose the family.
	Src, Dst netip.Prefix
	// InIface and OutIface are interface names (meta iifname, oifname).
	InIface, OutIface string
	// TCPFlags needs Proto TCP.
	TCPFlags TCPFlags
	// ICMPType needs Proto ICMP or ICMPv6. 0 is any: the type of that number,
	// an echo reply, cannot be asked for.
	ICMPType uint8
	// Direction needs, like CTState, that connections were looked up.
	Direction Direction
	// Limit is asked last, so that only what matched all else uses it up.
	Limit Limit

	// Counter counts what matched; see Conn.Counters.
	Counter bool
	// Log, if not nil, logs what matched.
	Log *Log
	// Trace makes the kernel tell what the packet meets from here on: see
	// Conn.Traces.
	Trace bool
	// Helper assigns a helper to connections that are not yet confirmed: the
	// name of one of Table.Helpers.
	Helper string
	// TimeoutPolicy assigns a timeout policy of nfnetlink_cttimeout to
	// connections about to be looked up, through the iptables target CT. It
	// needs a Proto, a table of family IPv4 or IPv6 named "raw", and a chain
	// that is asked before PriorityConntrack.
	TimeoutPolicy string
	// Zone is the conntrack zone in which the packet's connection is looked up
	// (ct zone set); 0 sets none. It needs a chain that is asked before
	// PriorityConntrack.
	Zone uint16
	// Verdict is what becomes of what matched.
	Verdict Verdict
	// To is where DNAT, SNAT and Redirect send the packet. A zero port leaves
	// the port; a zero address is only for Redirect.
	To netip.AddrPort

	// Comment is shown by nft(8): up to 128 bytes.
	Comment string
}
