package sockdiag

import (
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Names looks up the names in the text of a filter. What is nil is looked up on
// this host. Numbers are not looked up.
type Names struct {
	// Interface returns the index of a network interface. When it is nil it
	// is one of the network namespace of the calling thread: with
	// Config.NetNS, name the interface by its index there.
	Interface func(name string) (index uint32, err error)
	// Service returns the port of a service: when it is nil that of TCP, or
	// else of UDP, in /etc/services.
	Service func(name string) (port uint16, err error)
	// Cgroup returns the ID of the cgroup whose directory path is: when it is
	// nil, of the v2 hierarchy, such as /sys/fs/cgroup/system.slice.
	Cgroup func(path string) (id uint64, err error)
}

func (n Names) service(name string) (uint16, error) {
	if n.Service != nil {
		return n.Service(name)
	}
	port, err := net.LookupPort("tcp", name)
	if err != nil {
		port, err = net.LookupPort("udp", name)
	}
	return uint16(port), err
}

func (n Names) device(name string) (uint32, error) {
	if n.Interface != nil {
		return n.Interface(name)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func (n Names) cgroup(path string) (uint64, error) {
	if n.Cgroup != nil {
		return n.Cgroup(path)
	}
	return cgroupIDOf(path)
}

// number reads an unsigned number as C writes it: 10, 0x0a, 012.
func (p *parser) number(t token, text string, bitSize int) uint64 {
	n, ok := parseNumber(text, bitSize)
	if !ok {
		p.fail(t, "no number of "+strconv.Itoa(bitSize)+" bits", "10, 0x0a")
	}
	return n
}

// parseNumber is strconv's, without what only Go writes: 0b1, 0o7, 1_000.
func parseNumber(text string, bitSize int) (uint64, bool) {
	if strings.Contains(text, "_") || len(text) > 1 && strings.IndexByte("bBoO", text[1]) >= 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 0, bitSize)
	return n, err == nil
}

// port reads the number or name of one port; * or nothing is any.
func (p *parser) port(t token, text string) (port uint16, one bool) {
	if text == "" || text == "*" {
		return 0, false
	}
	if n, ok := parseNumber(text, 16); ok {
		return uint16(n), true
	}
	port, err := p.names.service(text)
	if err != nil {
		p.failed(t, "no port", "0 to 65535, or a service", err)
	}
	return port, true
}

// device reads the name or index of an interface.
func (p *parser) device(t token) Filter {
	if n, ok := parseNumber(t.text, 32); ok {
		return OnInterface(uint32(n))
	}
	index, err := p.names.device(t.text)
	if err != nil {
		return p.failed(t, "no interface", "the name or index of one", err)
	}
	return OnInterface(index)
}

// mark reads VALUE[/MASK].
func (p *parser) mark(t token) Filter {
	value, mask, masked := strings.Cut(t.text, "/")
	if !masked {
		return HasMark(uint32(p.number(t, value, 32)), math.MaxUint32)
	}
	return HasMark(uint32(p.number(t, value, 32)), uint32(p.number(t, mask, 32)))
}

// cgroupCondition reads [=|!=] PATH. The path ends at a space, as in ss: the
// names of units can hold any sign.
func (p *parser) cgroupCondition() Filter {
	start := p.at
	p.advance()
	equal := true
	if sign := p.tok.sign(); sign == "=" || sign == "!=" {
		equal, start = sign == "=", p.at
	}
	p.at = start
	t := p.path()
	if t.text == "" {
		return p.fail(t, "", "a path, id:NUMBER")
	}
	f := p.cgroup(t)
	p.advance()
	if !equal {
		return Not(f)
	}
	return f
}

func (p *parser) cgroup(t token) Filter {
	if id, ok := strings.CutPrefix(t.text, cgroupID); ok && !t.escaped {
		return InCgroup(p.number(t, id, 64))
	}
	id, err := p.names.cgroup(t.text)
	if err != nil {
		return p.failed(t, "no cgroup", "the path of a directory of cgroup2, id:NUMBER", err)
	}
	return cgroupFilter(id, t.text)
}

const hosts = "10.0.0.0/8, 10.0.0.1:443, [2001:db8::]/32, [2001:db8::1]:443, :443, *"

// host reads [inet:|inet6:][HOST][/BITS][:PORT].
func (p *parser) host(t token, remote bool) Filter {
	text := t.text
	var f Filter
	if rest, ok := strings.CutPrefix(text, "inet:"); ok {
		text, f = rest, OfFamily(IPv4)
	} else if rest, ok := strings.CutPrefix(text, "inet6:"); ok {
		text, f = rest, OfFamily(IPv6)
	}
	addr, port, ok := splitHost(text)
	if !ok {
		return p.fail(t, "an IPv6 address takes brackets, its port behind them", hosts)
	}
	prefix, ok := p.prefix(t, addr)
	if !ok {
		return Filter{}
	}
	if prefix.IsValid() {
		f = And(f, prefixFilter(remote, prefix))
	}
	if n, one := p.port(t, port); one {
		f = And(f, portFilter(remote, Equal, n))
	}
	return f
}

// splitHost cuts off the port, behind the last colon after the brackets or the
// prefix length.
func splitHost(text string) (addr, port string, ok bool) {
	tail := 0
	if strings.HasPrefix(text, "[") {
		if tail = strings.IndexByte(text, ']'); tail < 0 {
			return "", "", false
		}
	} else if slash := strings.IndexByte(text, '/'); slash >= 0 {
		tail = slash
	}
	if colon := strings.IndexByte(text[tail:], ':'); colon >= 0 {
		addr, port = text[:tail+colon], text[tail+colon+1:]
	} else {
		addr = text
	}
	if strings.HasPrefix(addr, "[") {
		addr = strings.Replace(addr[1:], "]", "", 1)
	}
	return addr, port, !strings.Contains(port, ":")
}

// prefix reads an address with or without a prefix length; the invalid one
// stands for any.
func (p *parser) prefix(t token, text string) (netip.Prefix, bool) {
	switch text {
	case "", "*", "any", "all", "default":
		return netip.Prefix{}, true
	}
	host, length, hasLength := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(fourOctets(host))
	if err != nil || addr.Zone() != "" {
		p.fail(t, "no address (names are not looked up, zones are dev)", hosts)
		return netip.Prefix{}, false
	}
	n := uint64(addr.BitLen())
	if hasLength {
		var ok bool
		if n, ok = prefixLength(addr, length); !ok {
			p.fail(t, "no length of a prefix", "0 to "+strconv.Itoa(addr.BitLen()))
			return netip.Prefix{}, false
		}
	}
	return netip.PrefixFrom(addr, int(n)), true
}

// fourOctets completes an IPv4 address as ss does: 10 is 10.0.0.0.
func fourOctets(host string) string {
	if host == "" || strings.Trim(host, "0123456789.") != "" {
		return host
	}
	return host + strings.Repeat(".0", max(0, 3-strings.Count(host, ".")))
}

// prefixLength reads 8 or 255.0.0.0.
func prefixLength(a netip.Addr, text string) (uint64, bool) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		return n, n <= uint64(a.BitLen())
	}
	mask, err := netip.ParseAddr(text)
	if err != nil || !mask.Is4() || !a.Is4() {
		return 0, false
	}
	m := net.IPMask(mask.AsSlice())
	ones, bits := m.Size()
	return uint64(ones), bits != 0
}
