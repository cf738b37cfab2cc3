package reject

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// reasonKey tells the packet that a reason is about.
type reasonKey struct {
	tuple conntrack.Tuple
	seq   uint32
	flags packet.TCPFlags
}

func keyOf(h packet.Header) reasonKey {
	return reasonKey{PacketTuple(h), h.Seq, h.Flags}
}

// take works a signal into the state.
func (w *watch) take(ctx context.Context, s signal) {
	now := time.Now()
	if s.event.Type != 0 {
		e := &Ended{Event: s.event, At: now}
		for _, t := range endedTuples(e) {
			w.ended.put(t, e)
		}
		w.flows.addEnded(*e)
		return
	}
	if s.trace != (traced{}) {
		w.takeTrace(ctx, s.trace, now)
		return
	}
	p, err := packet.Decode(s.packet.Payload)
	switch {
	case err != nil:
		// Not an IP packet: nothing can be said of it.
	case !s.reason && w.takeInstalled(ctx, s.packet, p, now):
	case s.reason:
		w.in.note(reasonsName, w.in.reason(now))
		w.reasons.put(keyOf(p.Header), s.packet.Prefix)
		w.flows.addReason(p.Header, s.packet.Prefix)
	case p.ICMPError():
		w.takeICMP(ctx, s.packet, p, now)
	case p.Have.Has(packet.HaveICMP) && ParsePrefix(s.packet.Prefix) == StateUnknown:
		// Neighbour discovery and the like, logged along with the errors.
	default:
		w.takeRefused(ctx, s.packet, p.Header, now)
	}
}

// takeRefused begins a flow with its first refused packet, and looks at its
// connection at once, before the tables change. Later packets are looked at
// again only once Config.Repeat is over, or when their state differs.
func (w *watch) takeRefused(ctx context.Context, logged nflog.Packet, h packet.Header, now time.Time) {
	e := Evidence{Packet: Found(h), Refusal: Logged, State: ParsePrefix(logged.Prefix)}
	if logged.HasUID {
		e.Owner = Found(logged.UID)
	}
	w.takeEvidence(ctx, e, !leaves(logged.Hook), now)
}

func (w *watch) takeEvidence(ctx context.Context, e Evidence, here bool, now time.Time) {
	key := keyOf(e.Packet.Value)
	e.Reason, _ = w.reasons.get(key)
	if e.State == Invalid && e.Reason == "" {
		w.in.note(reasonsName, w.in.resume(now))
	}
	if rule, ok := w.rules.get(key); ok {
		e.Rule = Found(rule)
	}
	if w.flows.count(&e, now, w.cfg.Repeat) {
		return
	}
	w.gather(ctx, &e, here)
	w.flows.begin(e, now, time.Now().Add(w.cfg.Wait)) // to look took its time
}

// leaves reports the hooks of packets that are not to this host.
func leaves(h nflog.Hook) bool {
	return h == nflog.Forward || h == nflog.Output || h == nflog.Postrouting
}

// takeICMP works in an ICMP error: one sent confirms a refusal of this host,
// one received is a refusal of another.
func (w *watch) takeICMP(ctx context.Context, logged nflog.Packet, p packet.Packet, now time.Time) {
	if !p.Prohibited() && !unreachablePort(p.Header) || !p.HasQuoted {
		return
	}
	e := Evidence{Packet: Found(p.Quoted), ICMP: Found(p.Header), Refusal: ICMPReceived}
	here := logged.Hook != nflog.Forward // the packet was this host's
	if logged.Hook == nflog.Output || logged.Hook == nflog.Postrouting {
		e.Refusal = ICMPSent
		here = p.Src == p.Quoted.Dst
	}
	if w.flows.confirm(&e) || w.flows.count(&e, now, w.cfg.Repeat) {
		return
	}
	w.gather(ctx, &e, here)
	w.flows.begin(e, now, time.Now().Add(w.cfg.Wait)) // to look took its time
}

// unreachablePort is what REJECT sends unless told otherwise: ICMP 3/3 and
// ICMPv6 1/4.
func unreachablePort(h packet.Header) bool {
	return h.Proto == packet.ProtoICMP && h.ICMPType == 3 && h.ICMPCode == 3 ||
		h.Proto == packet.ProtoICMPv6 && h.ICMPType == 1 && h.ICMPCode == 4
}

// gather looks up what this host knows of the packet's connection, its sockets
// only if they are here. What cannot be looked up stays NotLooked, which the
// verdict shows as missing.
func (w *watch) gather(ctx context.Context, e *Evidence, here bool) {
	tuple := PacketTuple(e.Packet.Value)
	flow, err := w.ct.Get(ctx, tuple, 0)
	switch {
	case err == nil:
		e.Entry = Found(flow)
	case errors.Is(err, fs.ErrNotExist):
		e.Entry = NotFound[conntrack.Flow]()
	}
	if ended, ok := w.ended.get(tuple); ok {
		e.Ended = Found(*ended)
	}
	if here && tuple.Proto == conntrack.ProtoTCP {
		w.gatherSockets(ctx, e)
	}
	if w.cfg.Proc != nil {
		if s, err := conntrack.ReadSettings(w.cfg.Proc); err == nil {
			e.Settings = Found(s)
		}
	}
}

func (w *watch) gatherSockets(ctx context.Context, e *Evidence) {
	sent := PacketTuple(e.Packet.Value)
	if e.refusedHere() {
		sent = sent.Invert()
		if e.opens() {
			e.Listener = w.listener(ctx, sent)
			if e.Entry.Result == Absent {
				return // a scan makes thousands of these, and looking for a connection walks all of them
			}
		}
	}
	e.Socket = w.socket(ctx, sockdiag.Query{
		LocalPort: sent.SrcPort, RemotePort: sent.DstPort, Info: true,
	}, func(s *sockdiag.Socket) bool { return detect.SocketTuple(s) == sent })
}

// listener looks for the socket that would take a connection and send packets
// of the tuple.
func (w *watch) listener(ctx context.Context, sent conntrack.Tuple) Lookup[sockdiag.Socket] {
	q := sockdiag.Query{States: sockdiag.States(sockdiag.Listen), LocalPort: sent.SrcPort}
	return w.socket(ctx, q, func(s *sockdiag.Socket) bool { return listensOn(s, sent) })
}

// listensOn reports whether the listener would take a connection to tuple's
// source.
func listensOn(s *sockdiag.Socket, tuple conntrack.Tuple) bool {
	a := s.Local.Addr()
	if a.IsUnspecified() {
		return tuple.Src.Is4() == a.Is4() || tuple.Src.Is4() && !s.V6Only
	}
	return a == tuple.Src
}

func (w *watch) socket(ctx context.Context, q sockdiag.Query, match func(*sockdiag.Socket) bool) Lookup[sockdiag.Socket] {
	for s, err := range w.diag.All(ctx, q) {
		if err != nil {
			return Lookup[sockdiag.Socket]{}
		}
		if match(&s) {
			return Found(s)
		}
	}
	return NotFound[sockdiag.Socket]()
}
