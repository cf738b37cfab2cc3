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

// begins reports a packet that begins something: a SYN, and of protocols
// without connections one that is not known to answer. One that is refused on
// its way in leaves no entry behind; one of this host to itself has made its
// entry on its way out.
func (e *known) begins() bool {
	f := &e.Entry.Value
	itself := e.Entry.Result == Present && f.Original == PacketTuple(e.Packet.Value) && (f.TCP.State == conntrack.TCPSynSent || !e.tcp() && f.Unreplied())
	first := e.opens() || e.Packet.Result == Present && !e.proto(packet.ProtoTCP) && !e.icmpReply() && e.Packet.Value.Have.Has(packet.HaveProto)
	return first && e.mayBe(New) && e.reason.Kind == ReasonNone && (e.Entry.Result == Absent || itself)
}

// service names what the packet asks for.
func (e *known) service() string {
	h := e.Packet.Value
	switch {
	case h.Have.Has(packet.HavePorts):
		return fmt.Sprintf("port %d", h.DstPort)
	case e.icmp():
		return packet.ICMPName(h.Proto == packet.ProtoICMPv6, h.ICMPType, h.ICMPCode)
	}
	return fmt.Sprintf("protocol %d", h.Proto)
}

// accept is a rule that lets the packet in.
func (e *known) accept() string {
	h := e.Packet.Value
	switch {
	case h.Have.Has(packet.HavePorts):
		return fmt.Sprintf("ct state new %v dport %d accept", conntrack.Proto(h.Proto), h.DstPort)
	case e.icmp() && e.proto(packet.ProtoICMPv6):
		return fmt.Sprintf("icmpv6 type %d accept", h.ICMPType)
	case e.icmp():
		return fmt.Sprintf("icmp type %d accept", h.ICMPType)
	}
	return fmt.Sprintf("ct state new meta l4proto %d accept", h.Proto)
}

// C37: the packet is this host's own.
func isNotAllowedOut(e *known) bool {
	return e.leaving() && (e.begins() || e.opens() && e.mayBe(New) && e.Entry.Result == NotLooked)
}

func explainNotAllowedOut(e *known, v *Verdict) {
	v.Confidence = e.proven()
	if e.Refusal == ICMPReceived {
		v.Confidence = detect.Possible
	}
	v.Summary = fmt.Sprintf("this host's own rules refuse what it sends: no rule lets %s of %v out", e.service(), e.Packet.Value.Dst)
	e.byRule(v)
	v.fix(fmt.Sprintf("allow it, if it is wanted: `%s`, in the chain of the output hook", e.accept()))
}

// C19: somebody would take it; or nobody here has to, of what is forwarded or
// has no ports.
func isNotAllowed(e *known) bool {
	ports := e.Packet.Value.Have.Has(packet.HavePorts)
	return e.here() && e.begins() && (e.forwarded() || e.Listener.Result == Present || !ports && !e.proto(packet.ProtoTCP))
}

func explainNotAllowed(e *known, v *Verdict) {
	v.Confidence = e.proven()
	h := e.Packet.Value
	switch {
	case e.forwarded():
		v.Summary = fmt.Sprintf("no rule lets new connections from %v through to %s of %v", h.Src, e.service(), h.Dst)
		v.fix(fmt.Sprintf("allow it, if it is wanted: `ip%s daddr %v %s`, in the chain of the forward hook; where the destination is "+
			"translated (dnat), rules there see the new one, and `ct status dnat accept` lets all of them through",
			six(h.Src.Is6()), h.Dst, e.accept()))
	case e.Listener.Result == Present:
		v.Summary = fmt.Sprintf("no rule lets new connections from %v to %s in, though a socket listens there", h.Src, e.service())
		v.fix("allow it, if it is wanted: " + e.allow())
	default:
		v.Summary = fmt.Sprintf("no rule lets %s from %v in", e.service(), h.Src)
		v.fix("allow it, if it is wanted: " + e.allow())
	}
	e.byRule(v)
}

// allow says how to let the packet in: the command, if the rule to put it before
// is known. Those of iptables, with chains in capitals, and of firewalld are
// changed with their own tools.
func (e *known) allow() string {
	r := e.Rule.Value
	if r.Handle == 0 || r.Chain == strings.ToUpper(r.Chain) || r.Table == "firewalld" {
		return fmt.Sprintf("`%s` before the reject", e.accept())
	}
	return fmt.Sprintf("`nft insert rule %s %s %s handle %d %s`", r.Family, r.Table, r.Chain, r.Handle, e.accept())
}

