package conntrack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Proto is a transport protocol number (IPPROTO_*).
type Proto uint8

// The protocols that have a tracker of their own (nf_conntrack_l4proto).
const (
	ProtoICMP    Proto = 1   // IPPROTO_ICMP
	ProtoTCP     Proto = 6   // IPPROTO_TCP
	ProtoUDP     Proto = 17  // IPPROTO_UDP
	ProtoDCCP    Proto = 33  // IPPROTO_DCCP
	ProtoGRE     Proto = 47  // IPPROTO_GRE
	ProtoICMPv6  Proto = 58  // IPPROTO_ICMPV6
	ProtoSCTP    Proto = 132 // IPPROTO_SCTP
	ProtoUDPLite Proto = 136 // IPPROTO_UDPLITE
)

// String returns conntrack's word for the protocol, or its number.
func (p Proto) String() string {
	if name := p.name(); name != "unknown" {
		return name
	}
	return strconv.Itoa(int(p))
}

// name returns conntrack's word, which is "unknown" for a protocol without a
// tracker.
func (p Proto) name() string {
	switch p {
	case ProtoICMP:
		return "icmp"
	case ProtoTCP:
		return "tcp"
	case ProtoUDP:
		return "udp"
	case ProtoDCCP:
		return "dccp"
	case ProtoGRE:
		return "gre"
	case ProtoICMPv6:
		return "icmpv6"
	case ProtoSCTP:
		return "sctp"
	case ProtoUDPLite:
		return "udplite"
	}
	return "unknown"
}

// TCPState is the tracker's view of a TCP connection (enum tcp_conntrack in
// linux/netfilter/nf_conntrack_tcp.h). It is not the state of either socket.
type TCPState uint8

// The TCP states of the tracker.
const (
	TCPNone        TCPState = iota // TCP_CONNTRACK_NONE
	TCPSynSent                     // TCP_CONNTRACK_SYN_SENT
	TCPSynRecv                     // TCP_CONNTRACK_SYN_RECV
	TCPEstablished                 // TCP_CONNTRACK_ESTABLISHED
	TCPFinWait                     // TCP_CONNTRACK_FIN_WAIT
	TCPCloseWait                   // TCP_CONNTRACK_CLOSE_WAIT
	TCPLastAck                     // TCP_CONNTRACK_LAST_ACK
	TCPTimeWait                    // TCP_CONNTRACK_TIME_WAIT
	TCPClose                       // TCP_CONNTRACK_CLOSE
	TCPSynSent2                    // TCP_CONNTRACK_SYN_SENT2; LISTEN before Linux 2.6.31
)

var tcpStateNames = [...]string{
	TCPNone: "NONE", TCPSynSent: "SYN_SENT", TCPSynRecv: "SYN_RECV", TCPEstablished: "ESTABLISHED",
	TCPFinWait: "FIN_WAIT", TCPCloseWait: "CLOSE_WAIT", TCPLastAck: "LAST_ACK", TCPTimeWait: "TIME_WAIT",
	TCPClose: "CLOSE", TCPSynSent2: "SYN_SENT2",
}

// String returns the kernel's word for the state.
func (s TCPState) String() string {
	if int(s) < len(tcpStateNames) {
		return tcpStateNames[s]
	}
	return fmt.Sprintf("TCP_CONNTRACK_%d", uint8(s))
}

// ParseTCPState reads what String writes, and LISTEN, which old kernels call
// TCPSynSent2.
func ParseTCPState(s string) (TCPState, bool) {
	if s == "LISTEN" {
		return TCPSynSent2, true
	}
	n, ok := parseState(s, tcpStateNames[:], "TCP_CONNTRACK_")
	return TCPState(n), ok
}

// parseState reads the word for a state, or the number of one that has none.
func parseState(s string, names []string, prefix string) (uint8, bool) {
	if i := slices.Index(names, s); i >= 0 {
		return uint8(i), true
	}
	digits, ok := strings.CutPrefix(s, prefix)
	if n, err := strconv.ParseUint(digits, 10, 8); ok && err == nil {
		return uint8(n), true
	}
	return 0, false
}

// Status is a set of an entry's IPS_* bits (enum ip_conntrack_status in
// linux/netfilter/nf_conntrack_common.h).
type Status uint32

// The status bits.
const (
	Expected     Status = 1 << iota // IPS_EXPECTED: an expectation, such as FTP's, announced it
	SeenReply                       // IPS_SEEN_REPLY: packets were seen both ways
	Assured                         // IPS_ASSURED: not to be dropped early
	Confirmed                       // IPS_CONFIRMED: in the table
	SrcNAT                          // IPS_SRC_NAT
	DstNAT                          // IPS_DST_NAT
	SeqAdjust                       // IPS_SEQ_ADJUST: TCP sequence numbers are rewritten
	SrcNATDone                      // IPS_SRC_NAT_DONE
	DstNATDone                      // IPS_DST_NAT_DONE
	Dying                           // IPS_DYING: removed from the table
	FixedTimeout                    // IPS_FIXED_TIMEOUT: packets do not renew it
	Template                        // IPS_TEMPLATE
	Untracked                       // IPS_UNTRACKED; IPS_NAT_CLASH since Linux 5.10
	Helper                          // IPS_HELPER
	Offload                         // IPS_OFFLOAD: Linux 4.16
	HWOffload                       // IPS_HW_OFFLOAD: Linux 5.7
)

