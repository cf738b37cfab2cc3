package reject

import (
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// reason keeps the kernel's reason for an INVALID packet.
func (w *watch) reason(logged *nflog.Packet, now time.Time) error {
	w.in.reason(now)
	p, err := packet.Decode(logged.Payload)
	if err != nil {
		return errNotIP
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reasons.put(reasonKeyOf(&p.Header), logged.Prefix)
	if p.Flags.Has(packet.SYN|packet.ACK) && ParseReason(logged.Prefix).Kind == ReasonNew {
		w.answers.put(keyOf(&p.Header), logged.Prefix)
	}
	w.flows.addReason(&p.Header, logged.Prefix, w.answer(PacketTuple(p.Header)))
	if w.flows.ready.Len() > 0 {
		wake(w.toTell)
	}
	return nil
}

// answer is the reason of the SYN|ACK that answered the SYN of a tuple; empty is
// none. mu is held.
func (w *watch) answer(t conntrack.Tuple) string {
	opposite := t.Invert()
	reason, _ := w.answers.get(keyOfTuple(&opposite))
	return reason
}

// packet works a logged packet into the state: one that is refused, or one that
// tells of a refusal.
func (w *watch) packet(logged *nflog.Packet, now time.Time) error {
	p, err := packet.Decode(logged.Payload)
	if err != nil {
		return errNotIP
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.states.parse(logged.Prefix)
	switch {
	case w.takeInstalled(logged, &p, now):
	case p.ICMPError():
		w.icmpError(logged, &p, now)
	case p.Have.Has(packet.HaveICMP) && state == StateUnknown:
		// Neighbour discovery and the like, logged along with the errors.
	case p.Have.Has(packet.HaveFlags) && p.Flags.Has(packet.RST) && state == StateUnknown:
		w.reset(logged, &p.Header, now)
	default:
		w.logged(logged, &p.Header, state, now)
	}
	if w.flows.ready.Len() > 0 {
		wake(w.toTell)
	}
	return nil
}

// logged counts a packet that was logged before it is refused.
func (w *watch) logged(logged *nflog.Packet, h *packet.Header, state State, now time.Time) {
	s := sighting{
		packet: *h, refusal: Logged, state: state, hook: logged.Hook, hasHook: true,
		here: !leaves(logged.Hook), hasUID: logged.HasUID, uid: logged.UID,
	}
	if state == Invalid {
		s.reason, _ = w.reasons.get(reasonKeyOf(h))
	}
	w.refused(&s, now)
}

// leaves reports the hooks of packets that are not to this host.
func leaves(h nflog.Hook) bool {
	return h == nflog.Forward || sent(h)
}

// sent reports the hooks of packets that this host sends.
func sent(h nflog.Hook) bool { return h == nflog.Output || h == nflog.Postrouting }

// icmpError works in an ICMP error: one sent confirms a refusal of this host,
// one received is a refusal of another.
func (w *watch) icmpError(logged *nflog.Packet, p *packet.Packet, now time.Time) {
	if !p.Prohibited() && !unreachablePort(p.Header) || !p.HasQuoted {
		return
	}
	icmp := p.Header
	s := sighting{packet: p.Quoted, refusal: ICMPReceived, icmp: &icmp, here: logged.Hook != nflog.Forward}
	if sent(logged.Hook) {
		s.refusal = ICMPSent
		s.here = p.Src == p.Quoted.Dst
		s.unlogged = w.in.logsBefore(logged, now)
		w.tally.errors++
	}
	w.tells(&s, now)
}

// tells notes a sighting at the flow that is known, or begins one.
func (w *watch) tells(s *sighting, now time.Time) {
	if !w.flows.confirm(s) {
		w.refused(s, now)
	}
}

// unreachablePort is what REJECT sends unless told otherwise: ICMP 3/3 and
// ICMPv6 1/4.
func unreachablePort(h packet.Header) bool {
	return h.Proto == packet.ProtoICMP && h.ICMPType == 3 && h.ICMPCode == 3 ||
		h.Proto == packet.ProtoICMPv6 && h.ICMPType == 1 && h.ICMPCode == 4
}

// reset works in a RST that was logged without a state: the answer to a packet
// of the opposite direction. One that this host sends for a socket tells of no
// refusal.
func (w *watch) reset(logged *nflog.Packet, h *packet.Header, now time.Time) {
	s := sighting{packet: answeredBy(h), refusal: ResetReceived, here: logged.Hook != nflog.Forward}
	if sent(logged.Hook) {
		if logged.HasUID {
			return
		}
		s.refusal, s.doubtful, s.answered = ResetSent, true, true
		s.unlogged = w.in.logsBefore(logged, now)
	}
	w.tells(&s, now)
}

// answeredBy is what is known of the packet that a RST answers. One without an
// ACK gets a RST with, whose SEQ is 0; one with an ACK gets a RST with that
// number (RFC 9293 3.10.7.1, and nf_reject_ip_tcphdr_put).
func answeredBy(rst *packet.Header) packet.Header {
	h := packet.Header{
		Src: rst.Dst, Dst: rst.Src, SrcPort: rst.DstPort, DstPort: rst.SrcPort, Proto: rst.Proto,
		DataLen: -1, Have: packet.HaveProto | packet.HavePorts | packet.HaveFlags,
	}
	if rst.Flags.Has(packet.ACK) {
		h.Flags, h.Seq, h.Have = packet.SYN, rst.Ack-1, h.Have|packet.HaveSeq
		return h
	}
	h.Flags, h.Ack = packet.ACK, rst.Seq
	return h
}

// prefixes are the states that log prefixes name. A rule set has few.
type prefixes map[string]State

func (ps prefixes) parse(prefix string) State {
	s, ok := ps[prefix]
	if !ok {
		s = ParsePrefix(prefix)
		if len(ps) < 1024 {
			ps[prefix] = s
		}
	}
	return s
}
