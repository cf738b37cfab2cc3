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
		e := Ended{Event: s.event, At: now}
		w.ended.put(s.event.Flow.Original, e)
		w.ended.put(s.event.Flow.Reply, e)
		w.flows.addEnded(e)
		return
	}
	p, err := packet.Decode(s.packet.Payload)
	switch {
	case err != nil:
		// Not an IP packet: nothing can be said of it.
	case s.reason:
		w.reasons.put(keyOf(p.Header), s.packet.Prefix)
		w.flows.addReason(p.Header, s.packet.Prefix)
	case p.ICMPError():
		w.takeICMP(ctx, s.packet, p, now)
	default:
		w.takeRefused(ctx, s.packet, p.Header, now)
	}
}

// takeRefused begins a flow with its first refused packet, and looks at its
// connection at once, before the tables change. Later packets are looked at
// again only once Config.Repeat is over, or when their state differs.
func (w *watch) takeRefused(ctx context.Context, logged nflog.Packet, h packet.Header, now time.Time) {
	e := Evidence{Packet: Found(h), Refusal: Logged, State: state(logged)}
	if logged.HasUID {
		e.Owner = Found(logged.UID)
	}
	e.Reason, _ = w.reasons.get(keyOf(h))
	if w.flows.count(&e, now, w.cfg.Repeat) {
		return
	}
	w.gather(ctx, &e)
	w.flows.begin(e, now, w.cfg.Wait)
}

// takeICMP works in an ICMP error: one sent confirms a refusal of this host,
// one received is a refusal of another.
func (w *watch) takeICMP(ctx context.Context, logged nflog.Packet, p packet.Packet, now time.Time) {
	if !p.Prohibited() && !unreachablePort(p.Header) || !p.HasQuoted {
		return
	}
	e := Evidence{Packet: Found(p.Quoted), ICMP: Found(p.Header), Refusal: ICMPReceived}
	if logged.Hook == nflog.Output || logged.Hook == nflog.Postrouting {
		e.Refusal = ICMPSent
		if w.flows.confirm(p.Quoted, p.Header) {
			return
		}
	}
	if w.flows.count(&e, now, w.cfg.Repeat) {
		return
	}
	w.gather(ctx, &e)
	w.flows.begin(e, now, w.cfg.Wait)
}

// unreachablePort is what REJECT sends unless told otherwise: ICMP 3/3 and
// ICMPv6 1/4.
func unreachablePort(h packet.Header) bool {
	return h.Proto == packet.ProtoICMP && h.ICMPType == 3 && h.ICMPCode == 3 ||
		h.Proto == packet.ProtoICMPv6 && h.ICMPType == 1 && h.ICMPCode == 4
}

// state is the packet's conntrack state: from the entry the kernel attached, or
// from the rule's prefix.
func state(p nflog.Packet) State {
	if !p.HasCTInfo {
		return ParsePrefix(p.Prefix)
	}
	switch p.CTInfo {
	case nflog.Established, nflog.EstablishedReply:
		return Established
	case nflog.Related, nflog.RelatedReply:
		return Related
	case nflog.Untracked:
		return Untracked
	}
	return New
}

// gather looks up what this host knows of the packet's connection. What cannot
// be looked up stays NotLooked, which the verdict shows as missing.
func (w *watch) gather(ctx context.Context, e *Evidence) {
	tuple := PacketTuple(e.Packet.Value)
	flow, err := w.ct.Get(ctx, tuple, 0)
	switch {
	case err == nil:
		e.Entry = Found(flow)
	case errors.Is(err, fs.ErrNotExist):
		e.Entry = NotFound[conntrack.Flow]()
	}
	if ended, ok := w.ended.get(tuple); ok {
		e.Ended = Found(ended)
	}
	if tuple.Proto == conntrack.ProtoTCP {
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
	if !e.own() {
		sent = sent.Invert()
		e.Listener = w.socket(ctx, sockdiag.Query{
			States: sockdiag.States(sockdiag.Listen), LocalPort: sent.SrcPort,
		}, func(s *sockdiag.Socket) bool { return listensOn(s, sent) })
		if e.opens() && e.Entry.Result == Absent {
			return // a scan makes thousands of these, and looking for a connection walks all of them
		}
	}
	e.Socket = w.socket(ctx, sockdiag.Query{
		LocalPort: sent.SrcPort, RemotePort: sent.DstPort, Info: true,
	}, func(s *sockdiag.Socket) bool { return detect.SocketTuple(s) == sent })
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