func six(yes bool) string {
	if yes {
		return "6"
	}
	return ""
}

// C20
func isNoService(e *known) bool {
	return e.here() && !e.leaving() && e.begins() && e.Listener.Result == Absent
}

func explainNoService(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = e.proven()
	v.Summary = fmt.Sprintf("a new connection to %s, where nothing listens: a stopped service, or a scan; the refusal is right", e.service())
	e.byRule(v)
	if h.Dst.IsMulticast() {
		v.Summary += "; it was sent to a group, and is harmless"
		v.fix(fmt.Sprintf("drop it without a word: `ip%s daddr %v drop`", six(h.Dst.Is6()), h.Dst))
		return
	}
	v.fix("start the service, if it is missed", fmt.Sprintf("ban %v, if it asks for many ports", h.Src))
}

// helpers are the control ports whose connections announce others, and what
// reads them (nf_conntrack_*.c).
var helpers = map[conntrack.Proto]map[uint16]string{
	conntrack.ProtoTCP: {21: "ftp", 1720: "Q.931", 1723: "pptp", 5060: "sip", 6566: "sane", 6667: "irc"},
	conntrack.ProtoUDP: {69: "tftp", 5060: "sip", 1719: "RAS", 10080: "amanda"},
}

// C21: announced ports are above 1023, and pptp announces GRE.
func isMissingHelper(e *known) bool {
	c := &e.Control.Value
	if e.Control.Result != Present || !e.here() || c.Details().Helper != "" {
		return false
	}
	helper := helpers[c.Original.Proto][c.Original.DstPort]
	gre := e.proto(47) && helper == "pptp"
	high := e.Packet.Value.Have.Has(packet.HavePorts) && e.Packet.Value.DstPort >= 1024 && helper != "pptp" && helper != ""
	return e.begins() && (gre || high)
}

func explainMissingHelper(e *known, v *Verdict) {
	c := e.Control.Value
	port := c.Original.DstPort
	helper := helpers[c.Original.Proto][port]
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v was probably announced in the connection %v, which no helper reads (%s): the tracker does not expect it, "+
		"and it is new instead of related", e.Packet.Value, c.Original, helper)
	switch {
	case e.Rules.Result != Present:
		v.Confidence = detect.Possible
		v.missing("whether a rule assigns a helper", "nft list ruleset")
	case e.Rules.Value.Helper != "":
		v.Confidence = detect.Possible
		v.fact("a rule assigns a helper, but not to this connection: " + plain(e.Rules.Value.Helper))
	}
	v.missing("what the control connection said", fmt.Sprintf("tcpdump -niany -A port %d", port))
	v.fix(fmt.Sprintf("assign the helper: `ct helper \"%s\" { type \"%[1]s\" protocol %v; }`, and in a chain of priority 0: "+
		"`%[2]v dport %d ct helper set \"%[1]s\"`; the sysctl nf_conntrack_helper does not exist since Linux 6.0", helper, c.Original.Proto, port),
		"accept what it announces: `ct state related accept`")
	if e.before(6, 0) {
		v.fix("until then: `sysctl net.netfilter.nf_conntrack_helper=1`, which assigns helpers by port to every connection")
	}
}

// C08: a socket that can outlive its entry.
func isClosingEntry(e *known) bool {
	return e.Packet.Result != Present && e.socketIn(sockdiag.CloseWait) && e.Entry.Result != NotLooked
}

func explainClosingEntry(e *known, v *Verdict) {
	s := e.Socket.Value
	v.Flow = detect.SocketTuple(&s)
	v.fact(e.setting("nf_conntrack_tcp_timeout_close_wait", secs(e.Settings.Value.Timeouts.TCPCloseWait))...)
	v.Confidence = detect.Likely
	what := "has no entry any more: what it still sends is picked up as a ghost, and refused by the peer"
	if e.Entry.Result == Present {
		v.Confidence = detect.Possible
		what = fmt.Sprintf("has an entry for another %ds: an answer within that time draws a RST and leaves nothing behind, "+
			"a later one is picked up as a ghost, and refused by the peer", int64(e.Entry.Value.Timeout/time.Second))
	}
	v.missing("when the application will answer", fmt.Sprintf("ss -tnpo state close-wait dst %v", s.Remote))
	v.Summary = fmt.Sprintf("the peer has closed, the application has not (CLOSE_WAIT), and the connection %v > %v %s",
		s.Local, s.Remote, what)
	v.fix("close the socket when the peer has closed (end of file)",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request")
}
