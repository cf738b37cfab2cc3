package reject

import (
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// row is one row of the decision table.
type row struct {
	rule    string
	cause   Cause
	match   func(*Evidence) bool
	explain func(*Evidence, *Verdict)
}

// table is tried in order; the first match wins.
var table = []row{
	{"C25", CauseOnPath, onPath, explainOnPath},
	{"C26", CauseByPeer, func(e *Evidence) bool { return e.own() && e.opens() }, explainByPeer},
	{"C28", CausePeerForgot, func(e *Evidence) bool { return e.own() && e.goesOn() }, explainPeerForgot},
	{"C05", CauseGhost, isGhost, explainGhost},
	{"C06", CausePortReuse, isPortReuse, explainPortReuse},
	{"C02", CauseEntryDeleted, func(e *Evidence) bool { return forgotten(e) && deleted(e) }, explainDeleted},
	{"C01", CauseEntryExpired, forgotten, explainForgotten},
	{"C07", CauseLateData, isLateData, explainLateData},
	{"C19", CauseNotAllowed, func(e *Evidence) bool { return refusedNew(e) && e.Listener.Result == Present }, explainNotAllowed},
	{"C20", CauseNoService, func(e *Evidence) bool { return refusedNew(e) && e.Listener.Result == Absent }, explainNoService},
	{"C08", CauseClosingEntryEnds, isClosingEntry, explainClosingEntry},
}

// Explain finds the first row of the decision table that the evidence fits.
// Evidence that fits none gets CauseUnknown, its facts, and what is missing.
//
// The confidence is Certain where the kernel itself told of the event (its
// reason, or the end of the entry), Likely where tables read after it agree,
// Possible where an ICMP error is all there is.
func Explain(e Evidence) Verdict {
	v := Verdict{Evidence: e, Facts: e.facts()}
	if e.Packet.Result == Present {
		v.Flow = PacketTuple(e.Packet.Value)
	}
	for _, r := range table {
		if r.match(&e) {
			v.Rule, v.Cause = r.rule, r.cause
			r.explain(&e, &v)
			return v
		}
	}
	explainUnknown(&e, &v)
	return v
}

// C25: the ICMP error does not come from where the packet went.
func onPath(e *Evidence) bool {
	return e.own() && e.ICMP.Result == Present && e.refuser() != e.Packet.Value.Dst
}

func explainOnPath(e *Evidence, v *Verdict) {
	v.Confidence = detect.Possible
	v.Summary = fmt.Sprintf("%v refused a packet to %v (%s): a device on the path, not the peer; nothing on this "+
		"host explains it", e.refuser(), e.Packet.Value.Dst, icmpName(e))
	v.fix(fmt.Sprintf("ask whoever runs %v which rule refuses %v", e.refuser(), e.Packet.Value))
	v.missing("whether "+e.refuser().String()+" is an address of the peer itself",
		fmt.Sprintf("traceroute -n -T -p %d %v", e.Packet.Value.DstPort, e.Packet.Value.Dst))
}

// C26
func explainByPeer(e *Evidence, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Possible
	v.Summary = fmt.Sprintf("the peer's own firewall refused the new connection (%s): either no rule there allows "+
		"%v port %d, or a ghost entry there holds source port %d", icmpName(e), h.Dst, h.DstPort, h.SrcPort)
	v.fix("on the peer: find the entry of this connection (`conntrack -L`) and delete it if it is ESTABLISHED [UNREPLIED]",
		"on the peer: allow the port", "here: connect from another source port")
	v.missing("the peer's table and rules; another source port that connects proves the ghost",
		fmt.Sprintf("nc -v -z -p %d %v %d", otherPort(h.SrcPort), h.Dst, h.DstPort))
}

func otherPort(p uint16) uint16 {
	if p == 65535 {
		return p - 1
	}
	return p + 1
}

// C28: the peer's C01 or C07, seen from the other end.
func explainPeerForgot(e *Evidence, v *Verdict) {
	v.Confidence = detect.Possible
	v.Summary = fmt.Sprintf("the peer's firewall refused a packet of a connection that is made (%s): its tracker has "+
		"forgotten it", icmpName(e))
	switch {
	case e.socketIn(sockdiag.CloseWait, sockdiag.LastAck, sockdiag.Closing, sockdiag.FinWait1):
		v.Summary += fmt.Sprintf("; the socket here is %v: the peer closed long ago and this side answers late",
			e.Socket.Value.State)
		v.fix("close the socket when the peer has closed (end of file)")
		v.Confidence = detect.Likely
	case e.socketIn(sockdiag.Established):
		v.fix("on the peer: raise `net.netfilter.nf_conntrack_tcp_timeout_established`, or send keep-alives more often")
		v.Confidence = detect.Likely
	}
	v.fix("on the peer: `conntrack -L` shows whether it has the entry")
	v.missing("the peer's table", "conntrack -L -p tcp # on the peer")
}

const synInReply = "(index 0) in dir 1 invalid, state "

// C05: a SYN in the reply direction of an entry that is ESTABLISHED and
// [UNREPLIED].
func isGhost(e *Evidence) bool {
	f := e.Entry.Value
	return e.incoming() && e.opens() && e.reversed() && f.Unreplied() &&
		f.Has(conntrack.FieldTCP) && f.TCP.State == conntrack.TCPEstablished
}

func explainGhost(e *Evidence, v *Verdict) {
	f := e.Entry.Value
	v.Confidence = detect.Likely
	if strings.Contains(e.Reason, synInReply+"ESTABLISHED") {
		v.Confidence = detect.Certain
	} else {
		v.missing("the kernel's reason for the packet (Config.Reasons)", "sysctl net.netfilter.nf_conntrack_log_invalid=6")
	}
	v.Summary = fmt.Sprintf("ghost entry %v: picked up in the middle of an earlier connection (tcp_loose) after its "+
		"entry had ended with the application still at work (close_wait), it outlived the connection and lasts another "+
		"%ds; the new SYN comes in its reply direction, which makes it INVALID", f, int64(f.Timeout/time.Second))
	s := e.Settings.Value
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_loose", bit(s.TCPLoose))...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_timeout_close_wait", secs(s.Timeouts.TCPCloseWait))...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_timeout_unacknowledged", secs(s.Timeouts.TCPUnacknowledged))...)
	v.fix("delete the entry: `"+detect.DeleteCommand(&f)+"`",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request: the peer then answers the "+
			"late data with a RST, and both sides are clean",
		"let the application close when the peer has closed (end of file)",
		"`sysctl net.netfilter.nf_conntrack_tcp_loose=0`: nothing is picked up in the middle; connections that live "+
			"while the table is flushed are cut")
}

