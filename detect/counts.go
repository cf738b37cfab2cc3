package detect

import (
	"cmp"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// SocketCounts is how many TCP sockets are in each state, by the state's number;
// at 0 are those of states that have no name here.
type SocketCounts [sockdiag.BoundInactive + 1]uint64

func (c *SocketCounts) add(s sockdiag.State) {
	if int(s) >= len(c) {
		s = 0
	}
	c[s]++
}

// Total is how many sockets there are.
func (c *SocketCounts) Total() uint64 {
	n := uint64(0)
	for _, v := range c {
		n += v
	}
	return n
}

// Connections is how many of them are connections, in any state.
func (c *SocketCounts) Connections() uint64 {
	return c.Total() - c[sockdiag.Listen] - c[sockdiag.Close]
}

// FlowCounts is how many TCP flows are in each state of the tracker, by the
// state's number.
type FlowCounts [conntrack.TCPSynSent2 + 1]uint64

// Total is how many flows there are.
func (c *FlowCounts) Total() uint64 {
	n := uint64(0)
	for _, v := range c {
		n += v
	}
	return n
}

// PortCounts are the TCP sockets of one local port.
type PortCounts struct {
	Port uint16
	SocketCounts
}

// Counts is a census: how many sockets and flows are in each state. The zero
// Counts is empty. It keeps no rows, but 112 bytes for each local port, which
// are 65536 at most.
//
// It can be given to Find and Scan with the detectors, to count in the same
// pass, and finds nothing.
type Counts struct {
	// Sockets are the TCP sockets.
	Sockets SocketCounts
	// Flows are the flows of TCP, and Others those of the other protocols, by
	// their numbers (IPPROTO_*).
	Flows  FlowCounts
	Others [256]uint64

	ports map[uint16]*SocketCounts
}

// Name returns "Counts".
func (c *Counts) Name() string { return "Counts" }

// Look begins anew at nothing.
func (c *Counts) Look(*Host) Look {
	*c = Counts{}
	return Look{Socket: c.AddSocket, Flow: c.AddFlow}
}

// AddSocket counts a socket. Those of UDP and the other protocols without
// connections are left out.
func (c *Counts) AddSocket(s *sockdiag.Socket) {
	if !isTCP(s) {
		return
	}
	c.Sockets.add(s.State)
	p := c.ports[s.Local.Port()]
	if p == nil {
		if c.ports == nil {
			c.ports = make(map[uint16]*SocketCounts)
		}
		p = new(SocketCounts)
		c.ports[s.Local.Port()] = p
	}
	p.add(s.State)
}

// AddFlow counts a flow.
func (c *Counts) AddFlow(f *conntrack.Flow) {
	switch {
	case f.Original.Proto != conntrack.ProtoTCP:
		c.Others[f.Original.Proto]++
	case shows(f, conntrack.FieldTCP) && int(f.TCP.State) < len(c.Flows):
		c.Flows[f.TCP.State]++
	default:
		c.Flows[conntrack.TCPNone]++
	}
}

// Listeners are the ports that something listens on, those with the most sockets
// first.
func (c *Counts) Listeners() []PortCounts {
	var all []PortCounts
	for port, counts := range c.ports {
		if counts[sockdiag.Listen] > 0 {
			all = append(all, PortCounts{port, *counts})
		}
	}
	slices.SortFunc(all, func(a, b PortCounts) int {
		return cmp.Or(cmp.Compare(b.Total(), a.Total()), cmp.Compare(a.Port, b.Port))
	})
	return all
}

// busiest is the listening port with the most sockets in a state, if there is
// one.
func (c *Counts) busiest(s sockdiag.State) (port uint16, n uint64) {
	for p, counts := range c.ports {
		if counts[sockdiag.Listen] > 0 && (counts[s] > n || counts[s] == n && p < port) {
			port, n = p, counts[s]
		}
	}
	return port, n
}
