package cut

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
)

// Preview is what a ban of some sources would reach: connections of theirs that
// would stop, and those that would go on.
type Preview struct {
	// Sockets and Flows are the connections that the sources made to this host,
	// and Bytes what they carried so far, as far as the entries count
	// (nf_conntrack_acct).
	Sockets, Flows int
	Bytes          uint64
	// Services are the ports of this host that they use, the busiest first.
	Services []Service
	// OutboundSockets and OutboundFlows are what this host made to them, which
	// goes on.
	OutboundSockets, OutboundFlows int
	// Forwarded are connections that pass through this host, from or to them.
	Forwarded int
}

// Service is a port of this host.
type Service struct {
	Proto conntrack.Proto
	Port  uint16
	Flows int
}

// Preview says what a ban of the prefixes would reach.
func (c *Cutter) Preview(ctx context.Context, prefixes ...netip.Prefix) (Preview, error) {
	found, err := c.look(ctx, prefixes)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{
		Sockets: len(found.sockets[inbound]), Flows: len(found.flows[inbound]),
		OutboundSockets: len(found.sockets[outbound]), OutboundFlows: len(found.flows[outbound]),
		Forwarded: len(found.flows[forwarded]),
	}
	services := make(map[Service]int)
	for i := range found.flows[inbound] {
		f := &found.flows[inbound][i]
		p.Bytes += f.OriginalCounter.Bytes + f.ReplyCounter.Bytes
		services[Service{Proto: f.Reply.Proto, Port: f.Reply.SrcPort}]++
	}
	if c.Conntrack == nil {
		for _, s := range found.sockets[inbound] {
			services[Service{Proto: conntrack.ProtoTCP, Port: s.Local.Port()}]++
		}
	}
	for s := range maps.Keys(services) {
		s.Flows = services[Service{Proto: s.Proto, Port: s.Port}]
		p.Services = append(p.Services, s)
	}
	slices.SortFunc(p.Services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	return p, nil
}

// String is the preview in a line.
func (p Preview) String() string {
	var services []string
	for _, s := range p.Services {
		services = append(services, fmt.Sprintf("%v/%d (%d)", s.Proto, s.Port, s.Flows))
	}
	return fmt.Sprintf("%d sockets, %d flows, %d bytes, services %s; would go on: %d sockets and %d flows of this host's own, %d flows forwarded",
		p.Sockets, p.Flows, p.Bytes, cmp.Or(strings.Join(services, " "), "none"), p.OutboundSockets, p.OutboundFlows, p.Forwarded)
}
