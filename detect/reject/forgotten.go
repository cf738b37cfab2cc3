package reject

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// forgotten is C01 to C04: a packet of a connection that the tracker does not
// know, and the socket does; of a forwarded one, another host's.
func forgotten(e *known) bool {
	lives := e.alive() || e.forwarded() && (e.goesOn() || e.endedAlive())
	return e.here() && (e.goesOn() || e.resets()) && e.stranger() && e.Entry.Result == Absent && lives
}

// endedAlive reports that the entry which ended was the connection's, and not
// that of an earlier one with the same ports: its state goes with the socket's.
func (e *Evidence) endedAlive() bool {
	f := &e.Ended.Value.Event.Flow
	if e.Ended.Result != Present || !f.Has(conntrack.FieldTCP) {
		return false
	}
	if e.socketIn(sockdiag.CloseWait, sockdiag.FinWait1, sockdiag.FinWait2) {
		return f.TCP.State == conntrack.TCPFinWait || f.TCP.State == conntrack.TCPCloseWait
	}
	return f.TCP.State == conntrack.TCPEstablished
}

// expired reports that the entry of a live connection ended because its time
// ran out. Kernels before 5.13 do not tell.
func (e *Evidence) expired() bool { return e.endedAlive() && e.Ended.Value.Event.Expired() }

// answers reports a datagram that came for an entry which has ended.
func (e *known) answers() bool {
	return e.here() && (e.datagram() || e.icmpReply()) && e.stranger() && e.Entry.Result == Absent && e.ended == reply
}

// removed reports that the entry of the connection ended with time left.
func (e *known) removed() bool {
	why := e.Ended.Value.Event.Reason()
	ended := forgotten(e) && e.endedAlive() || e.answers()
	return ended && (why == conntrack.ReasonDeleted || why == conntrack.ReasonRemoved)
}

// pressed reports that the table was full, or nearly, so that the kernel made
// room: early drop takes what is not assured, and garbage collection above
// 95 % also what is closing (tcp_can_early_drop).
func (e *known) pressed() bool {
	share, limited := e.Usage.Value.Share()
	full := e.Usage.Result == Present && limited && share >= 0.95
	return full || e.Counters.Result == Present && e.Counters.Value.Conntrack.EarlyDrop > 0
}

// C03. An ESTABLISHED entry that is assured is never evicted.
func isEvicted(e *known) bool {
	f := &e.Ended.Value.Event.Flow
	immune := f.Has(conntrack.FieldStatus) && f.Assured() && (!f.Has(conntrack.FieldTCP) || f.TCP.State == conntrack.TCPEstablished)
	return e.removed() && e.Ended.Value.Event.Reason() == conntrack.ReasonRemoved && e.pressed() && !immune
}

func explainEvicted(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	c := e.Counters.Value.Conntrack
	if e.Counters.Result == Present && c.EarlyDrop > 0 {
		v.Confidence = detect.Certain
		v.Summary = fmt.Sprintf("; the kernel evicted %d entries lately", c.EarlyDrop)
	} else {
		v.missing("whether entries were evicted (early_drop)", "conntrack -S")
	}
	v.Summary = fmt.Sprintf("the entry of a live connection was evicted from a full table, with %ds left, at %s%s",
		e.left(), e.Ended.Value.At.Format(time.TimeOnly), v.Summary)
	fixFullTable(e, v)
}

// left is the time that the ended entry had left, in seconds.
func (e *known) left() int64 { return int64(e.Ended.Value.Event.Flow.Timeout / time.Second) }

// C02
func isDeleted(e *known) bool { return e.removed() }

func explainDeleted(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("the entry of a live connection was removed with %ds left, at %s", e.left(), e.Ended.Value.At.Format(time.TimeOnly))
	port := e.Ended.Value.Event.Port
	if port != 0 {
		v.Summary += fmt.Sprintf(": somebody deleted it (netlink port %d, often the number of the process)", port)
		v.fix(fmt.Sprintf("find who deletes: `ps -p %d`, or what runs `conntrack -D` or `-F`; a firewall or a container manager does on reload", port))
		v.fix("let it delete only what it must: by address, port and zone")
		return
	}
	v.Summary += " by the kernel itself: an interface with masquerade lost its address or went down, a helper was unloaded, or it was evicted " +
		"from a full table"
	v.fix("look for interfaces that went down: `ip -ts monitor link address`; with a static address use snat instead of masquerade",
		"if something runs `conntrack -D` or `-F`, see that it spares live connections",
		"if the table was full: raise `net.netfilter.nf_conntrack_max`, in the initial network namespace")
	if e.Counters.Result != Present {
		v.missing("whether the table was full", "conntrack -S")
	}
}

// C04: the entry cannot have expired, by how lately the connection carried
// something; nor was its end seen.
func isTrackedLate(e *known) bool {
	idle, ok := e.idle()
	return forgotten(e) && e.Ended.Result != Present && ok && (e.watched(idle) || idle < e.shortest())
}

// watched reports that the ends of entries have been listened to since before
// the connection last carried something: had it had an entry then, its end
// would have been seen.
func (e *known) watched(idle time.Duration) bool {
	return e.Ended.Result == Absent && !e.Listening.IsZero() && !e.At.IsZero() && idle < e.At.Sub(e.Listening)
}

// shortest is how long an ESTABLISHED entry lives at least, with data that is
// not acknowledged too; 0 is not known.
func (e *known) shortest() time.Duration {
	t := e.Settings.Value.Timeouts
	if e.Settings.Result != Present {
		return 0
	}
	return min(t.TCPEstablished, t.TCPUnacknowledged, t.TCPMaxRetrans)
}

