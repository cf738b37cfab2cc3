package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// forgotten is C01 and C02: a packet of a connection that the socket knows and
// the tracker does not.
func forgotten(e *Evidence) bool {
	return e.refusedHere() && e.goesOn() && e.stranger() && e.Entry.Result == Absent && e.socketIn(sockdiag.Established)
}

func explainForgotten(e *Evidence, v *Verdict) {
	timeout := e.Settings.Value.Timeouts.TCPEstablished
	set := e.setting("nf_conntrack_tcp_timeout_established", secs(timeout))
	v.Facts = append(v.Facts, set...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_loose", bit(e.Settings.Value.TCPLoose))...)
	info := e.Socket.Value.Info
	idle := min(info.LastDataSent, info.LastDataRecv, info.LastAckRecv)
	v.Summary = "the entry of a live connection expired: it was idle for longer than the tracker remembers"
	if len(set) > 0 {
		v.Summary += " (" + set[0] + ")"
	} else {
		v.missing("the tracker's settings", "sysctl net.netfilter.nf_conntrack_tcp_timeout_established")
	}
	v.Summary += fmt.Sprintf("; the peer's packet %v is of no known connection and is refused, and the socket here stays "+
		"ESTABLISHED", e.Packet.Value)
	switch {
	case e.expired():
		v.Confidence = detect.Certain
		v.Summary += "; the expired entry: " + e.Ended.Value.Event.Flow.String()
	case timeout > 0 && e.Socket.Value.Has(sockdiag.FieldInfo) && idle >= timeout:
		v.Confidence = detect.Likely
		v.Facts = append(v.Facts, fmt.Sprintf("the connection has been idle for %v", idle.Round(time.Second)))
	default:
		v.Confidence = detect.Possible
		v.missing("how the entry ended: nobody listened then, or it was never there (tracking began after the connection)",
			"conntrack -E -e DESTROY -p tcp")
	}
	v.fix("raise `net.netfilter.nf_conntrack_tcp_timeout_established` above the longest idle time (RFC 5382: 7440 s at least)",
		"give this service its own timeout (`nft ct timeout`)",
		"send keep-alives more often: `net.ipv4.tcp_keepalive_time`, and SO_KEEPALIVE set by the application")
}

func explainDeleted(e *Evidence, v *Verdict) {
	v.Confidence = detect.Certain
	left := e.Ended.Value.Event.Flow.Timeout
	v.Summary = fmt.Sprintf("the entry of a live connection was removed with %ds left, at %s: deleted, flushed, or evicted "+
		"from a full table", int64(left/time.Second), e.Ended.Value.At.Format(time.TimeOnly))
	v.fix("find who deletes: a firewall reload, `conntrack -D` or `-F`, an interface with masquerade that went down",
		"if the table was full: raise `net.netfilter.nf_conntrack_max`")
	v.missing("who removed it, and whether the table was full", "conntrack -S")
}

// C07: a packet of a connection that the tracker does not know, and that no
// process of this host has. It is another host's connection if this one had
// translated its source: the packet then is to the address that was lent to it.
func isLateData(e *Evidence) bool {
	f := &e.Ended.Value.Event.Flow
	lent := e.Ended.Result == Present && f.Translated() && f.Reply == PacketTuple(e.Packet.Value)
	return e.refusedHere() && e.goesOn() && e.stranger() && e.Entry.Result == Absent && e.closed() && !lent
}

// closed reports that no process has the connection: there is no socket, or one
// that the kernel keeps to end it.
func (e *Evidence) closed() bool {
	ending := e.socketIn(sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.Closing, sockdiag.LastAck, sockdiag.TimeWait)
	return e.Socket.Result == Absent || ending && !e.Socket.Value.HasOwner()
}

func explainLateData(e *Evidence, v *Verdict) {
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("late packet of a connection that this host has closed: %v; the peer's application answered "+
		"after the connection was forgotten here, and the refusal is right", e.Packet.Value)
	if e.Ended.Result == Present {
		v.Confidence = detect.Certain
	} else {
		v.missing("when this host's own entry ended", "conntrack -E -e DESTROY -p tcp")
	}
	v.fix("on the peer: close the socket when this side has closed (end of file)",
		"on the peer: look for a ghost entry of this connection; it blocks the reuse of port "+
			fmt.Sprint(e.Packet.Value.DstPort),
		"here: reject such packets with a TCP reset instead of an ICMP error: it ends the peer's socket and its entry")
}
