package reject

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// C25: the ICMP error does not come from where the packet went.
func onPath(e *known) bool {
	return e.own() && e.ICMP.Result == Present && e.refuser() != e.Packet.Value.Dst
}

func explainOnPath(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Possible
	v.Summary = fmt.Sprintf("%v refused a packet to %v (%s): a device on the path, not the peer; nothing on this "+
		"host explains it", e.refuser(), h.Dst, icmpName(e))
	v.fix(fmt.Sprintf("ask whoever runs %v which rule refuses %v", e.refuser(), h))
	v.fix(e.codeAdvice()...)
	trace := "traceroute -n"
	if e.proto(packet.ProtoTCP) && h.Have.Has(packet.HavePorts) {
		trace += fmt.Sprintf(" -T -p %d", h.DstPort)
	}
	v.missing("whether "+e.refuser().String()+" is an address of the peer itself", fmt.Sprintf("%s %v", trace, h.Dst))
}

// codeAdvice is what some codes say beside no (RFC 4443 section 3.1, RFC 1812
// section 5.3.9; Linux's prohibit routes answer 3/13 and 1/1).
func (e *known) codeAdvice() []string {
	h := e.ICMP.Value
	switch {
	case e.ICMP.Result != Present:
	case h.Proto == packet.ProtoICMPv6 && h.ICMPCode == 5:
		return []string{fmt.Sprintf("the source address %v is what it dislikes: it is filtered where it enters (BCP 38), or the route back "+
			"differs; look at `ip -6 route get %v`", e.Packet.Value.Src, e.Packet.Value.Dst)}
	case h.Proto == packet.ProtoICMPv6 && h.ICMPCode == 6:
		return []string{fmt.Sprintf("there, a route rejects %v: look for it with `ip -6 route show type prohibit` and `type unreachable`",
			e.Packet.Value.Dst)}
	case h.ICMPCode == 13 && h.Proto == packet.ProtoICMP:
		return []string{"there, it is a router's access list, a reject with admin-prohibited, or a prohibit route: `ip route show type prohibit`"}
	}
	return nil
}

// hidden notes that with a translated destination, errors of any device seem
// to come from the peer: the kernel rewrites their source
// (nf_nat_icmp_reply_translation).
func (e *known) hidden(v *Verdict) {
	if _, nat := e.Entry.Value.DestinationNAT(); nat && e.Entry.Result == Present {
		v.missing("whether a device on the path refused: this host translates the destination, which hides who sent the error",
			"tcpdump -ni any icmp or icmp6")
	}
}

// unreachable reports the error that says port unreachable.
func (e *known) unreachable() bool {
	return e.ICMP.Result == Present && unreachablePort(e.ICMP.Value)
}

// answersPeer reports that the refused packet answers one of the peer.
func (e *known) answersPeer() bool {
	return e.side == reply || e.side == noSide && e.ended == reply
}

// C29: of TCP a port without a listener is answered with a RST, never with this
// error.
func isPeerNoService(e *known) bool {
	return e.own() && e.datagram() && e.unreachable()
}

func explainPeerNoService(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Likely
	if e.answersPeer() {
		v.Summary = fmt.Sprintf("%v says that nothing waits at port %d for this answer: who asked has given up, and closed", h.Dst, h.DstPort)
		v.fix("answer sooner, or have the asking side wait for longer")
	} else {
		v.Summary = fmt.Sprintf("%v says that nothing listens at its %s", h.Dst, e.service())
		v.fix(fmt.Sprintf("start the service on %v, or ask for another port", h.Dst))
	}
	v.Summary += "; its firewall can say the same of any port"
	v.missing("whether something listens there", fmt.Sprintf("ss -ulnp sport = :%d # on the peer", h.DstPort))
	e.hidden(v)
}

// C26: what begins a connection, of any protocol.
func isByPeer(e *known) bool {
	other := e.Packet.Result == Present && !e.proto(packet.ProtoTCP) && e.Packet.Value.Have.Has(packet.HaveProto)
	return e.own() && (e.opens() || other)
}

func explainByPeer(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = detect.Possible
	e.hidden(v)
	if !e.proto(packet.ProtoTCP) {
		v.Summary = fmt.Sprintf("the peer's own firewall refused %v (%s): no rule there allows %s", h, icmpName(e), e.service())
		v.fix(fmt.Sprintf("on the peer: allow it: `%s`", e.accept()))
		v.fix(e.codeAdvice()...)
		v.missing("the peer's rules", "nft list ruleset # on the peer")
		return
	}
	v.Summary = fmt.Sprintf("the peer's own firewall refused the new connection (%s): either no rule there allows "+
		"%v port %d, or a ghost entry there holds source port %d", icmpName(e), h.Dst, h.DstPort, h.SrcPort)
	if e.unreachable() {
		v.fact("TCP itself answers with a RST where nothing listens: this error is a firewall's")
	}
	if e.Refusal == ResetReceived {
		v.Summary += "; or a device on the path did in its name"
	}
	v.fix("on the peer: find the entry of this connection (`conntrack -L`) and delete it if it is ESTABLISHED [UNREPLIED]",
		"on the peer: allow the port", "here: connect from another source port")
	v.fix(e.codeAdvice()...)
	v.missing("the peer's table and rules; another source port that connects proves the ghost",
		fmt.Sprintf("nc -v -z -p %d %v %d", otherPort(h.SrcPort), h.Dst, h.DstPort))
}

func otherPort(p uint16) uint16 {
	if p == 65535 {
		return p - 1
	}
	return p + 1
}

// C28: the peer's C01, C07 or C36, seen from the other end.
func isPeerForgot(e *known) bool {
	return e.own() && (e.goesOn() || (e.datagram() || e.icmpReply()) && e.answersPeer())
}

func explainPeerForgot(e *known, v *Verdict) {
	v.Confidence = detect.Possible
	if !e.proto(packet.ProtoTCP) {
		v.Summary = fmt.Sprintf("the peer's firewall refused an answer (%s): its tracker has forgotten the question, which was too long ago",
			icmpName(e))
		v.fix("answer sooner", "on the peer: raise `net.netfilter.nf_conntrack_udp_timeout` above the longest wait for an answer")
		v.missing("the peer's table", "conntrack -E # on the peer")
		return
	}
	v.Summary = fmt.Sprintf("the peer's firewall refused a packet of a connection that is made (%s): its tracker has "+
		"forgotten it", icmpName(e))
	switch {
	case e.socketIn(sockdiag.CloseWait, sockdiag.LastAck, sockdiag.Closing):
		v.Summary += fmt.Sprintf("; the socket here is %v: the peer closed long ago and this side answers late",
			e.Socket.Value.State)
		v.fix("close the socket when the peer has closed (end of file)")
		v.Confidence = detect.Likely
	case e.socketIn(sockdiag.Established, sockdiag.FinWait1):
		v.fix("on the peer: raise `net.netfilter.nf_conntrack_tcp_timeout_established`, or send keep-alives more often")
		v.Confidence = detect.Likely
	}
	e.hidden(v)
	v.fix("on the peer: `conntrack -L` shows whether it has the entry")
	v.missing("the peer's table", "conntrack -L -p tcp # on the peer")
}
