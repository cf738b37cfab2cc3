package reject

import (
	"fmt"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// half is an entry that saw a SYN and no answer, if the packet is one that
// comes after the answer: the tracker has missed the SYN|ACK, and calls the
// packet INVALID.
func (e *known) half() (conntrack.Flow, bool) {
	f, at := e.Entry.Value, e.side
	if at == noSide {
		f, at = e.Elsewhere.Value, e.elsewhere
	}
	state := f.TCP.State
	if e.reason.Kind == ReasonState && e.reason.Exact {
		state = e.reason.State
	}
	odd := e.odd() && (e.reason.Kind == ReasonNone || e.reason.Kind == ReasonState)
	return f, e.here() && odd && e.goesOn() && at == original && f.Has(conntrack.FieldTCP) && state == conntrack.TCPSynSent
}

// zoned reports an entry that is not in the default zone.
func zoned(f *conntrack.Flow) bool { return f.Zone != 0 || f.OriginalZone != 0 || f.ReplyZone != 0 }

// bypasses tells what rules there are by which one direction can miss the other's
// entry; known is false if not all of them were read.
func (e *known) bypasses() (zone, notrack, known bool) {
	r := e.Rules.Value
	return r.Zone != "", r.Notrack != "", e.Rules.Result == Present && !r.Legacy
}

// C14: the packet is looked up in one zone, and its connection is in another; or
// its SYN is in a zone, or rules assign zones, and what a local socket answered
// was not seen there. That happens to an answer which is exempt from tracking
// too: where a rule exempts, it is C15.
func isWrongZone(e *known) bool {
	f, half := e.half()
	zone, notrack, _ := e.bypasses()
	return e.otherZone() || half && e.answeredElsewhere() || half && !e.forwarded() && !notrack && (zoned(&f) || zone) ||
		half && e.forwarded() && e.elsewhere != noSide && zoned(&f)
}

// answeredElsewhere reports that the tracker has seen the SYN|ACK and knew nothing
// of it, though there is an entry that waits for it. It says so since Linux 6.7;
// of one that is exempt from tracking it never does.
func (e *known) answeredElsewhere() bool { return ParseReason(e.Answer).Kind == ReasonNew }

// otherZone reports a packet that continues or answers what is in another zone,
// and has no entry in its own.
func (e *known) otherZone() bool {
	later := !e.opens() && (e.tcp() || e.elsewhere == reply)
	return e.here() && later && e.stranger() && e.Entry.Result == Absent && e.elsewhere != noSide && zoned(&e.Elsewhere.Value)
}

func explainWrongZone(e *known, v *Verdict) {
	f := e.Elsewhere.Value
	if e.elsewhere == noSide {
		f = e.Entry.Value
	}
	zone, notrack, known := e.bypasses()
	rules := known && zone && !notrack && e.reason.Kind == ReasonState
	v.Confidence = detect.Likely
	if _, half := e.half(); rules || e.otherZone() && e.reason.Kind == ReasonNew || half && e.answeredElsewhere() && e.reason.Kind == ReasonState {
		v.Confidence = detect.Certain
	} else if e.tcp() && e.reason.Kind == ReasonNone {
		e.reasonMissing(v)
	}
	if e.answeredElsewhere() {
		v.fact("the SYN|ACK was of no connection for the tracker: " + plain(e.Answer))
	}
	if zone {
		v.fact("zone assigned by: " + plain(e.Rules.Value.Zone))
	}
	if !known {
		v.missing("the rules that assign zones, or exempt from tracking", "nft list ruleset")
	}
	if v.Confidence != detect.Certain {
		v.missing("in which zone the other direction is looked up", "conntrack -L -o extended")
	}
	v.Summary = fmt.Sprintf("the two directions of the connection of %v are looked up in different conntrack zones, and each sees half of it: %v",
		e.Packet.Value, f)
	v.fix(fmt.Sprintf("assign the same zone in prerouting and in output: `ct zone set %d`, before priority -200 (iptables: `-t raw -j CT --zone %[1]d`)",
		max(f.Zone, f.OriginalZone, f.ReplyZone)),
		"or a zone for one direction only: `ct original zone set`, `-j CT --zone-orig`")
}

// C15: a local socket answers, and the answer is not tracked.
func isUntrackedReturn(e *known) bool {
	_, half := e.half()
	_, notrack, known := e.bypasses()
	local := e.socketIn(sockdiag.SynRecv, sockdiag.Established)
	return half && !e.forwarded() && (notrack || local && !known)
}

func explainUntrackedReturn(e *known, v *Verdict) {
	f, _ := e.half()
	zone, notrack, known := e.bypasses()
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("the SYN|ACK of %v did not pass the tracker, which still waits for it: %v; one direction is exempt from "+
		"tracking (notrack)", e.Packet.Value, f)
	if notrack {
		v.fact("exempt by: " + plain(e.Rules.Value.Notrack))
		v.Summary += ", by " + plain(e.Rules.Value.Notrack)
	}
	switch {
	case notrack && known && !zone && !zoned(&f) && e.reason.Kind == ReasonState:
		v.Confidence = detect.Certain
	case !notrack || !known:
		v.missing("the rule that exempts it", "nft list ruleset")
	default:
		v.missing("whether that rule exempts this connection; zones have the same effect", "nft list ruleset")
	}
	if e.reason.Kind != ReasonState {
		e.reasonMissing(v)
	}
	v.fix("exempt both directions, or none: `notrack` in prerouting and in output, for the port as destination and as source",
		"and accept what is exempt: `ct state untracked accept`")
}

// C16: nobody here answers. Or only the answers come this way.
func isAsymmetric(e *known) bool {
	_, half := e.half()
	none := e.Socket.Result == Absent || e.Socket.Result == NotLooked && e.Hook.Result != Present
	answer := e.forwarded() && e.accepts() && e.stranger() && e.Entry.Result == Absent
	return half && (e.forwarded() || none) || answer
}

func explainAsymmetric(e *known, v *Verdict) {
	f, half := e.half()
	h := e.Packet.Value
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v comes this way, and the SYN that it answers did not: the two directions of the connection take different ways", h)
	if half {
		v.Summary = fmt.Sprintf("%v comes this way, and the SYN|ACK before it did not: the tracker still waits for it: %v; the two directions "+
			"of the connection take different ways", h, f)
	}
	zone, notrack, known := e.bypasses()
	bypass := !known || zone || notrack
	switch {
	case half && e.reason.Kind == ReasonState && e.forwarded() && !bypass:
		v.Confidence = detect.Certain
	case !half || !e.forwarded():
		v.Confidence = detect.Possible
	}
	if bypass {
		v.missing("whether rules exempt the other direction from tracking, or put it in another zone", "nft list ruleset")
	}
	if e.reason.Kind == ReasonNone {
		e.reasonMissing(v)
	}
	if !half {
		v.missing("the way of the other direction; a forged SYN draws such answers, too", fmt.Sprintf("ip route get %v", h.Dst))
	} else {
		v.missing("the way of the other direction", fmt.Sprintf("ip route get %v", h.Src))
	}
	v.fix("route both directions through this host, or neither",
		fmt.Sprintf("or do without tracking for it: `ip%s daddr %v notrack`, and accept it: `ct state untracked accept`; "+
			"`nf_conntrack_tcp_be_liberal` does not help before the SYN|ACK", six(h.Dst.Is6()), h.Dst))
}
