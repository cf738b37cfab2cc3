package reject

import (
	"net/netip"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// known is evidence, and what is worked out of it once.
type known struct {
	*Evidence
	reason Reason
	// side is the packet's direction in Entry, elsewhere that in Elsewhere, and
	// ended that in the entry of Ended.
	side, elsewhere, ended side
}

func newKnown(e *Evidence) *known {
	t := PacketTuple(e.Packet.Value)
	return &known{
		Evidence: e, reason: ParseReason(e.Reason),
		side:      sideOf(Lookup[conntrack.Flow]{e.Entry.Value, min(e.Entry.Result, e.Packet.Result)}, t),
		elsewhere: sideOf(Lookup[conntrack.Flow]{e.Elsewhere.Value, min(e.Elsewhere.Result, e.Packet.Result)}, t),
		ended:     sideOf(Lookup[conntrack.Flow]{e.Ended.Value.Event.Flow, min(e.Ended.Result, e.Packet.Result)}, t),
	}
}

// side is the direction of a packet in an entry.
type side uint8

const (
	noSide side = iota
	original
	reply
)

// sideOf finds the direction of a packet in an entry, whichever of the
// entry's translations have been done, or undone, where the packet was seen.
func sideOf(f Lookup[conntrack.Flow], t conntrack.Tuple) side {
	if f.Result != Present {
		return noSide
	}
	o, r := f.Value.Original, f.Value.Reply
	half := o // after the destination was translated, before the source is
	half.Dst, half.DstPort = r.Src, r.SrcPort
	switch t {
	case o, half, r.Invert():
		return original
	case r, half.Invert(), o.Invert():
		return reply
	}
	return noSide
}

// own reports that another refused a packet of this host. It can be this host
// itself too, on the packet's way out.
func (e *Evidence) own() bool {
	return e.Packet.Result == Present && (e.Refusal == ResetReceived ||
		e.Refusal == ICMPReceived && e.refuser() != e.Packet.Value.Src)
}

// opens reports a TCP packet that begins a connection. Of a packet that an
// ICMP error quotes without its flags, the socket tells.
func (e *Evidence) opens() bool {
	f := e.Packet.Value.Flags
	return e.tcp() && f.Has(packet.SYN) && !f.Has(packet.ACK) ||
		e.cut() && e.own() && e.socketIn(sockdiag.SynSent)
}

// goesOn reports a TCP packet that belongs to a connection already made: all
// of these but RSTs have the ACK flag.
func (e *Evidence) goesOn() bool {
	f := e.Packet.Value.Flags
	return e.tcp() && f.Has(packet.ACK) && !f.Has(packet.SYN) && !f.Has(packet.RST) ||
		e.cut() && e.own() && e.Socket.Result == Present && !e.socketIn(sockdiag.SynSent)
}

// accepts reports a SYN|ACK, resets a RST.
func (e *Evidence) accepts() bool {
	return e.tcp() && e.Packet.Value.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN|packet.ACK
}
func (e *Evidence) resets() bool {
	return e.tcp() && e.Packet.Value.Flags&(packet.RST|packet.SYN|packet.FIN) == packet.RST
}

// tcp reports a TCP packet whose flags are known, cut one whose flags are not.
func (e *Evidence) tcp() bool { return e.proto(packet.ProtoTCP) && e.flags() }
func (e *Evidence) cut() bool {
	return e.proto(packet.ProtoTCP) && !e.flags() && !e.Packet.Value.Fragment
}

func (e *Evidence) proto(p uint8) bool {
	return e.Packet.Result == Present && e.Packet.Value.Proto == p && e.Packet.Value.Src.IsValid()
}

func (e *Evidence) flags() bool { return e.Packet.Value.Have.Has(packet.HaveFlags) }

// datagram reports a packet of a protocol with ports, but without connections.
func (e *Evidence) datagram() bool {
	return (e.proto(packet.ProtoUDP) || e.proto(packet.ProtoUDPLite)) && e.Packet.Value.Have.Has(packet.HavePorts)
}

// icmp reports an ICMP or ICMPv6 message whose type is known.
func (e *Evidence) icmp() bool {
	return (e.proto(packet.ProtoICMP) || e.proto(packet.ProtoICMPv6)) && e.Packet.Value.Have.Has(packet.HaveICMP)
}

// icmpReply reports the answer to an ICMP query: of echo, timestamp,
// information or address mask (icmp_pkt_to_tuple's invmap), or ICMPv6's echo.
func (e *Evidence) icmpReply() bool {
	return e.icmp() && (e.proto(packet.ProtoICMP) && slices.Contains([]uint8{0, 14, 16, 18}, e.Packet.Value.ICMPType) ||
		e.proto(packet.ProtoICMPv6) && e.Packet.Value.ICMPType == 129)
}

// replies reports what may be the answer to a question: an ICMP reply, or a datagram
// of a service to a port that serves nothing.
func (e *Evidence) replies() bool {
	h := e.Packet.Value
	return e.icmpReply() || e.datagram() && h.SrcPort < 1024 && h.DstPort >= 1024 && e.Listener.Result != Present && !h.Dst.IsMulticast()
}

// refusedHere reports a packet that this host's firewall refused, on its way
// in, through or out. What the sockets tell of it was looked for only if it was
// on its way in.
func (e *Evidence) refusedHere() bool {
	switch e.Refusal {
	case Logged, ICMPSent, ResetSent, Traced:
		return e.Packet.Result == Present
	}
	return false
}

// here reports a packet that this host's firewall refused, also if all that
// tells is an ICMP error that it sent to itself.
func (e *known) here() bool {
	itself := e.Packet.Result == Present && e.Refusal == ICMPReceived && !e.own()
	return e.refusedHere() || itself
}

// leaving reports a packet that this host's rules refused on its way out.
func (e *known) leaving() bool {
	if e.Refusal == ICMPReceived {
		return e.here()
	}
	return e.here() && e.Hook.Result == Present && (e.Hook.Value == nflog.Output || e.Hook.Value == nflog.Postrouting)
}

// forwarded reports a packet that this host only passes on: no socket here has
// to do with it.
func (e *known) forwarded() bool {
	if e.Hook.Result == Present {
		switch e.Hook.Value {
		case nflog.Forward:
			return e.here()
		case nflog.Input, nflog.Output, nflog.Postrouting:
			return false
		}
	}
	return e.here() && !e.leaving() && e.Local.Result == Present && !e.Local.Value
}

// mayBe reports that the packet's state is one of those, or not known.
func (e *known) mayBe(states ...State) bool {
	return e.State == StateUnknown || slices.Contains(states, e.State)
}

// stranger reports a packet that is of no connection the tracker knows: NEW,
// where it picks connections up in the middle (tcp_loose); INVALID without a
// reason, where it does not; and "invalid new", as it calls what it never picks
// up, such as a FIN. It says that since Linux 6.7, and was silent before.
func (e *known) stranger() bool {
	return e.mayBe(New, Invalid) && (e.reason.Kind == ReasonNone || e.reason.Kind == ReasonNew)
}

// odd reports a packet that the tracker calls INVALID.
func (e *known) odd() bool {
	return e.State == Invalid || e.State == StateUnknown && e.reason.Kind != ReasonNone && !e.reason.Passes()
}

// then is the state of the entry when the packet came: a reject with a RST
// closes the entry, so that the kernel's word goes before the table's.
func (e *known) then() conntrack.TCPState {
	if e.reason.Kind == ReasonState && e.reason.Exact {
		return e.reason.State
	}
	if f := &e.Entry.Value; e.Entry.Result == Present && f.Has(conntrack.FieldTCP) {
		return f.TCP.State
	}
	return conntrack.TCPNone
}

// misfits are the states of an entry in which a segment is INVALID, by
// direction and index (tcp_conntracks in nf_conntrack_proto_tcp.c: sIV).
var misfits = [2][6][]conntrack.TCPState{
	{
		1: {conntrack.TCPSynSent, conntrack.TCPEstablished, conntrack.TCPFinWait, conntrack.TCPCloseWait,
			conntrack.TCPLastAck, conntrack.TCPTimeWait, conntrack.TCPClose},
		2: {conntrack.TCPSynSent, conntrack.TCPSynSent2},
		3: {conntrack.TCPSynSent, conntrack.TCPSynSent2},
	}, {
		0: {conntrack.TCPSynRecv, conntrack.TCPEstablished, conntrack.TCPFinWait, conntrack.TCPCloseWait,
			conntrack.TCPLastAck, conntrack.TCPClose},
		2: {conntrack.TCPSynSent, conntrack.TCPSynSent2},
	},
}

// misfit reports a segment that is INVALID in the state of its entry: the
// kernel says so, or its table does.
func (e *known) misfit() bool {
	if e.reason.Kind != ReasonNone {
		return e.reason.Kind == ReasonState
	}
	return e.tcp() && e.side != noSide && slices.Contains(misfits[e.side-original][segmentIndex(e.Packet.Value.Flags)], e.then())
}

// segmentIndex is what the tracker takes a segment for (get_conntrack_index).
func segmentIndex(f packet.TCPFlags) int {
	switch {
	case f.Has(packet.RST):
		return 4
	case f.Has(packet.SYN | packet.ACK):
		return 1
	case f.Has(packet.SYN):
		return 0
	case f.Has(packet.FIN):
		return 2
	case f.Has(packet.ACK):
		return 3
	}
	return 5
}

// socketIn reports that the socket was found in one of the states.
func (e *Evidence) socketIn(states ...sockdiag.State) bool {
	return e.Socket.Result == Present && slices.Contains(states, e.Socket.Value.State)
}

// alive reports that a process of this host has the connection and can still
// receive.
func (e *known) alive() bool {
	if e.Owner.Result == Present && e.Socket.Result == NotLooked {
		return true
	}
	return e.socketIn(sockdiag.Established, sockdiag.CloseWait) ||
		e.socketIn(sockdiag.FinWait1, sockdiag.FinWait2) && e.Socket.Value.HasOwner()
}

// closed reports that no process has the connection: there is no socket, or one
// that the kernel keeps to end it.
func (e *known) closed() bool {
	ending := e.socketIn(sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.Closing, sockdiag.LastAck, sockdiag.TimeWait)
	return e.Socket.Result == Absent || ending && !e.Socket.Value.HasOwner()
}

// refuser is who sent the ICMP error.
func (e *Evidence) refuser() netip.Addr { return e.ICMP.Value.Src }

// setting returns a setting as name = value.
func (e *Evidence) setting(name, value string) []string {
	if e.Settings.Result != Present || !e.Settings.Value.Has(name) {
		return nil
	}
	return []string{detect.Setting{Name: "net.netfilter." + name, Value: value}.String()}
}

// proven is Certain if the rule that refused is known, else Likely.
func (e *known) proven() detect.Confidence {
	if e.Rule.Result == Present {
		return detect.Certain
	}
	return detect.Likely
}