// idle is how long the socket has neither sent nor received.
func (e *known) idle() (time.Duration, bool) {
	info := e.Socket.Value.Info
	return min(info.LastDataSent, info.LastDataRecv, info.LastAckRecv), e.Socket.Result == Present && e.Socket.Value.Has(sockdiag.FieldInfo)
}

func explainTrackedLate(e *known, v *Verdict) {
	idle, _ := e.idle()
	v.Summary = fmt.Sprintf("the connection is older than its tracking: it carried something %v ago, ", idle.Round(time.Second))
	if e.watched(idle) {
		v.Confidence = detect.Likely
		v.Summary += fmt.Sprintf("and no entry of it has ended in the %v that were listened to", e.At.Sub(e.Listening).Round(time.Second))
	} else {
		v.Confidence = detect.Possible
		v.Summary += fmt.Sprintf("too lately for an entry of it to have expired (%v)", e.shortest())
		v.missing("whether somebody deleted its entry: nobody listened then", "conntrack -E -e DESTROY -p tcp")
	}
	v.fact(e.setting("nf_conntrack_tcp_loose", bit(e.Settings.Value.TCPLoose))...)
	v.missing("since when the tracker runs: rules that need it were loaded, or this host took over", "journalctl -k -g conntrack")
	v.fix("let connections be picked up in the middle: `sysctl net.netfilter.nf_conntrack_tcp_loose=1`, and accept them while the rules are new",
		"on hosts that take over from each other, hand the table on: conntrackd",
		"or wait: the connections that are cut are made anew")
}

// C01
func isForgotten(e *known) bool { return forgotten(e) }

// lifetime is the setting that decides how long an entry in the state of the
// ended one lives.
func (e *known) lifetime() (name string, timeout time.Duration) {
	state := conntrack.TCPEstablished
	switch {
	case e.endedAlive():
		state = e.Ended.Value.Event.Flow.TCP.State
	case e.socketIn(sockdiag.CloseWait):
		state = conntrack.TCPCloseWait
	case e.socketIn(sockdiag.FinWait1, sockdiag.FinWait2):
		state = conntrack.TCPFinWait
	}
	return "nf_conntrack_tcp_timeout_" + strings.ToLower(state.String()), e.Settings.Value.Timeouts.TCP(state)
}

func explainForgotten(e *known, v *Verdict) {
	name, timeout := e.lifetime()
	set := e.setting(name, secs(timeout))
	v.fact(set...)
	v.fact(e.setting("nf_conntrack_tcp_loose", bit(e.Settings.Value.TCPLoose))...)
	v.Summary = "the entry of a live connection expired: it was idle for longer than the tracker remembers"
	if len(set) > 0 {
		v.Summary += " (" + set[0] + ")"
	} else {
		v.missing("the tracker's settings", "sysctl net.netfilter."+name)
	}
	v.Summary += fmt.Sprintf("; the packet %v is of no known connection and is refused, and the %s", e.Packet.Value, e.stays())
	e.gradeForgotten(timeout, v)
	v.fix("raise `net.netfilter."+name+"` above the longest idle time (RFC 5382: 7440 s at least, of established connections)",
		"give this service its own timeout (`nft ct timeout`)",
		"send keep-alives more often: `net.ipv4.tcp_keepalive_time`, and SO_KEEPALIVE set by the application")
	if e.resets() {
		v.fix("let a RST of no known connection in for this service: the socket here learns that the peer is gone")
	}
	v.fix(e.looseAdvice()...)
}

// stays says what becomes of the connection.
func (e *known) stays() string {
	switch {
	case e.Socket.Result == Present:
		return fmt.Sprintf("socket here stays %v", e.Socket.Value.State)
	case e.forwarded():
		return "hosts at its ends keep it"
	}
	return "socket here stays"
}

func (e *known) gradeForgotten(timeout time.Duration, v *Verdict) {
	idle, ok := e.idle()
	switch {
	case e.expired():
		v.Confidence = detect.Certain
		v.Summary += "; the expired entry: " + e.Ended.Value.Event.Flow.String()
		if e.unpicked() {
			v.Confidence = detect.Likely
			v.fact("with tcp_loose the packet would be NEW, not INVALID, for that alone")
			e.reasonMissing(v)
		}
	case timeout > 0 && ok && idle >= timeout:
		v.Confidence = detect.Likely
		v.fact(fmt.Sprintf("the connection has been idle for %v", idle.Round(time.Second)))
		v.missing("how the entry ended", "conntrack -E -e DESTROY -p tcp")
	default:
		v.Confidence = detect.Possible
		v.missing("how the entry ended: nobody listened then, or it was never there (tracking began after the connection)",
			"conntrack -E -e DESTROY -p tcp")
	}
}

// unpicked reports that the packet is INVALID though the tracker picks up what
// it does not know: there is more to it.
func (e *known) unpicked() bool {
	plain := segmentIndex(e.Packet.Value.Flags) == 3
	return e.State == Invalid && plain && e.reason.Kind == ReasonNone && e.Settings.Result == Present && e.Settings.Value.TCPLoose
}

// looseAdvice is for hosts that do not pick up.
func (e *known) looseAdvice() []string {
	if e.Settings.Result == Present && !slices.Contains([]State{New}, e.State) && !e.Settings.Value.TCPLoose {
		return []string{"until then, pick connections up in the middle: `sysctl net.netfilter.nf_conntrack_tcp_loose=1`, and accept new ones of " +
			"this service that do not begin with a SYN; ghosts come of it"}
	}
	return nil
}
