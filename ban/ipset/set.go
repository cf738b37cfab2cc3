package ipset

import (
	"fmt"
	"net/netip"
)

// set is one set of the kernel.
type set struct {
	name string
	typ  string // "hash:ip" or "hash:net"
	ipv6 bool
	bits int // prefix length of what a hash:ip holds

	comments bool // the set has them
	maxElem  uint32
}

// sets are those that a checked Config chooses: hosts come first.
func (c Config) sets() []*set {
	var out []*set
	for _, s := range []struct {
		kind Kinds
		set  set
	}{
		{Hosts4, set{name: c.Name, typ: hashIP, bits: 32}},
		{Nets4, set{name: c.Name + "-net", typ: hashNet}},
		{Hosts6, set{name: c.Name + "6", typ: hashIP, ipv6: true, bits: c.Bits6}},
		{Nets6, set{name: c.Name + "6-net", typ: hashNet, ipv6: true}},
	} {
		if c.Kinds&s.kind != 0 {
			out = append(out, &s.set)
		}
	}
	return out
}

const (
	hashIP  = "hash:ip"
	hashNet = "hash:net"
)

// takes reports whether the set is one for p.
func (s *set) takes(p netip.Prefix) bool {
	return s.ipv6 == p.Addr().Is6() && (s.typ == hashNet || s.bits == p.Bits())
}

func (s *set) family() string {
	if s.ipv6 {
		return "inet6"
	}
	return "inet"
}

// rule is the command that makes the set drop.
func (s *set) rule(chain string) string {
	program := "iptables"
	if s.ipv6 {
		program = "ip6tables"
	}
	return fmt.Sprintf("%s -I %s -m conntrack --ctdir ORIGINAL -m set --match-set %s src -j DROP", program, chain, s.name)
}

// adopt takes a set of the kernel as it is, if bans can be kept in it.
func (s *set) adopt(h header) error {
	bits := h.netmask
	if bits == 0 {
		bits = 32
		if h.ipv6 {
			bits = 128
		}
	}
	switch {
	case h.typ != s.typ || h.ipv6 != s.ipv6:
		return s.misfit("%s family %s", h.typ, family(h.family))
	case s.typ == hashIP && bits != s.bits:
		return s.misfit("of prefix length %d, not %d", bits, s.bits)
	case !h.timeouts:
		return s.misfit("without timeouts: no ban in it would end")
	}
	s.comments, s.maxElem = h.flags&withComment != 0, h.maxElem
	return nil
}

func (s *set) misfit(format string, args ...any) error {
	return fmt.Errorf("set %s exists and is %s; want %s family %s timeout 0 (another Name, or: ipset destroy %s)",
		s.name, fmt.Sprintf(format, args...), s.typ, s.family(), s.name)
}
