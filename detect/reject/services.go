package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// refusedNew is C19 and C20: a new connection. A packet that is refused on its
// way in leaves no entry behind; one of this host to itself has made its entry
// on its way out.
func refusedNew(e *Evidence) bool {
	f := &e.Entry.Value
	itself := e.Entry.Result == Present && f.Original == PacketTuple(e.Packet.Value) && f.TCP.State == conntrack.TCPSynSent
	return e.refusedHere() && e.opens() && (e.State == New || e.State == StateUnknown) && (e.Entry.Result == Absent || itself)
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
	return e.Packet.Result != Present && e.socketIn(sockdiag.CloseWait) && e.Entry.Result != NotLooked
}

func explainClosingEntry(e *Evidence, v *Verdict) {
	s := e.Socket.Value
	v.Flow = detect.SocketTuple(&s)
	set := e.setting("nf_conntrack_tcp_timeout_close_wait", secs(e.Settings.Value.Timeouts.TCPCloseWait))
	v.Facts = append(v.Facts, set...)
	v.Confidence = detect.Likely
	what := "has no entry any more: what it still sends is picked up as a ghost, and refused by the peer"
	if e.Entry.Result == Present {
		v.Confidence = detect.Possible
		what = fmt.Sprintf("has an entry for another %ds: an answer within that time draws a RST and leaves nothing behind, "+
			"a later one is picked up as a ghost, and refused by the peer", int64(e.Entry.Value.Timeout/time.Second))
		v.missing("when the application will answer", fmt.Sprintf("ss -tnpo state close-wait dst %v", s.Remote))
	}
	v.Summary = fmt.Sprintf("the peer has closed, the application has not (CLOSE_WAIT), and the connection %v > %v %s",
		s.Local, s.Remote, what)
	v.fix("close the socket when the peer has closed (end of file)",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request")
}
