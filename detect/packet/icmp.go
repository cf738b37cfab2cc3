package packet

import "encoding/binary"

const (
	icmpLen       = 8 // RFC 792; ICMPv6: RFC 4443 section 2.1 and the body's first word
	icmpTypeLen   = 2 // type and code
	icmpIDLen     = 6 // up to the identifier of a query
	icmpLenOff    = 5 // length of the quote in 32-bit words, RFC 4884 section 4.1
	icmp6LenOff   = 4 // length of the quote in 64-bit words, RFC 4884 section 4.4
	minSizedQuote = 128
)

// ICMP types of IPv4 (linux/icmp.h).
const (
	icmpEchoReply      = 0  // ICMP_ECHOREPLY
	icmpDestUnreach    = 3  // ICMP_DEST_UNREACH
	icmpSourceQuench   = 4  // ICMP_SOURCE_QUENCH
	icmpRedirect       = 5  // ICMP_REDIRECT
	icmpEcho           = 8  // ICMP_ECHO
	icmpTimeExceeded   = 11 // ICMP_TIME_EXCEEDED
	icmpParameterProb  = 12 // ICMP_PARAMETERPROB
	icmpTimestamp      = 13 // ICMP_TIMESTAMP
	icmpTimestampReply = 14 // ICMP_TIMESTAMPREPLY
	icmpInfoRequest    = 15 // ICMP_INFO_REQUEST
	icmpInfoReply      = 16 // ICMP_INFO_REPLY
	icmpAddress        = 17 // ICMP_ADDRESS
	icmpAddressReply   = 18 // ICMP_ADDRESSREPLY
	icmpExtEcho        = 42 // ICMP_EXT_ECHO, RFC 8335
	icmpExtEchoReply   = 43 // ICMP_EXT_ECHOREPLY, RFC 8335
)

// ICMPv6 types (linux/icmpv6.h).
const (
	icmp6DestUnreach    = 1   // ICMPV6_DEST_UNREACH
	icmp6PktTooBig      = 2   // ICMPV6_PKT_TOOBIG
	icmp6TimeExceed     = 3   // ICMPV6_TIME_EXCEED
	icmp6ParamProb      = 4   // ICMPV6_PARAMPROB
	icmp6EchoRequest    = 128 // ICMPV6_ECHO_REQUEST
	icmp6EchoReply      = 129 // ICMPV6_ECHO_REPLY
	icmp6ExtEchoRequest = 160 // ICMPV6_EXT_ECHO_REQUEST, RFC 8335
	icmp6ExtEchoReply   = 161 // ICMPV6_EXT_ECHO_REPLY, RFC 8335
)

// Codes of destination unreachable that say prohibited (linux/icmp.h,
// linux/icmpv6.h).
const (
	icmpNetProhibited  = 9  // ICMP_NET_ANO, RFC 1122 section 3.2.2.1
	icmpHostProhibited = 10 // ICMP_HOST_ANO, RFC 1122 section 3.2.2.1
	icmpFiltered       = 13 // ICMP_PKT_FILTERED, RFC 1812 section 5.2.7.1
	icmp6Prohibited    = 1  // ICMPV6_ADM_PROHIBITED, RFC 4443 section 3.1
	icmp6PolicyFail    = 5  // ICMPV6_POLICY_FAIL, RFC 4443 section 3.1
	icmp6RejectRoute   = 6  // ICMPV6_REJECT_ROUTE, RFC 4443 section 3.1
)

// ICMPError reports whether the packet is an ICMP error, which quotes another
// packet: destination unreachable, source quench, redirect, time exceeded or
// parameter problem (3, 4, 5, 11, 12, as icmp_is_err in linux/icmp.h; ICMPv6:
// destination unreachable, packet too big, time exceeded or parameter
// problem, 1 to 4, RFC 4443 section 2.1).
func (h Header) ICMPError() bool {
	if !h.Have.Has(HaveICMP) {
		return false
	}
	if h.Src.Is4() {
		switch h.ICMPType {
		case icmpDestUnreach, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameterProb:
			return true
		}
		return false
	}
	return h.ICMPType >= icmp6DestUnreach && h.ICMPType <= icmp6ParamProb
}

// Prohibited reports whether the packet is an ICMP error which says that a
// rule forbids the quoted packet: ICMP 3/9, 3/10, 3/13; ICMPv6 1/1, 1/5 and
// 1/6. A filter may be told to answer with any other code (ipt_REJECT says
// 3/3, port unreachable, by default), so false does not mean that no rule did.
func (h Header) Prohibited() bool {
	if !h.Have.Has(HaveICMP) {
		return false
	}
	if h.Src.Is4() {
		return h.ICMPType == icmpDestUnreach && (h.ICMPCode == icmpNetProhibited ||
			h.ICMPCode == icmpHostProhibited || h.ICMPCode == icmpFiltered)
	}
	return h.ICMPType == icmp6DestUnreach && (h.ICMPCode == icmp6Prohibited ||
		h.ICMPCode == icmp6PolicyFail || h.ICMPCode == icmp6RejectRoute)
}

// icmp reads as much of an ICMP or ICMPv6 header as b holds and returns its
// size, 0 if not even the type and code are there, or if it is the ICMP of
// the other IP version, which means nothing here.
func (h *Header) icmp(b []byte) int {
	if len(b) < icmpTypeLen || h.Src.Is4() != (h.Proto == ProtoICMP) {
		return 0
	}
	h.ICMPType, h.ICMPCode = b[0], b[1]
	h.Have |= HaveICMP
	if len(b) >= icmpIDLen && h.icmpQuery() {
		h.ICMPID = binary.BigEndian.Uint16(b[4:6])
		h.Have |= HaveICMPID
	}
	return icmpLen
}

// icmpQuery reports whether the ICMP header carries an identifier: RFC 792,
// RFC 950 (address mask), RFC 4443 section 4 and RFC 8335.
func (h *Header) icmpQuery() bool {
	if !h.Src.Is4() {
		switch h.ICMPType {
		case icmp6EchoRequest, icmp6EchoReply, icmp6ExtEchoRequest, icmp6ExtEchoReply:
			return true
		}
		return false
	}
	switch h.ICMPType {
	case icmpEchoReply, icmpEcho, icmpExtEcho, icmpExtEchoReply:
		return true
	}
	return h.ICMPType >= icmpTimestamp && h.ICMPType <= icmpAddressReply
}

// quote returns the captured bytes of the packet which the ICMP error p
// quotes, without the extensions behind them (RFC 4884); nil if there are
// none. A length below 128 bytes, which RFC 4884 section 3 forbids, is taken
// for rubbish in a field that was once unused, as Linux takes it
// (net/ipv4/icmp.c:ip_icmp_error_rfc4884). The quote may still be padded: the
// length in its own IP header ends what is read of it.
func (p *Packet) quote(b []byte) []byte {
	q := p.Payload(b)
	if q == nil || !p.ICMPError() {
		return nil
	}
	icmp := b[p.PayloadOff-icmpLen:]
	size := 0
	if p.Src.Is4() {
		switch p.ICMPType {
		case icmpDestUnreach, icmpTimeExceeded, icmpParameterProb:
			size = int(icmp[icmpLenOff]) * 4
		}
	} else {
		switch p.ICMPType {
		case icmp6DestUnreach, icmp6TimeExceed:
			size = int(icmp[icmp6LenOff]) * 8
		}
	}
	if size >= minSizedQuote && size < len(q) {
		return q[:size]
	}
	return q
}
