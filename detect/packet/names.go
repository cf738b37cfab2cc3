package packet

import "strconv"

// icmpType is the name of an ICMP type and of those of its codes that have
// one; without codes, the only code is 0 and needs no name.
type icmpType struct {
	name  string
	codes []string
}

// The words are those of the IANA registries "Internet Control Message
// Protocol (ICMP) Parameters" and "Internet Control Message Protocol version 6
// (ICMPv6) Parameters", in lower case, 3/9 and 3/10 shortened. 3/13 is
// "Communication Administratively Prohibited" there and named here after
// ICMP_PKT_FILTERED (tcpdump: "admin prohibited filter"), to tell it from
// the others.
var (
	icmpTypes = map[uint8]icmpType{
		icmpEchoReply: {name: "echo reply"},
		icmpDestUnreach: {"destination unreachable", []string{
			"network unreachable",
			"host unreachable",
			"protocol unreachable",
			"port unreachable",
			"fragmentation needed and don't fragment was set",
			"source route failed",
			"destination network unknown",
			"destination host unknown",
			"source host isolated",
			"network administratively prohibited",
			"host administratively prohibited",
			"network unreachable for type of service",
			"host unreachable for type of service",
			"communication administratively filtered",
			"host precedence violation",
			"precedence cutoff in effect",
		}},
		icmpSourceQuench: {name: "source quench"},
		icmpRedirect: {"redirect", []string{
			"redirect datagram for the network",
			"redirect datagram for the host",
			"redirect datagram for the type of service and network",
			"redirect datagram for the type of service and host",
		}},
		icmpEcho: {name: "echo request"},
		9:        {name: "router advertisement"}, // RFC 1256
		10:       {name: "router solicitation"},  // RFC 1256
		icmpTimeExceeded: {"time exceeded", []string{
			"time to live exceeded in transit",
			"fragment reassembly time exceeded",
		}},
		icmpParameterProb: {"parameter problem", []string{
			"parameter problem: pointer indicates the error",
			"parameter problem: missing a required option",
			"parameter problem: bad length",
		}},
		icmpTimestamp:      {name: "timestamp request"},
		icmpTimestampReply: {name: "timestamp reply"},
		icmpInfoRequest:    {name: "information request"},
		icmpInfoReply:      {name: "information reply"},
		icmpAddress:        {name: "address mask request"},
		icmpAddressReply:   {name: "address mask reply"},
		icmpExtEcho:        {name: "extended echo request"},
		icmpExtEchoReply:   {name: "extended echo reply"},
	}
	icmp6Types = map[uint8]icmpType{
		icmp6DestUnreach: {"destination unreachable", []string{
			"no route to destination",
			"communication with destination administratively prohibited",
			"beyond scope of source address",
			"address unreachable",
			"port unreachable",
			"source address failed ingress/egress policy",
			"reject route to destination",
			"error in source routing header", // RFC 6554
			"headers too long",               // RFC 8883
		}},
		icmp6PktTooBig: {name: "packet too big"},
		icmp6TimeExceed: {"time exceeded", []string{
			"hop limit exceeded in transit",
			"fragment reassembly time exceeded",
		}},
		icmp6ParamProb: {"parameter problem", []string{
			"erroneous header field encountered",
			"unrecognized next header type encountered",
			"unrecognized IPv6 option encountered",
			"first fragment has incomplete header chain", // RFC 7112
		}},
		icmp6EchoRequest:    {name: "echo request"},
		icmp6EchoReply:      {name: "echo reply"},
		130:                 {name: "multicast listener query"},  // ICMPV6_MGM_QUERY
		131:                 {name: "multicast listener report"}, // ICMPV6_MGM_REPORT
		132:                 {name: "multicast listener done"},   // ICMPV6_MGM_REDUCTION
		133:                 {name: "router solicitation"},       // RFC 4861
		134:                 {name: "router advertisement"},      // RFC 4861
		135:                 {name: "neighbor solicitation"},     // RFC 4861
		136:                 {name: "neighbor advertisement"},    // RFC 4861
		137:                 {name: "redirect"},                  // RFC 4861
		143:                 {name: "multicast listener report"}, // ICMPV6_MLD2_REPORT
		icmp6ExtEchoRequest: {name: "extended echo request"},
		icmp6ExtEchoReply:   {name: "extended echo reply"},
	}
)

// ICMPName names an ICMP message, of ICMPv6 if v6: "host administratively
// prohibited" for 3/10. A code without a name of its own follows the name of
// its type, as in "destination unreachable code 77"; an unknown type is a
// number, as in "type 99 code 0".
func ICMPName(v6 bool, typ, code uint8) string {
	types := icmpTypes
	if v6 {
		types = icmp6Types
	}
	t, ok := types[typ]
	switch {
	case !ok:
		t.name = "type " + strconv.Itoa(int(typ))
	case int(code) < len(t.codes):
		return t.codes[code]
	case code == 0:
		return t.name
	}
	return t.name + " code " + strconv.Itoa(int(code))
}
