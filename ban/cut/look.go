package cut

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// kind is whose a connection is.
type kind int

const (
	inbound   kind = iota // the source made it to this host
	outbound              // this host made it to the source
	forwarded             // another host's
	kinds
)

// found is what the sources have.
type found struct {
	sockets [kinds][]sockdiag.Socket // none is forwarded
	flows   [kinds][]conntrack.Flow
}

// doomed returns what is to be ended.
func (f *found) doomed(opts *Options) ([]sockdiag.Socket, []conntrack.Flow) {
	sockets, flows := f.sockets[inbound], f.flows[inbound]
	if opts.Outbound {
		sockets, flows = append(sockets, f.sockets[outbound]...), append(flows, f.flows[outbound]...)
	}
	if opts.Forwarded {
		flows = append(flows, f.flows[forwarded]...)
	}
	return sockets, flows
}

// look finds what the prefixes have, in one pass over the entries and one over
// the sockets.
func (c *Cutter) look(ctx context.Context, prefixes []netip.Prefix) (*found, error) {
	of := newSources(prefixes)
	out := &found{}
	made := make(map[ends]kind)
	if c.Conntrack != nil {
		own, err := c.own()
		if err != nil {
			return nil, err
		}
		for f, err := range c.Conntrack.All(ctx, nil) {
			if err != nil {
				return nil, fmt.Errorf("cut: %w", err)
			}
			k, ok := of.flow(&f, own)
			if !ok {
				continue
			}
			out.flows[k] = append(out.flows[k], f)
			if k != forwarded && f.Original.Proto == conntrack.ProtoTCP {
				made[endsOf(&f, k)] = k
			}
		}
	}
	if c.Sockets != nil {
		return out, c.lookSockets(ctx, of, made, out)
	}
	return out, nil
}

// ends are those of a connection of this host.
type ends struct{ local, remote netip.AddrPort }

// endsOf returns those that the socket of an entry has, translated back.
func endsOf(f *conntrack.Flow, k kind) ends {
	if k == outbound {
		t := f.Original
		return ends{netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort)}
	}
	t := f.Reply
	return ends{netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort)}
}

// lookSockets finds the connections of the sources. The source made one if this
// host listens on its port, or if its entry says so. The entry alone does not
// tell: what this host sends on a connection without an entry makes one that it
// seems to have begun.
func (c *Cutter) lookSockets(ctx context.Context, of *sources, made map[ends]kind, out *found) error {
	listens := make(map[uint16]bool)
	var all []sockdiag.Socket
	for s, err := range c.Sockets.All(ctx, sockdiag.Query{}) {
		switch {
		case err != nil:
			return fmt.Errorf("cut: %w", err)
		case s.State == sockdiag.Listen:
			listens[s.Local.Port()] = true
		case of.has(s.Remote.Addr()):
			all = append(all, s)
		}
	}
	for _, s := range all {
		k, known := made[ends{s.Local, s.Remote}]
		switch {
		case listens[s.Local.Port()]:
			k = inbound
		case !known:
			k = outbound
		}
		out.sockets[k] = append(out.sockets[k], s)
	}
	out.turn()
	return nil
}

// turn counts entries that were picked up on connections which the source made
// among those that it made.
func (f *found) turn() {
	in := make(map[ends]bool)
	for _, s := range f.sockets[inbound] {
		in[ends{s.Local, s.Remote}] = true
	}
	flows := f.flows[outbound]
	f.flows[outbound] = nil
	for _, flow := range flows {
		k := outbound
		if in[endsOf(&flow, k)] {
			k = inbound
		}
		f.flows[k] = append(f.flows[k], flow)
	}
}

// own are the addresses of this host.
func (c *Cutter) own() (map[netip.Addr]bool, error) {
	proc := c.Proc
	if proc == nil {
		proc = os.DirFS("/proc")
	}
	all, err := ban.Own(proc)
	if err != nil {
		return nil, fmt.Errorf("cut: the addresses of this host: %w", err)
	}
	own := make(map[netip.Addr]bool, len(all))
	for _, p := range all {
		own[p.Prefix.Addr()] = true
	}
	return own, nil
}

// sources is a set of prefixes.
type sources struct {
	by   map[netip.Prefix]bool
	bits []int // of IPv4 and IPv6 alike
}

func newSources(prefixes []netip.Prefix) *sources {
	s := &sources{by: make(map[netip.Prefix]bool, len(prefixes))}
	have := make(map[int]bool)
	for _, p := range prefixes {
		p = p.Masked()
		if p.IsValid() && !have[p.Bits()] {
			have[p.Bits()] = true
			s.bits = append(s.bits, p.Bits())
		}
		s.by[p] = true
	}
	return s
}

func (s *sources) has(a netip.Addr) bool {
	for _, bits := range s.bits {
		if p, err := a.Prefix(bits); err == nil && s.by[p] {
			return true
		}
	}
	return false
}

// flow tells whose an entry is, if a source has to do with it.
func (s *sources) flow(f *conntrack.Flow, own map[netip.Addr]bool) (kind, bool) {
	switch {
	case s.has(f.Original.Src):
		if own[f.Reply.Src] {
			return inbound, true
		}
		return forwarded, true
	case s.has(f.Reply.Src):
		if own[f.Original.Src] {
			return outbound, true
		}
		return forwarded, true
	}
	return 0, false
}
