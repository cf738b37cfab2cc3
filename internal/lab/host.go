package lab

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// Host is a network namespace of a Network. It is safe for concurrent use.
type Host struct {
	name string
	ns   *namespace

	mu    sync.Mutex
	ports []port
}

// port is a host's end of a link.
type port struct {
	peer   *Host
	index  uint32 // of the interface
	v4, v6 netip.Addr
	mac    [6]byte
}

func newHost(name string) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	h := &Host{name: name, ns: ns}
	if err := h.setup(); err != nil {
		return nil, errors.Join(err, ns.close())
	}
	return h, nil
}

func (h *Host) setup() error {
	if err := h.upLoopback(); err != nil {
		return h.errorf("loopback up: %w", err)
	}
	return h.trySysctls("0", "net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit")
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// NetNS is a path of the host's network namespace, good in this process until
// the Network is closed: for the NetNS field of a Config.
func (h *Host) NetNS() string { return h.ns.path() }

// Addr4 is the host's IPv4 address on its first link that has one; the zero
// Addr without.
func (h *Host) Addr4() netip.Addr {
	return h.first(func(p port) netip.Addr { return p.v4 })
}

// Addr6 is the host's IPv6 address on its first link that has one; the zero
// Addr without.
func (h *Host) Addr6() netip.Addr {
	return h.first(func(p port) netip.Addr { return p.v6 })
}

func (h *Host) first(addr func(port) netip.Addr) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.ports {
		if a := addr(p); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// Addrs returns the host's addresses on its link to a neighbour.
func (h *Host) Addrs(neighbour *Host) (v4, v6 netip.Addr) {
	p, _ := h.port(neighbour)
	return p.v4, p.v6
}

func (h *Host) port(peer *Host) (port, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.ports {
		if p.peer == peer {
			return p, true
		}
	}
	return port{}, false
}

func (h *Host) plug(p port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports = append(h.ports, p)
}

// Rules replaces the host's tables of these names; see nft.Conn.Apply.
func (h *Host) Rules(ctx context.Context, tables ...nft.Table) error {
	c, err := nft.Dial(h.NetNS())
	if err != nil {
		return h.errorf("%w", err)
	}
	defer c.Close() //nolint:errcheck // nothing under way
	if err := c.Apply(ctx, tables...); err != nil {
		return h.errorf("%w", err)
	}
	return nil
}

// Counters reads the counters of a chain; see nft.Conn.Counters.
func (h *Host) Counters(ctx context.Context, family nft.Family, table, chain string) ([]nft.Counter, error) {
	c, err := nft.Dial(h.NetNS())
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	defer c.Close() //nolint:errcheck // nothing under way
	counters, err := c.Counters(ctx, family, table, chain)
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	return counters, nil
}