// C06: the same with any other state, which the kernel's reason names.
func isPortReuse(e *Evidence) bool {
	return e.incoming() && e.opens() && e.reversed() && e.Entry.Value.Has(conntrack.FieldTCP) &&
		(e.State == Invalid || e.Reason != "")
}

func explainPortReuse(e *Evidence, v *Verdict) {
	f := e.Entry.Value
	v.Confidence = detect.Likely
	if strings.Contains(e.Reason, synInReply) {
		v.Confidence = detect.Certain
	}
	v.Summary = fmt.Sprintf("a new connection uses the addresses and ports of entry %v, which is not over and was begun "+
		"from this side: a SYN in the reply direction is INVALID", f)
	v.fix("delete the entry if its connection is dead: `"+detect.DeleteCommand(&f)+"`", "use other source ports")
}

// forgotten is C01 and C02: a packet of a connection that the socket knows and
// the tracker does not.
func forgotten(e *Evidence) bool {
	unknown := e.State == New || e.State == StateUnknown || e.State == Invalid && e.Reason == ""
	return e.incoming() && e.goesOn() && unknown && e.Entry.Result == Absent && e.socketIn(sockdiag.Established)
}

func deleted(e *Evidence) bool {
	return e.Ended.Result == Present && !e.Ended.Value.Event.Expired()
}

