package lab

import (
	"io/fs"
	"net/netip"
)

var defaults = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// Route makes host h send packets for the prefixes by way of a neighbour;
// without prefixes, all packets of the families their link has.
func (n *Network) Route(h, via *Host, prefixes ...netip.Prefix) error {
	v4, v6 := via.Addrs(h)
	if !v4.IsValid() && !v6.IsValid() {
		return h.errorf("route via %s: %w: not linked", via.name, fs.ErrInvalid)
	}
	all := len(prefixes) == 0
	if all {
		prefixes = defaults
	}
	for _, p := range prefixes {
		gateway := v6
		if p.Addr().Is4() {
			gateway = v4
		}
		if !gateway.IsValid() && all {
			continue
		}
		if !gateway.IsValid() {
			return h.errorf("route %v via %s: %w: their link lacks the family", p, via.name, fs.ErrInvalid)
		}
		if err := h.addRoute(p.Masked(), gateway); err != nil {
			return h.errorf("route %v via %s: %w", p, via.name, err)
		}
	}
	return nil
}

// Router makes r forward packets, and each of the neighbours send by way of r
// whatever is not for a link of its own.
func (n *Network) Router(r *Host, neighbours ...*Host) error {
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := r.SetSysctl(name, "1"); err != nil {
			return err
		}
	}
	for _, h := range neighbours {
		if err := n.Route(h, r); err != nil {
			return err
		}
	}
	return nil
}
