package nflog

import (
	"fmt"
	"net"
	"time"
)

// Packet is one logged packet. Payload, Conntrack, HwAddr and LinkHeader are
// the receive buffer's and good until the range's next turn: Clone what is to
// be kept, or sent to another goroutine. All else is the receiver's.
type Packet struct {
	// Group is the NFLOG group that the packet was logged to.
	Group uint16

	// Family is the kind of table that the rule stands in, and so what the
	// numbers of Hook mean. It is 0, unknown, with Config.GoNflog.
	Family Family

	// Time is when the machine received the packet, on the wall clock in
	// microseconds. It is zero for Output, Postrouting and Ingress, where the
	// kernel gives none; and before Linux 6.6 (commit 1d85594fd3e7) everywhere,
	// unless something such as a packet capture has the machine take times.
	Time time.Time

	// Hook is where the rule stands (nfulnl_msg_packet_hdr.hook). It is 0
	// for the INVALID packets of group 0, which no rule logs. In two families
	// the numbers mean other things: in NetDev 0 is ingress and 1 egress, in
	// ARP 0 is input and 1 output.
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

	// HwAddr is the link-layer address that the packet came from, for the
	// hooks up to Forward; empty where there is none. It has at most 8 bytes.
	HwAddr net.HardwareAddr

	// HwType is the kind of link that the packet came in by (ARPHRD_ETHER is
	// 1), and LinkHeader the whole header it had there: for Ethernet the two
	// addresses and the EtherType, 14 bytes. They are absent for packets that
	// came in by none. In the bridge family, LinkHeader is there on
	// every hook.
	HwType     uint16
	LinkHeader []byte

	// VLAN is the tag that the packet carries (HasVLAN), told in the bridge and
	// netdev families only.
	VLAN    VLAN
	HasVLAN bool

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

	// GlobalSeq numbers the packets of all groups of the network namespace in
	// the order of logging, and wraps: it orders those of different groups
	// where a Threshold makes them arrive in batches. Groups of other
	// listeners that asked for it use up numbers, so that a gap is no loss.
	GlobalSeq uint32

	// Payload is the packet from its network header on, at most
	// Config.Snaplen bytes.
	Payload []byte

	// CTInfo relates the packet to its conntrack entry (HasCTInfo). Without
	// Reader.Conntrack it is absent; with it, absent is what the ct state of
	// a rule calls invalid or untracked: a packet without an entry.
	CTInfo    CTInfo
	HasCTInfo bool

	// Conntrack is the entry, raw: the attributes of an NFULA_CT, which are
	// those of a conntrack message (CTA_TUPLE_ORIG, …). It is nil without
	// HasCTInfo.
	Conntrack []byte
}

// Clone returns p with bytes of its own, which stay good.
func (p Packet) Clone() Packet {
	b := make([]byte, 0, len(p.Payload)+len(p.Conntrack)+len(p.HwAddr)+len(p.LinkHeader))
	keep := func(v []byte) []byte {
		if v == nil {
			return nil
		}
		at := len(b)
		b = append(b, v...)
		return b[at:len(b):len(b)]
	}
	p.Payload, p.Conntrack = keep(p.Payload), keep(p.Conntrack)
	p.HwAddr, p.LinkHeader = keep(p.HwAddr), keep(p.LinkHeader)
	return p
}

// VLAN is a VLAN tag (IEEE 802.1Q).
type VLAN struct {
	// Proto is the tag's EtherType: 0x8100 (ETH_P_8021Q) or 0x88a8
	// (ETH_P_8021AD).
	Proto uint16
	// TCI is the tag control information: priority, drop eligibility, ID.
	TCI uint16
}

// ID returns the number of the VLAN, 0 to 4095.
func (v VLAN) ID() uint16 { return v.TCI & 0xfff }

// Family is the kind of table that a rule stands in (enum NFPROTO_…). Rules of
// an inet table log as IPv4 or IPv6, except in its ingress hook.
type Family uint8

// The families that log packets.
const (
	INet   Family = 1  // NFPROTO_INET
	IPv4   Family = 2  // NFPROTO_IPV4
	ARP    Family = 3  // NFPROTO_ARP
	NetDev Family = 5  // NFPROTO_NETDEV
	Bridge Family = 7  // NFPROTO_BRIDGE
	IPv6   Family = 10 // NFPROTO_IPV6
)

// String returns the name that nft gives the family.
func (f Family) String() string {
	switch f {
	case INet:
		return "inet"
	case IPv4:
		return "ip"
	case ARP:
		return "arp"
	case NetDev:
		return "netdev"
	case Bridge:
		return "bridge"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", uint8(f))
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
