package nflog

import (
	"fmt"
	"time"
)

// Packet is one logged packet. Its bytes are copies that belong to whoever
// received it, and stay good.
type Packet struct {
	// Time is when the machine received the packet, on the wall clock in
	// microseconds. It is zero for Output, Postrouting and Ingress, where the
	// kernel gives none; and before Linux 6.6 (commit 1d85594fd3e7) everywhere,
	// unless something such as a packet capture has the machine take times.
	Time time.Time

	// Hook is where the rule stands (nfulnl_msg_packet_hdr.hook). It is 0
	// for the INVALID packets of group 0, which no rule logs. In the netdev
	// family the numbers mean other things: 0 is ingress, 1 is egress.
	Hook Hook

	// HwProtocol is the EtherType: 0x0800 for IPv4 (ETH_P_IP), 0x86dd for
	// IPv6 (ETH_P_IPV6).
	HwProtocol uint16

	// Mark is the packet's mark (skb->mark). The kernel leaves NFULA_MARK out
	// when it is 0, so 0 is 0.
	Mark uint32

	// In and Out are interface indexes of the rule's namespace: In for
	// Prerouting, Input and Forward, Out for Forward, Output and Postrouting;
	// 0 where there is none. On a bridge they are the bridge, and PhysIn and
	// PhysOut its ports (with br_netfilter, or in the bridge family).
	In, Out, PhysIn, PhysOut uint32

	// Prefix is the rule's log prefix, as it was written; for the INVALID
	// packets of group 0, the reason.
	Prefix string

	// UID and GID own the packet's local socket (HasUID), as seen from the
	// reader's user namespace; 65534 for one that is not mapped there.
	UID, GID uint32

	// HasUID reports that the packet belongs to a local socket that a process
	// still holds. For Output it is the sender's; packets that the kernel
	// itself makes (a RST, the ICMP error of REJECT) have none. For Input it
	// is the proof that the connection lives: early demultiplexing found a
	// socket by the whole address and port tuple. That never finds a
	// listening socket, nor one that its process has closed (FIN_WAIT,
	// TIME_WAIT), nor any when net.ipv4.ip_early_demux or tcp_early_demux is
	// 0. It does not take place in Forward.
	HasUID bool

	// Seq numbers the packets of the group from 0 on, and wraps. It is also 0
	// for packets logged while Listen was still setting the group up.
	Seq uint32

	// Payload is the packet from its network header on, at most
	// Config.Snaplen bytes.
	Payload []byte

	// CTInfo relates the packet to its conntrack entry (HasCTInfo). Without
	// Config.Conntrack it is absent; with it, absent is what the ct state of
	// a rule calls invalid or untracked: a packet without an entry.
	CTInfo    CTInfo
	HasCTInfo bool

	// Conntrack is the entry, raw: the attributes of an NFULA_CT, which are
	// those of a conntrack message (CTA_TUPLE_ORIG, …). It is nil without
	// HasCTInfo.
	Conntrack []byte
}

// Hook is a netfilter hook (enum nf_inet_hooks).
type Hook uint8

// The hooks of the ip, ip6, inet and bridge families.
const (
	Prerouting  Hook = iota // NF_INET_PRE_ROUTING
	Input                   // NF_INET_LOCAL_IN
	Forward                 // NF_INET_FORWARD
	Output                  // NF_INET_LOCAL_OUT
	Postrouting             // NF_INET_POST_ROUTING
	Ingress                 // NF_INET_INGRESS, in the inet family
)

// String returns the name that nft gives the hook.
func (h Hook) String() string {
	switch h {
	case Prerouting:
		return "prerouting"
	case Input:
		return "input"
	case Forward:
		return "forward"
	case Output:
		return "output"
	case Postrouting:
		return "postrouting"
	case Ingress:
		return "ingress"
	}
	return fmt.Sprintf("hook %d", uint8(h))
}

// CTInfo is how a packet relates to its conntrack entry (enum
// ip_conntrack_info).
type CTInfo uint32

// The values of CTInfo. Those with Reply travel in the direction of the
// answers.
const (
	Established      CTInfo = 0 // IP_CT_ESTABLISHED
	Related          CTInfo = 1 // IP_CT_RELATED
	New              CTInfo = 2 // IP_CT_NEW
	EstablishedReply CTInfo = 3 // IP_CT_ESTABLISHED_REPLY
	RelatedReply     CTInfo = 4 // IP_CT_RELATED_REPLY
	NewReply         CTInfo = 5 // IP_CT_NEW_REPLY, of old kernels
	Untracked        CTInfo = 7 // IP_CT_UNTRACKED, of which the kernel logs no entry
)

// String returns the name of the constant in lower case, such as
// "established reply".
func (c CTInfo) String() string {
	switch c {
	case Established:
		return "established"
	case Related:
		return "related"
	case New:
		return "new"
	case EstablishedReply:
		return "established reply"
	case RelatedReply:
		return "related reply"
	case NewReply:
		return "new reply"
	case Untracked:
		return "untracked"
	}
	return fmt.Sprintf("ctinfo %d", uint32(c))
}

// Reply reports whether the packet travels in the direction of the answers.
func (c CTInfo) Reply() bool { return c >= EstablishedReply && c <= NewReply }
