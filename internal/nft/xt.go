package nft

import (
	"encoding/binary"
)

// Extensions of iptables that iptables-nft puts into rules (nft_compat). Those
// that decide what becomes of a packet are written as nft(8) would write their
// like; the others by name.

const (
	xtName = 1 // NFTA_TARGET_NAME, NFTA_MATCH_NAME
	xtRev  = 2 // NFTA_TARGET_REV, NFTA_MATCH_REV
	xtInfo = 3 // NFTA_TARGET_INFO, NFTA_MATCH_INFO
)

func (l *lister) xtMatch(e *expr) {
	if s := xtStates(e); s != 0 {
		l.add("ct state " + bitsText(stateBits, uint64(s), ","))
		return
	}
	if e.text(xtName) == "comment" {
		c := expr{}
		c.attrs[1] = e.attrs[xtInfo]
		l.comment = c.text(1)
		return
	}
	l.add("xt match " + quote(e.text(xtName)))
}

func (l *lister) xtTarget(e *expr) {
	if r, ok := xtReject(e, l.l3); ok {
		l.xtReject(r)
		return
	}
	if notrack, zone, _, _ := xtCT(e); notrack {
		l.add("notrack")
		return
	} else if zone != 0 {
		l.add("ct zone set " + nativeDecimal(binary.NativeEndian.AppendUint16(nil, zone)))
		return
	}
	l.add("xt target " + quote(e.text(xtName)))
}

func (l *lister) xtReject(r Reject) {
	switch {
	case r.Kind == RejectReset:
		l.add("reject with tcp reset")
	case l.l3 == IPv6:
		l.rejectWith("icmpv6", icmp6Rejects, r.Code, false)
	default:
		l.rejectWith("icmp", icmpRejects, r.Code, false)
	}
}

// xtReject reads struct ipt_reject_info or ip6t_reject_info: one enum.
func xtReject(e *expr, family Family) (Reject, bool) {
	info := e.attrs[xtInfo]
	if e.name != "target" || e.text(xtName) != "REJECT" || len(info) < 4 {
		return Reject{}, false
	}
	// IPT_ICMP_NET_UNREACHABLE and so on, of which IPT_ICMP_ECHOREPLY has no code.
	codes := []int{0, 1, 2, 3, -1, 9, 10, -2, 13}
	if family == IPv6 { // IP6T_ICMP6_NO_ROUTE and so on
		codes = []int{0, 1, -1, 3, 4, -1, -2, 5, 6}
	}
	with := binary.NativeEndian.Uint32(info)
	if with >= uint32(len(codes)) || codes[with] == -1 {
		return Reject{}, false
	}
	if codes[with] == -2 { // IPT_TCP_RESET, IP6T_TCP_RESET
		return Reject{Kind: RejectReset}, true
	}
	return Reject{Kind: RejectICMP, Code: uint8(codes[with])}, true
}

// xtCT reads struct xt_ct_target_info or _v1: flags, zone, two event masks, the
// name of a helper.
func xtCT(e *expr) (notrack bool, zone uint16, helper string, ok bool) {
	info := e.attrs[xtInfo]
	switch name := e.text(xtName); {
	case e.name == "target" && name == "NOTRACK":
		return true, 0, "", true
	case e.name != "target" || name != "CT" || len(info) < 28:
		return false, 0, "", false
	}
	const flagNoTrack = 1 // XT_CT_NOTRACK
	flags := binary.NativeEndian.Uint16(info)
	h := expr{}
	h.attrs[1] = info[12:28]
	return flags&flagNoTrack != 0, binary.NativeEndian.Uint16(info[2:]), h.text(1), true
}

// xtStates reads the states that the match conntrack, revision 2 or 3, asks for
// and nothing else; 0 is another match. The fields of struct
// xt_conntrack_mtinfo3 are eight addresses of 16 bytes, then expiry (4 and 4),
// protocol and four ports (2 each), then what to match, what of that to invert,
// and the bits of states (2 each).
func xtStates(e *expr) CTState {
	const (
		flagsAt   = 8*16 + 2*4 + 2 + 4*2
		onlyState = 1       // XT_CONNTRACK_STATE
		alias     = 1 << 13 // XT_CONNTRACK_STATE_ALIAS: written as -m state
	)
	info := e.attrs[xtInfo]
	if e.name != "match" || e.text(xtName) != "conntrack" || e.number(xtRev) < 2 || len(info) < flagsAt+6 {
		return 0
	}
	match := binary.NativeEndian.Uint16(info[flagsAt:])
	inverted := binary.NativeEndian.Uint16(info[flagsAt+2:])
	if match&^alias != onlyState || inverted != 0 {
		return 0
	}
	return xtBits(binary.NativeEndian.Uint16(info[flagsAt+4:]))
}

// xtBits translates XT_CONNTRACK_STATE_*: as CTState, but for SNAT (1<<6), DNAT
// (1<<7) and UNTRACKED (1<<8).
func xtBits(v uint16) CTState {
	s := CTState(v) & (Invalid | Established | Related | New)
	if v&(1<<8) != 0 {
		s |= Untracked
	}
	if v&(1<<6|1<<7) != 0 {
		return 0
	}
	return s
}
