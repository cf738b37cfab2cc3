package nft

import (
	"bytes"
	"encoding/binary"
)

// RejectKind is what a rule answers a packet with that it drops.
type RejectKind uint8

// The kinds.
const (
	RejectNone  RejectKind = iota
	RejectICMP             // an ICMP or ICMPv6 unreachable with Reject.Code
	RejectICMPX            // the same, Reject.Code being NFT_REJECT_ICMPX_* for both
	RejectReset            // a RST
)

// Reject is the answer of a rule. The zero Reject is none.
type Reject struct {
	Kind RejectKind
	// Code is that of ICMP type 3 or ICMPv6 type 1.
	Code uint8
}

// Facts is what a rule matches and does, as far as this package knows its
// expressions, those of iptables-nft included. Unlike its text, it is for
// programs.
type Facts struct {
	// Verdict is CodeContinue for a rule that leaves the packet to the next
	// one, CodeDrop also for one that rejects. Target is where CodeJump and
	// CodeGoto go. A verdict that comes from a map is not known: Unknown.
	Verdict Code
	Target  string
	Reject  Reject
	// NoTrack exempts the packet from connection tracking.
	NoTrack bool
	// SetsZone is that the rule assigns a conntrack zone: Zone, unless that
	// comes from the packet's mark or a map.
	SetsZone bool
	Zone     uint16
	// Helper is assigned to the connection: the name of an object of the table,
	// or with iptables that of the kernel's helper.
	Helper string
	// NAT is DNAT, SNAT, Masquerade or Redirect; Continue is none.
	NAT Verdict
	// Logs is that the packet goes to the group LogGroup of nfnetlink_log.
	Logs     bool
	LogGroup uint16
	// Traces is that the rule sets the packet's nftrace bit.
	Traces bool

	// State, Proto and TCPFlags are what the rule asks for; zero is anything.
	// They say nothing of a rule that asks for the contrary ("!=") or a set.
	State    CTState
	Proto    uint8
	TCPFlags TCPFlags
	// Limited is that it stops to match beyond a rate or number.
	Limited bool
	// Unknown is that the rule has an expression or attribute that is not known
	// here: it may match less, and do more, than is said.
	Unknown bool
}

// DropsResets reports a rule for TCP resets alone that drops them.
func (f Facts) DropsResets() bool {
	return f.Verdict == CodeDrop && f.TCPFlags.Mask&f.TCPFlags.Value&RST != 0
}

// Facts reads the rule.
func (r ListedRule) Facts() Facts {
	list, ok := parseExprs(r.exprs)
	f := Facts{Verdict: CodeContinue, Unknown: !ok}
	var regs registers
	for i := range list {
		e := &list[i]
		if regs.load(e) {
			continue
		}
		if e.name == "cmp" {
			f.compare(regs.get(e.number(1)), e.number(2), e.value(3))
		} else {
			f.statement(e, &regs, r.family)
		}
	}
	return f
}

func (f *Facts) compare(o operand, op uint64, v []byte) {
	switch {
	case o.kind == ctKey && o.key == ctState && op == unequal && native(v) == 0:
		f.State = CTState(native(o.mask))
	case o.kind == ctKey && o.key == ctState && op == equal && o.mask == nil:
		f.State = CTState(native(v))
	case op != equal || len(v) == 0:
	case o.kind == metaKey && o.key == metaL4Proto && o.mask == nil:
		f.Proto = v[0]
	case o.kind == payload && o.key == networkHeader && o.size == 1 && (o.offset == 9 || o.offset == 6) && o.mask == nil:
		f.Proto = v[0]
	case o.kind == payload && o.key == transportHeader && o.offset == 13 && o.size == 1 && f.Proto == TCP:
		f.TCPFlags = TCPFlags{Mask: 0xff, Value: v[0]}
		if len(o.mask) == 1 {
			f.TCPFlags.Mask = o.mask[0]
		}
	}
}

func (f *Facts) statement(e *expr, regs *registers, family Family) {
	switch e.name {
	case "immediate":
		f.Verdict, f.Target, _ = e.verdict(2)
	case "reject":
		kind := map[uint64]RejectKind{rejectICMP: RejectICMP, rejectReset: RejectReset, rejectICMPX: RejectICMPX}[e.number(1)]
		f.Verdict, f.Reject = CodeDrop, Reject{kind, uint8(e.number(2))}
	case "notrack":
		f.NoTrack = true
	case "nat":
		f.NAT = DNAT
		if e.number(1) == snat {
			f.NAT = SNAT
		}
	case "masq":
		f.NAT = Masquerade
	case "redir":
		f.NAT = Redirect
	case "log":
		f.Logs, f.LogGroup = e.has(1), uint16(e.number(1))
	case "ct", "meta", "objref":
		f.set(e, regs)
	case "match", "target":
		f.extension(e, family)
	case "limit", "connlimit", "quota":
		f.Limited = true
	case "lookup":
		f.Unknown = f.Unknown || e.has(3) && e.number(3) == regVerdict
	case "cmp", "range", "counter", "dynset", "payload", "last":
	default:
		f.Unknown = true
	}
}

// set takes a rule's change of a key, or of what belongs to the connection.
func (f *Facts) set(e *expr, regs *registers) {
	switch {
	case e.name == "objref" && e.number(1) == objectCTHelper:
		f.Helper = e.text(2)
	case e.name == "ct" && e.number(2) == ctZone:
		f.SetsZone, f.Zone = true, uint16(native(regs.get(e.number(4)).value))
	case e.name == "meta" && e.number(2) == metaNFTrace:
		f.Traces = native(regs.get(e.number(3)).value) != 0
	}
}

// extension takes one of iptables.
func (f *Facts) extension(e *expr, family Family) {
	if s := xtStates(e); s != 0 {
		f.State = s
		return
	}
	if r, ok := xtReject(e, family); ok {
		f.Verdict, f.Reject = CodeDrop, r
		return
	}
	if notrack, zone, helper, ok := xtCT(e); ok {
		f.NoTrack, f.SetsZone, f.Zone, f.Helper = notrack, zone != 0, zone, helper
		return
	}
	switch name := e.text(xtName); name {
	case "MASQUERADE", "DNAT", "SNAT", "REDIRECT":
		f.NAT = map[string]Verdict{"MASQUERADE": Masquerade, "DNAT": DNAT, "SNAT": SNAT, "REDIRECT": Redirect}[name]
	case "NFLOG":
		f.nflog(e.attrs[xtInfo])
	case "TRACE":
		f.Traces = true
	case "LOG", "comment":
	case "limit", "hashlimit", "connlimit", "quota", "recent", "statistic":
		f.Limited = true
	case "tcp":
		f.tcp(e.attrs[xtInfo])
	default:
		f.Unknown = true
	}
}

// nflog reads struct xt_nflog_info: len (4 bytes), group (2).
func (f *Facts) nflog(info []byte) {
	if len(info) >= 6 {
		f.Logs, f.LogGroup = true, binary.NativeEndian.Uint16(info[4:])
	}
}

// tcp reads struct xt_tcp: four ports (2 bytes each), option, mask and value of
// the flags, and what to invert.
func (f *Facts) tcp(info []byte) {
	const invertFlags = 4 // XT_TCP_INV_FLAGS
	if f.Proto = TCP; len(info) >= 12 && info[11]&invertFlags == 0 && !bytes.Equal(info[9:11], []byte{0, 0}) {
		f.TCPFlags = TCPFlags{Mask: info[9], Value: info[10]}
	}
}
