package reject

import (
	"fmt"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// dropFirst is the remedy that comes before all others of a packet that is
// INVALID for no fault of its connection: iptables-extensions(8), REJECT, warns
// that the error ends a healthy connection.
const dropFirst = "drop what is INVALID before anything is rejected: `ct state invalid drop`; a reject would end a healthy connection"

// C13: the packet itself is damaged.
func isDamaged(e *known) bool {
	return e.here() && slices.Contains([]ReasonKind{ReasonChecksum, ReasonTruncated, ReasonForeign}, e.reason.Kind)
}

func explainDamaged(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	src := e.Packet.Value.Src
	switch e.reason.Kind {
	case ReasonForeign:
		v.Summary = fmt.Sprintf("the ICMP error of %v quotes a connection of another host than it was sent to: it is forged, or a "+
			"device translated only half of it", src)
		v.fix("drop it: `ct state invalid drop`", fmt.Sprintf("if %v is a router of yours, look at its address translation of ICMP errors", src))
		return
	case ReasonTruncated:
		v.Summary = fmt.Sprintf("%v is shorter than its headers say: cut on its way, or made so", e.Packet.Value)
		v.fix("look where it is cut: a tunnel, or an interface with a smaller MTU: `tracepath -n "+src.String()+"`", dropFirst)
		return
	}
	v.Summary = fmt.Sprintf("%v has a wrong checksum: damaged on its way, or sent by a network card that leaves the checksum to another",
		e.Packet.Value)
	v.fact(e.setting("nf_conntrack_checksum", bit(e.Settings.Value.Checksum))...)
	v.fix("on the sender, if it is a virtual machine or a container: `ethtool -K eth0 tx off`, for its interface",
		"until then, let the sockets check: `sysctl net.netfilter.nf_conntrack_checksum=0`", dropFirst)
}

// C12: tcp_valid_flags, in which PSH, ECE and CWR do not count.
func isInvalidFlags(e *known) bool {
	bad := e.tcp() && e.mayBe(Invalid) && !validFlags(e.Packet.Value.Flags)
	return e.here() && (bad && e.reason.Kind == ReasonNone || e.reason.Kind == ReasonFlags)
}

func validFlags(f packet.TCPFlags) bool {
	switch f &^ (packet.PSH | packet.ECE | packet.CWR) {
	case packet.SYN, packet.SYN | packet.URG, packet.SYN | packet.ACK, packet.RST, packet.RST | packet.ACK,
		packet.FIN | packet.ACK, packet.FIN | packet.ACK | packet.URG, packet.ACK, packet.ACK | packet.URG:
		return true
	}
	return false
}

func explainInvalidFlags(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	if e.reason.Kind == ReasonFlags {
		v.Confidence = detect.Certain
	} else {
		e.reasonMissing(v)
	}
	v.Summary = fmt.Sprintf("%v has TCP flags that no honest stack sends together: a scan, or a crafted packet", e.Packet.Value)
	v.fix(fmt.Sprintf("ban %v: `nft add rule inet filter input ip%s saddr %[1]v drop`", e.Packet.Value.Src, six(e.Packet.Value.Src.Is6())),
		"drop such packets without an answer, which would tell the scanner more: `ct state invalid drop`")
}

// C11: a RST whose SEQ the receiver has left behind (tcp_packet: td_maxack).
func isInvalidReset(e *known) bool {
	guess := e.State == Invalid && e.reason.Kind == ReasonNone && e.resets() && e.side != noSide && !e.Settings.Value.TCPIgnoreInvalidRST
	return e.here() && (e.reason.Kind == ReasonReset || guess)
}

func explainInvalidReset(e *known, v *Verdict) {
	v.Confidence = detect.Possible
	if e.reason.Kind == ReasonReset {
		v.Confidence = detect.Certain
	} else {
		e.reasonMissing(v)
	}
	v.Summary = fmt.Sprintf("%v, SEQ %d, does not fit the connection: its receiver has acknowledged more. It is forged, or its sender has "+
		"lost track", e.Packet.Value, e.Packet.Value.Seq)
	v.fact(e.setting("nf_conntrack_tcp_ignore_invalid_rst", bit(e.Settings.Value.TCPIgnoreInvalidRST))...)
	v.fix(dropFirst)
	if e.before(5, 14) {
		v.fix("Linux 5.14 has a setting to let such a RST through; before it, only: `sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1`")
		return
	}
	v.fix("if the path is trusted, let the receiver judge: `sysctl net.netfilter.nf_conntrack_tcp_ignore_invalid_rst=1` (Linux 5.14)")
}

// C10: Linux 6.1 lets it through; what the kernel did counts, not its release.
func isLateDuplicate(e *known) bool {
	under := e.reason.Kind == ReasonSeqUnder || e.reason.Kind == ReasonAckUnder
	return e.here() && under && (e.State == Invalid || e.State == StateUnknown && !e.reason.Passes())
}

func explainLateDuplicate(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	if e.reason.Passes() {
		v.Confidence = detect.Likely
		v.fact("the reason is that of a packet which is let through")
	}
	v.Summary = fmt.Sprintf("%v is a late duplicate: %s is below what was acknowledged%s; it is harmless, and its refusal can end the connection",
		e.Packet.Value, e.number(), e.outside())
	v.fix(dropFirst)
	if !e.since(6, 1) {
		v.fix("Linux 6.1 and later let it through")
	}
	v.fix("until then: `sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1`")
}

// number names the field that the tracker held against the packet.
func (e *known) number() string {
	if e.reason.Kind == ReasonAckOver || e.reason.Kind == ReasonAckUnder {
		return fmt.Sprintf("ACK %d", e.Packet.Value.Ack)
	}
	return fmt.Sprintf("SEQ %d", e.Packet.Value.Seq)
}

// outside says by how much the packet is outside of the window.
func (e *known) outside() string {
	if n, ok := e.reason.beyond(e.Packet.Value); ok {
		return fmt.Sprintf(" (by %d bytes; bound %d)", n, e.reason.Bound)
	}
	return ""
}

// C09. Without the kernel's word, the window is all that is left when the
// segment fits the state of its entry; or the checksum.
func isOutOfWindow(e *known) bool {
	over := slices.Contains([]ReasonKind{ReasonSeqOver, ReasonAckOver, ReasonOvershot}, e.reason.Kind) && e.odd()
	guess := e.State == Invalid && e.reason.Kind == ReasonNone && e.goesOn() && e.side != noSide && !e.misfit() &&
		!e.Settings.Value.TCPBeLiberal
	return e.here() && (over || guess)
}

func explainOutOfWindow(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("%v is outside of the window that the tracker has seen", e.Packet.Value)
	switch e.reason.Kind {
	case ReasonNone:
		v.Confidence = detect.Possible
		e.reasonMissing(v)
	case ReasonAckOver:
		v.Summary += fmt.Sprintf(": %s acknowledges data that never passed here%s", e.number(), e.outside())
	case ReasonOvershot:
		v.Confidence = detect.Likely // an older packet's reason: this one passes
		v.Summary += fmt.Sprintf(": %d bytes more than the receiver has room for", e.reason.Bound)
	default:
		v.Summary += fmt.Sprintf(": %s is beyond what the receiver has room for%s", e.number(), e.outside())
	}
	v.Summary += "; segments were lost before they came here, took another way, or a device changes the numbers"
	if _, nat := e.Entry.Value.DestinationNAT(); nat && e.Entry.Result == Present {
		v.Summary += "; its translation is not done for INVALID packets: let through, it would draw a RST"
	}
	v.fact(e.setting("nf_conntrack_tcp_be_liberal", bit(e.Settings.Value.TCPBeLiberal))...)
	v.fix(dropFirst, "let the receiver judge: `sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1`",
		"look for the device or the second way: `tcpdump -ni any tcp and host "+e.Packet.Value.Src.String()+"` on both ends, and compare SEQ and ACK")
}

// C34: any other segment that its entry's state has no place for.
func isOutOfState(e *known) bool { return e.here() && e.odd() && e.misfit() }

var segmentNames = [...]string{"SYN", "SYN|ACK", "FIN", "ACK", "RST", "segment without flags"}

func explainOutOfState(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	index, dir := segmentIndex(e.Packet.Value.Flags), "original"
	if e.side == reply {
		dir = "reply"
	}
	if e.reason.Kind == ReasonState {
		v.Confidence = detect.Certain
	} else {
		e.reasonMissing(v)
	}
	if e.reason.Exact {
		index, dir = min(int(e.reason.Index), 5), "original"
		if e.reason.Reply {
			dir = "reply"
		}
	}
	state := ""
	if s := e.then(); s != conntrack.TCPNone {
		state = fmt.Sprintf(" that is %v", s)
	}
	v.Summary = fmt.Sprintf("%v: a %s in the %s direction has no place in a connection%s; the tracker has missed a part of it",
		e.Packet.Value, segmentNames[index], dir, state)
	v.fix(dropFirst)
	if e.Entry.Result == Present {
		v.fix("if the connection hangs, delete its entry: `" + detect.DeleteCommand(&e.Entry.Value) + "`")
	}
	v.fix("if it happens again: see that both directions pass here, and in the same conntrack zone: `nft list ruleset`")
}
