package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// unknownHere reports a packet that neither the tracker nor a socket knows. It is
// another host's connection if this one had translated its source: the packet
// then is to the address that was lent to it.
func (e *known) unknownHere() bool {
	f := &e.Ended.Value.Event.Flow
	lent := e.Ended.Result == Present && f.Translated() && f.Reply == PacketTuple(e.Packet.Value)
	return e.untold() && !e.leaving() && !e.forwarded() && e.closed() && !lent
}

// untold reports a packet of which the tracker has no entry.
func (e *known) untold() bool { return e.here() && e.stranger() && e.Entry.Result == Absent }

// C07: a packet of a connection that this host has closed.
func isLateData(e *known) bool { return e.goesOn() && e.unknownHere() }

func explainLateData(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("late packet of a connection that this host has closed: %v; the peer's application answered "+
		"after the connection was forgotten here, and the refusal is right", e.Packet.Value)
	if e.ended != noSide {
		v.Confidence = detect.Certain
	} else {
		v.missing("when this host's own entry ended", "conntrack -E -e DESTROY -p tcp")
	}
	v.fix("on the peer: close the socket when this side has closed (end of file)",
		"on the peer: look for a ghost entry of this connection; it blocks the reuse of port "+
			fmt.Sprint(e.Packet.Value.DstPort),
		"here: reject such packets with a TCP reset instead of an ICMP error: it ends the peer's socket and its entry")
}

// C35: nobody has anything to reset.
func isLateReset(e *known) bool {
	return e.resets() && (e.unknownHere() || e.untold() && e.forwarded())
}

func explainLateReset(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v resets a connection that nobody here has: it came after the end, or answers packets with a forged source; "+
		"harmless", e.Packet.Value)
	if e.ended != noSide {
		v.Confidence = detect.Certain
		v.Summary = fmt.Sprintf("%v resets a connection that is over: its entry ended at %s; harmless", e.Packet.Value,
			e.Ended.Value.At.Format(time.TimeOnly))
	} else {
		v.missing("whether there was such a connection", "conntrack -E -e DESTROY -p tcp")
	}
	v.fix("drop it without a word: `ct state invalid drop`, before the reject")
}

// C36: an answer whose question is forgotten. Without its end, the ports tell:
// it comes from a service, to a port that serves nothing.
func isLateAnswer(e *known) bool {
	late := e.here() && !e.leaving() && e.stranger() && e.Entry.Result == Absent && e.replies()
	return e.answers() || late
}

func explainLateAnswer(e *known, v *Verdict) {
	h, f := e.Packet.Value, e.Ended.Value.Event.Flow
	name, timeout := "nf_conntrack_udp_timeout", e.Settings.Value.Timeouts.UDP
	switch {
	case e.proto(1):
		name, timeout = "nf_conntrack_icmp_timeout", e.Settings.Value.Timeouts.ICMP
	case e.proto(58):
		name, timeout = "nf_conntrack_icmpv6_timeout", e.Settings.Value.Timeouts.ICMPv6
	case e.answers() && f.Assured():
		name, timeout = "nf_conntrack_udp_timeout_stream", e.Settings.Value.Timeouts.UDPStream
	}
	set := e.setting(name, secs(timeout))
	v.fact(set...)
	v.Summary = fmt.Sprintf("%v is an answer that came after its question was forgotten", h)
	if len(set) > 0 {
		v.Summary += " (" + set[0] + ")"
	}
	e.gradeLateAnswer(v)
	v.fix("raise `net.netfilter."+name+"` above the longest wait for an answer; or find out why answers take so long",
		"or have the asking side ask again sooner than that")
	if e.datagram() && !e.alive() {
		v.fix(fmt.Sprintf("if %v answers what nobody asked, somebody forges this host's address: drop it", h.Src))
	}
}

func (e *known) gradeLateAnswer(v *Verdict) {
	switch {
	case e.answers() && e.Ended.Value.Event.Reason() == conntrack.ReasonExpired:
		v.Confidence = detect.Certain
		v.Summary += fmt.Sprintf(", at %s: %v", e.Ended.Value.At.Format(time.TimeOnly), e.Ended.Value.Event.Flow)
		return
	case e.answers(), e.socketIn(sockdiag.Established):
		v.Confidence = detect.Likely
	default:
		v.Confidence = detect.Possible
		v.Summary += ", or that nobody here asked for"
	}
	v.missing("whether there was a question, and when its entry ended",
		fmt.Sprintf("conntrack -E -p %v", conntrack.Proto(e.Packet.Value.Proto)))
}

// C17: the socket waits for the answer; or waited, as the end of the entry
// tells.
func isSynMissed(e *known) bool {
	waited := e.ended == reply && e.Ended.Value.Event.Flow.TCP.State == conntrack.TCPSynSent
	answer := e.accepts() || e.resets()
	return e.here() && !e.forwarded() && answer && e.stranger() && (e.Entry.Result == Absent || e.sentAgain()) &&
		(e.socketIn(sockdiag.SynSent, sockdiag.SynRecv) || waited && e.accepts())
}

// sentAgain reports the entry of a SYN that was sent again: the answer came when
// that of the SYN before had ended, and was no packet of this one. Their IDs can be
// the same, which are made of the tuple and the place in memory (nf_ct_get_id).
func (e *known) sentAgain() bool {
	f := &e.Entry.Value
	return e.Entry.Result == Present && e.ended == reply && f.Has(conntrack.FieldTCP) && f.TCP.State == conntrack.TCPSynSent && f.Unreplied()
}

func explainSynMissed(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v answers a SYN of this host that the tracker does not know", h)
	set := e.setting("nf_conntrack_tcp_timeout_syn_sent", secs(e.Settings.Value.Timeouts.TCPSynSent))
	v.fact(set...)
	switch {
	case e.ended == reply && e.Ended.Value.Event.Expired():
		v.Confidence = detect.Certain
		v.Summary += fmt.Sprintf(" any more: its entry expired at %s, before the answer came", e.Ended.Value.At.Format(time.TimeOnly))
		v.fix("raise `net.netfilter.nf_conntrack_tcp_timeout_syn_sent`: a SYN sent again does not renew it")
	case e.reason.Kind == ReasonNew:
		v.Confidence = detect.Certain
		v.Summary += ": it left another way than through this tracker, exempt from it, or before it was loaded"
	default:
		v.Summary += ": it left another way than through this tracker, or was forgotten"
		e.reasonMissing(v)
	}
	v.missing("how the SYN left", fmt.Sprintf("ip route get %v", h.Src))
	v.fix("see that what this host sends is tracked as well: no `notrack` in the output hook, no other zone there: `nft list ruleset`")
}

// C18: no socket asked.
func isBackscatter(e *known) bool { return e.accepts() && e.unknownHere() }

func explainBackscatter(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v answers a SYN that was not sent from here: somebody forges the address %v, to hit %v or to hide", h, h.Dst, h.Src)
	v.missing("whether a socket of this host had sent it and is gone", "conntrack -E -e NEW -p tcp")
	v.fix("drop it without a word: `ct state invalid drop`, before the reject: an answer would only add to it")
}
