package nft

import "fmt"

// Family is the kind of packets a table sees (NFPROTO_*).
type Family uint8

// The families used.
const (
	INet Family = 1  // NFPROTO_INET: IPv4 and IPv6
	IPv4 Family = 2  // NFPROTO_IPV4
	IPv6 Family = 10 // NFPROTO_IPV6

	arp    Family = 3 // NFPROTO_ARP
	netdev Family = 5 // NFPROTO_NETDEV
	bridge Family = 7 // NFPROTO_BRIDGE
)

// String names the family as nft(8) does.
func (f Family) String() string {
	switch f {
	case INet:
		return "inet"
	case IPv4:
		return "ip"
	case arp:
		return "arp"
	case netdev:
		return "netdev"
	case bridge:
		return "bridge"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// Table is a table with everything in it.
type Table struct {
	Family Family
	Name   string // 1 to 255 bytes
	// Comment is shown by nft(8): up to 128 bytes. Linux before 5.10 ignores
	// it.
	Comment string
	// Helpers are what Rule.Helper can name.
	Helpers []CTHelper
	Chains  []Chain
}

// CTHelper is a conntrack helper that the rules of its table can assign to
// connections (NFT_OBJECT_CT_HELPER), over whatever the table's family is.
type CTHelper struct {
	Name   string // 1 to 255 bytes, unique in its table
	Helper string // the kernel's name of it, such as "ftp"
	Proto  uint8  // transport protocol of the connections (IPPROTO_*)
}

// Type is what the rules of a chain may do.
type Type uint8

// The chain types.
const (
	Filter Type = iota // "filter"
	NAT                // "nat": asked for the first packet of a connection only
)

func (t Type) String() string {
	if t == NAT {
		return "nat"
	}
	return "filter"
}

// Hook is where in the packet's way a chain is asked. The zero Hook is none,
// which no chain of this package may have.
type Hook uint8

// The hooks.
const (
	Prerouting  Hook = iota + 1 // NF_INET_PRE_ROUTING
	Input                       // NF_INET_LOCAL_IN
	Forward                     // NF_INET_FORWARD
	Output                      // NF_INET_LOCAL_OUT
	Postrouting                 // NF_INET_POST_ROUTING
)

var hookNames = [...]string{"none", "prerouting", "input", "forward", "output", "postrouting"}

// String names the hook as nft(8) does.
func (h Hook) String() string {
	if int(h) < len(hookNames) {
		return hookNames[h]
	}
	return fmt.Sprintf("hook %d", uint8(h))
}

// number is the hook's number, enum nf_inet_hooks.
func (h Hook) number() uint32 { return uint32(h) - 1 }

// Policy is what becomes of a packet on which no rule decides.
type Policy uint8

// The policies.
const (
	PolicyAccept Policy = iota // NF_ACCEPT
	PolicyDrop                 // NF_DROP
)

// Well-known priorities (enum nf_ip_hook_priorities): of the chains of one
// hook, the lowest is asked first.
const (
	PriorityRaw       int32 = -300 // NF_IP_PRI_RAW: before connections are looked up
	PriorityConntrack int32 = -200 // NF_IP_PRI_CONNTRACK
	PriorityMangle    int32 = -150 // NF_IP_PRI_MANGLE
	PriorityDstNAT    int32 = -100 // NF_IP_PRI_NAT_DST
	PriorityFilter    int32 = 0    // NF_IP_PRI_FILTER
	PrioritySrcNAT    int32 = 100  // NF_IP_PRI_NAT_SRC
)

// Chain is a base chain: one that the kernel asks at a hook.
type Chain struct {
	Name     string // 1 to 255 bytes, unique in its table
	Type     Type
	Hook     Hook
	Priority int32
	Policy   Policy
	Rules    []Rule
}
