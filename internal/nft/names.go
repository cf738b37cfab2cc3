package nft

// The words of nft(8), by the kernel's numbers.

var metaNames = [...]string{
	0: "meta length", 1: "meta protocol", 2: "meta priority", 3: "meta mark", 4: "iif", 5: "oif", 6: "iifname", 7: "oifname",
	8: "meta iiftype", 9: "meta oiftype", 10: "meta skuid", 11: "meta skgid", 12: "meta nftrace", 13: "meta rtclassid",
	15: "meta nfproto", 16: "meta l4proto", 17: "meta ibrname", 18: "meta obrname", 19: "meta pkttype", 20: "meta cpu",
	21: "iifgroup", 22: "oifgroup", 23: "meta cgroup", 24: "meta random", 25: "meta ipsec", 26: "meta iifkind", 27: "meta oifkind",
	30: "meta time", 31: "meta day", 32: "meta hour",
}

// metaSize is how many bytes a meta key loads.
func metaSize(key uint32) int {
	switch key {
	case 1, 8, 9: // protocol, iiftype, oiftype
		return 2
	case 6, 7, 17, 18, 26, 27: // names
		return maxIface + 1
	case metaNFTrace, metaNFProto, metaL4Proto, 19, 25, 31:
		return 1
	case 30:
		return 8
	}
	return 4
}

var ctNames = [...]string{
	0: "state", 1: "direction", 2: "status", 3: "mark", 4: "secmark", 5: "expiration", 6: "helper", 7: "l3proto", 8: "saddr", 9: "daddr",
	10: "protocol", 11: "proto-src", 12: "proto-dst", 13: "label", 14: "packets", 15: "bytes", 16: "avgpkt", 17: "zone", 18: "event",
	19: "ip saddr", 20: "ip daddr", 21: "ip6 saddr", 22: "ip6 daddr", 23: "id",
}

// ctSize is how many bytes a ct key loads.
func ctSize(key uint32) int {
	switch key {
	case ctDirection, 7, 10:
		return 1
	case 11, 12, ctZone:
		return 2
	case 14, 15, 16:
		return 8
	case 6, 8, 9, 13, 21, 22:
		return 16
	}
	return 4
}

// nameOf looks a name up; empty is none.
func nameOf[T ~string](names []T, i uint64) T {
	if i < uint64(len(names)) {
		return names[i]
	}
	var none T
	return none
}

// bit is the name of some bits.
type bit struct {
	mask uint64
	name string
}

var stateBits = []bit{
	{uint64(Invalid), "invalid"}, {uint64(Established), "established"}, {uint64(Related), "related"},
	{uint64(New), "new"}, {uint64(Untracked), "untracked"},
}

var statusBits = []bit{
	{1, "expected"}, {2, "seen-reply"}, {4, "assured"}, {8, "confirmed"}, {16, "snat"}, {32, "dnat"}, {512, "dying"},
}

var flagBits = []bit{
	{uint64(FIN), "fin"}, {uint64(SYN), "syn"}, {uint64(RST), "rst"}, {uint64(PSH), "psh"},
	{uint64(ACK), "ack"}, {uint64(URG), "urg"}, {0x40, "ecn"}, {0x80, "cwr"},
}

var protoNames = map[uint64]string{
	1: "icmp", 2: "igmp", 4: "ipencap", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp",
	88: "eigrp", 89: "ospf", 94: "ipip", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite",
}

// headerNames are the protocols as the names of headers.
var headerNames = map[uint8]string{
	ICMP: "icmp", TCP: "tcp", UDP: "udp", DCCP: "dccp", ICMPv6: "icmpv6", SCTP: "sctp", UDPLite: "udplite",
}

var icmpTypes = map[uint64]string{
	0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request", 9: "router-advertisement",
	10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request", 14: "timestamp-reply",
	15: "info-request", 16: "info-reply", 17: "address-mask-request", 18: "address-mask-reply",
}

var icmp6Types = map[uint64]string{
	1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request", 129: "echo-reply",
	130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert",
	135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
	142: "ind-neighbor-advert", 143: "mld2-listener-report",
}

var (
	icmpRejects  = []string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable", 9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}
	icmp6Rejects = []string{0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail", 6: "reject-route"}
	icmpxRejects = []string{0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"}
)

var etherTypes = map[uint64]string{0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "vlan", 0x88a8: "8021ad"}

var (
	familyNames  = map[uint64]string{2: "ipv4", 10: "ipv6"}
	packetTypes  = []string{"host", "broadcast", "multicast", "other"}
	compareSigns = []string{"", "!= ", "< ", "<= ", "> ", ">= "} // enum nft_cmp_ops
	dayNames     = []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
	logLevels    = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}
	limitUnits   = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
)
