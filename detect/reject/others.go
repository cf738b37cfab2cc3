package reject

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

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
	case e.socketIn(sockdiag.CloseWait, sockdiag.LastAck, sockdiag.Closing):
		v.Summary += fmt.Sprintf("; the socket here is %v: the peer closed long ago and this side answers late",
			e.Socket.Value.State)
		v.fix("close the socket when the peer has closed (end of file)")
		v.Confidence = detect.Likely
	case e.socketIn(sockdiag.Established, sockdiag.FinWait1):
		v.fix("on the peer: raise `net.netfilter.nf_conntrack_tcp_timeout_established`, or send keep-alives more often")
		v.Confidence = detect.Likely
	}
	v.fix("on the peer: `conntrack -L` shows whether it has the entry")
	v.missing("the peer's table", "conntrack -L -p tcp # on the peer")
}