var statusNames = [...]string{
	"EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE",
	"DST_NAT_DONE", "DYING", "FIXED_TIMEOUT", "TEMPLATE", "UNTRACKED", "HELPER", "OFFLOAD", "HW_OFFLOAD",
}

// String returns the kernel's words for the bits, joined by |; 0 is "NONE".
func (s Status) String() string {
	var words []string
	for i, name := range statusNames {
		if s&(1<<i) != 0 {
			words = append(words, name)
			s &^= 1 << i
		}
	}
	if s != 0 {
		words = append(words, fmt.Sprintf("%#x", uint32(s)))
	}
	if len(words) == 0 {
		return "NONE"
	}
	return strings.Join(words, "|")
}

// SCTPState is the tracker's view of an SCTP association (enum sctp_conntrack
// in linux/netfilter/nf_conntrack_sctp.h).
type SCTPState uint8

// The SCTP states of the tracker.
const (
	SCTPNone            SCTPState = iota // SCTP_CONNTRACK_NONE
	SCTPClosed                           // SCTP_CONNTRACK_CLOSED
	SCTPCookieWait                       // SCTP_CONNTRACK_COOKIE_WAIT
	SCTPCookieEchoed                     // SCTP_CONNTRACK_COOKIE_ECHOED
	SCTPEstablished                      // SCTP_CONNTRACK_ESTABLISHED
	SCTPShutdownSent                     // SCTP_CONNTRACK_SHUTDOWN_SENT
	SCTPShutdownRecd                     // SCTP_CONNTRACK_SHUTDOWN_RECD
	SCTPShutdownAckSent                  // SCTP_CONNTRACK_SHUTDOWN_ACK_SENT
	SCTPHeartbeatSent                    // SCTP_CONNTRACK_HEARTBEAT_SENT
	SCTPHeartbeatAcked                   // SCTP_CONNTRACK_HEARTBEAT_ACKED: up to Linux 6.1
)

var sctpStateNames = [...]string{
	SCTPNone: "NONE", SCTPClosed: "CLOSED", SCTPCookieWait: "COOKIE_WAIT", SCTPCookieEchoed: "COOKIE_ECHOED",
	SCTPEstablished: "ESTABLISHED", SCTPShutdownSent: "SHUTDOWN_SENT", SCTPShutdownRecd: "SHUTDOWN_RECD",
	SCTPShutdownAckSent: "SHUTDOWN_ACK_SENT", SCTPHeartbeatSent: "HEARTBEAT_SENT", SCTPHeartbeatAcked: "HEARTBEAT_ACKED",
}

// String returns the kernel's word for the state.
func (s SCTPState) String() string {
	if int(s) < len(sctpStateNames) {
		return sctpStateNames[s]
	}
	return fmt.Sprintf("SCTP_CONNTRACK_%d", uint8(s))
}

// ParseSCTPState reads what String writes.
func ParseSCTPState(s string) (SCTPState, bool) {
	n, ok := parseState(s, sctpStateNames[:], "SCTP_CONNTRACK_")
	return SCTPState(n), ok
}

// DCCPState is the tracker's view of a DCCP connection (enum ct_dccp_states in
// linux/netfilter/nf_conntrack_dccp.h).
type DCCPState uint8

// The DCCP states of the tracker.
const (
	DCCPNone     DCCPState = iota // CT_DCCP_NONE
	DCCPRequest                   // CT_DCCP_REQUEST
	DCCPRespond                   // CT_DCCP_RESPOND
	DCCPPartOpen                  // CT_DCCP_PARTOPEN
	DCCPOpen                      // CT_DCCP_OPEN
	DCCPCloseReq                  // CT_DCCP_CLOSEREQ
	DCCPClosing                   // CT_DCCP_CLOSING
	DCCPTimeWait                  // CT_DCCP_TIMEWAIT
	DCCPIgnore                    // CT_DCCP_IGNORE
	DCCPInvalid                   // CT_DCCP_INVALID
)

var dccpStateNames = [...]string{
	DCCPNone: "NONE", DCCPRequest: "REQUEST", DCCPRespond: "RESPOND", DCCPPartOpen: "PARTOPEN", DCCPOpen: "OPEN",
	DCCPCloseReq: "CLOSEREQ", DCCPClosing: "CLOSING", DCCPTimeWait: "TIMEWAIT", DCCPIgnore: "IGNORE", DCCPInvalid: "INVALID",
}

// String returns the kernel's word for the state.
func (s DCCPState) String() string {
	if int(s) < len(dccpStateNames) {
		return dccpStateNames[s]
	}
	return fmt.Sprintf("CT_DCCP_%d", uint8(s))
}

// ParseDCCPState reads what String writes.
func ParseDCCPState(s string) (DCCPState, bool) {
	n, ok := parseState(s, dccpStateNames[:], "CT_DCCP_")
	return DCCPState(n), ok
}
