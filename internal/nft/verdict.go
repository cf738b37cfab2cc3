package nft

import "fmt"

// Verdict is what becomes of a packet that a rule matched.
type Verdict uint8

// The verdicts. Reject verdicts drop the packet and answer it.
const (
	// Continue asks the next rule: for rules that only count or log.
	Continue Verdict = iota
	// Accept lets the packet pass this chain (NF_ACCEPT). A later chain of
	// the hook may still drop it.
	Accept
	// Drop discards the packet (NF_DROP).
	Drop
	// RejectAdminProhibited answers ICMP 3/13 or ICMPv6 1/1
	// (NFT_REJECT_ICMPX_ADMIN_PROHIBITED).
	RejectAdminProhibited
	// RejectPort answers ICMP 3/3 or ICMPv6 1/4
	// (NFT_REJECT_ICMPX_PORT_UNREACH).
	RejectPort
	// RejectHost answers ICMP 3/1 or ICMPv6 1/3
	// (NFT_REJECT_ICMPX_HOST_UNREACH).
	RejectHost
	// RejectNoRoute answers ICMP 3/0 or ICMPv6 1/0
	// (NFT_REJECT_ICMPX_NO_ROUTE).
	RejectNoRoute
	// RejectNetProhibited answers ICMP 3/9 (ICMP_NET_ANO). IPv6 has no such
	// code: the rule matches IPv4 only.
	RejectNetProhibited
	// RejectHostProhibited answers ICMP 3/10 (ICMP_HOST_ANO). IPv6 has no
	// such code: the rule matches IPv4 only.
	RejectHostProhibited
	// RejectTCPReset answers with a RST (NFT_REJECT_TCP_RST). Needs Proto TCP.
	RejectTCPReset
	// NoTrack exempts the packet from connection tracking. Needs a chain that
	// is asked before PriorityConntrack.
	NoTrack
	// DNAT changes the destination to Rule.To.
	DNAT
	// SNAT changes the source to Rule.To.
	SNAT
	// Masquerade changes the source to the address of the interface the
	// packet leaves by.
	Masquerade
	// Redirect changes the destination to this host, port Rule.To.Port().
	Redirect
)

var verdictNames = [...]string{
	"continue", "accept", "drop", "reject with admin-prohibited", "reject with port-unreachable",
	"reject with host-unreachable", "reject with no-route", "reject with net-prohibited",
	"reject with host-prohibited", "reject with tcp reset", "notrack", "dnat", "snat", "masquerade", "redirect",
}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

func (v Verdict) reject() bool { return v >= RejectAdminProhibited && v <= RejectTCPReset }

// nat reports whether the verdict is for chains of type NAT.
func (v Verdict) nat() bool { return v >= DNAT && v <= Redirect }

// ipv4 reports whether the verdict exists for IPv4 only.
func (v Verdict) ipv4() bool { return v == RejectNetProhibited || v == RejectHostProhibited }

// takesTo reports whether the verdict uses Rule.To.
func (v Verdict) takesTo() bool { return v == DNAT || v == SNAT || v == Redirect }

// hooks lists where the kernel carries the verdict out; nil is everywhere
// (nft_reject_validate, nft_nat_validate, nft_masq_validate,
// nft_redir_validate).
func (v Verdict) hooks() []Hook {
	switch {
	case v.reject():
		return []Hook{Prerouting, Input, Forward, Output}
	case v == NoTrack, v == DNAT, v == Redirect:
		return []Hook{Prerouting, Output}
	case v == SNAT:
		return []Hook{Input, Postrouting}
	case v == Masquerade:
		return []Hook{Postrouting}
	}
	return nil
}