func explainForgotten(e *Evidence, v *Verdict) {
	timeout := e.Settings.Value.Timeouts.TCPEstablished
	set := e.setting("nf_conntrack_tcp_timeout_established", secs(timeout))
	v.Facts = append(v.Facts, set...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_loose", bit(e.Settings.Value.TCPLoose))...)
	idle := e.Socket.Value.Info.LastDataRecv
	v.Summary = "the entry of a live connection expired: it was idle for longer than the tracker remembers"
	if len(set) > 0 {
		v.Summary += " (" + set[0] + ")"
	} else {
		v.missing("the tracker's settings", "sysctl net.netfilter.nf_conntrack_tcp_timeout_established")
	}
	v.Summary += fmt.Sprintf("; the peer's packet %v is of no known connection and is refused, and the socket here stays "+
		"ESTABLISHED", e.Packet.Value)
	switch {
	case e.Ended.Result == Present:
		v.Confidence = detect.Certain
		v.Summary += "; the expired entry: " + e.Ended.Value.Event.Flow.String()
	case timeout > 0 && e.Socket.Value.Has(sockdiag.FieldInfo) && idle >= timeout:
		v.Confidence = detect.Likely
		v.Facts = append(v.Facts, fmt.Sprintf("the socket has received nothing for %v", idle.Round(time.Second)))
	default:
		v.Confidence = detect.Possible
		v.missing("how the entry ended: nobody listened then, or it was never there (tracking began after the connection)",
			"conntrack -E -e DESTROY -p tcp")
	}
	v.fix("raise `net.netfilter.nf_conntrack_tcp_timeout_established` above the longest idle time (RFC 5382: 7440 s at least)",
		"or give this service its own timeout (`nft ct timeout`)",
		"or send keep-alives more often: `net.ipv4.tcp_keepalive_time`, and SO_KEEPALIVE set by the application")
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

// C07: a packet of a connection that neither tracker nor sockets know.
func isLateData(e *Evidence) bool {
	known := e.State == Established || e.State == Related || e.State == Untracked
	return e.incoming() && e.goesOn() && !known && e.Entry.Result == Absent && e.Socket.Result == Absent
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

func refusedNew(e *Evidence) bool {
	return e.incoming() && e.opens() && (e.State == New || e.State == StateUnknown) && e.Entry.Result == Absent
}

// C19
func explainNotAllowed(e *Evidence, v *Verdict) {
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("no rule lets new connections from %v to port %d in, though a socket listens there",
		e.Packet.Value.Src, e.Packet.Value.DstPort)
	v.fix(fmt.Sprintf("allow it, if it is wanted: `ct state new tcp dport %d accept` before the reject", e.Packet.Value.DstPort))
	v.missing("which rule refused", "nft monitor trace")
}

// C20
func explainNoService(e *Evidence, v *Verdict) {
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("a new connection to port %d, where nothing listens: a stopped service, or a scan; the "+
		"refusal is right", e.Packet.Value.DstPort)
	v.fix("start the service, if it is missed", fmt.Sprintf("ban %v, if it asks for many ports", e.Packet.Value.Src))
}

// C08: a socket that can outlive its entry.
func isClosingEntry(e *Evidence) bool {
	short := e.Entry.Result == Present && e.Entry.Value.Has(conntrack.FieldTimeout) &&
		e.Entry.Value.Timeout < e.Settings.Value.Timeouts.TCPCloseWait
	return e.Packet.Result != Present && e.socketIn(sockdiag.CloseWait) && (e.Entry.Result == Absent || short)
}

func explainClosingEntry(e *Evidence, v *Verdict) {
	s := e.Socket.Value
	v.Flow = detect.SocketTuple(&s)
	set := e.setting("nf_conntrack_tcp_timeout_close_wait", secs(e.Settings.Value.Timeouts.TCPCloseWait))
	v.Facts = append(v.Facts, set...)
	v.Confidence = detect.Likely
	what := "has no entry any more"
	if e.Entry.Result == Present {
		v.Confidence = detect.Possible
		what = fmt.Sprintf("has an entry for another %ds only", int64(e.Entry.Value.Timeout/time.Second))
		v.missing("when the application will answer", fmt.Sprintf("ss -tnpo state close-wait dst %v", s.Remote))
	}
	v.Summary = fmt.Sprintf("the peer has closed, the application has not (CLOSE_WAIT), and the connection %v > %v %s: "+
		"what it still sends will be picked up as a ghost and refused by the peer", s.Local, s.Remote, what)
	v.fix("close the socket when the peer has closed (end of file)",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request")
}

func explainUnknown(e *Evidence, v *Verdict) {
	v.Cause = CauseUnknown
	v.Summary = "the evidence fits no known cause"
	lookups := []struct {
		missing      bool
		fact, decide string
	}{
		{e.Packet.Result != Present, "the refused packet", "nft monitor trace"},
		{e.State == StateUnknown && !e.own(), "the packet's conntrack state", "nft monitor trace"},
		{e.Entry.Result == NotLooked, "the conntrack entry", "conntrack -L"},
		{e.Socket.Result == NotLooked, "the socket", "ss -tanoe"},
		{e.State == Invalid && e.Reason == "", "the kernel's reason", "sysctl net.netfilter.nf_conntrack_log_invalid=255"},
		{e.Settings.Result != Present, "the tracker's settings", "sysctl net.netfilter"},
	}
	for _, l := range lookups {
		if l.missing {
			v.missing(l.fact, l.decide)
		}
	}
	if len(v.Missing) == 0 {
		v.missing("the rule that refused", "nft monitor trace")
	}
}

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func secs(d time.Duration) string { return fmt.Sprint(int64(d / time.Second)) }

// icmpName is the ICMP error in words.
func icmpName(e *Evidence) string {
	if e.ICMP.Result != Present {
		return "no ICMP error was seen"
	}
	h := e.ICMP.Value
	return packet.ICMPName(h.Proto == packet.ProtoICMPv6, h.ICMPType, h.ICMPCode)
}
