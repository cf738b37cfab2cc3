package sockdiag

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
)

// audit is inet_diag_bc_audit of Linux 6.18, for a caller with CAP_NET_ADMIN:
// it reports whether the kernel takes the code.
func audit(code []byte) bool {
	if len(code) < 4 {
		return false
	}
	left := len(code)
	for left > 0 {
		o := code[len(code)-left:]
		need, ok := argument(o)
		if left < 4 || !ok || need > left {
			return false
		}
		yes, no := int(o[1]), int(binary.NativeEndian.Uint16(o[2:]))
		if no < need || no > left+4 || no&3 != 0 || no < left && !entered(code, left-no) {
			return false
		}
		if yes < need || yes > left+4 || yes&3 != 0 {
			return false
		}
		left -= yes
	}
	return left == 0
}

// entered is valid_cc: steps of yes come by where left bytes are left.
func entered(code []byte, left int) bool {
	at := 0
	for at <= len(code) {
		if len(code)-at == left {
			return true
		}
		if left > len(code)-at || code[at+1] < 4 || code[at+1]&3 != 0 {
			return false
		}
		at += int(code[at+1])
	}
	return false
}

// argument returns the least length of an operation (valid_hostcond,
// valid_port_comparison, valid_devcond, valid_markcond, valid_cgroupcond).
func argument(o []byte) (int, bool) {
	switch o[0] {
	case 1, 6:
		return 4, true
	case 2, 3, 4, 5, 9, 11, 12:
		return 8, true
	case 10, 13:
		return 12, true
	case 7, 8:
		if len(o) < 12 {
			return 0, false
		}
		n, ok := map[byte]int{0: 0, 2: 4, 10: 16}[o[4]]
		return 12 + n, ok && int(o[5]) <= 8*n
	}
	return 0, false
}

// entry is struct inet_diag_entry.
type entry struct {
	family        Family
	src, dst      [16]byte
	sport, dport  uint16
	ifindex, mark uint32
	cgroup        uint64
	bound         bool // SOCK_BINDPORT_LOCK
}

// entryOf returns what the kernel compares of the socket that row shows.
func entryOf(row *Socket, bound bool) entry {
	return entry{
		family: row.Family, src: encodeAddr(row, row.Local.Addr()), dst: encodeAddr(row, row.Remote.Addr()),
		sport: row.Local.Port(), dport: row.Remote.Port(),
		ifindex: row.Interface, mark: row.Mark, cgroup: row.CgroupID, bound: bound,
	}
}

// run is inet_diag_bc_run.
func run(code []byte, e *entry) bool {
	at := 0
	for at < len(code) {
		o := code[at:]
		yes := true
		switch o[0] {
		case 1:
			yes = false
		case 2:
			yes = e.sport >= binary.NativeEndian.Uint16(o[6:])
		case 3:
			yes = e.sport <= binary.NativeEndian.Uint16(o[6:])
		case 4:
			yes = e.dport >= binary.NativeEndian.Uint16(o[6:])
		case 5:
			yes = e.dport <= binary.NativeEndian.Uint16(o[6:])
		case 6:
			yes = !e.bound
		case 7:
			yes = hostMatches(o, e.family, e.src, e.sport)
		case 8:
			yes = hostMatches(o, e.family, e.dst, e.dport)
		case 9:
			yes = binary.NativeEndian.Uint32(o[4:]) == e.ifindex
		case 10:
			yes = e.mark&binary.NativeEndian.Uint32(o[8:]) == binary.NativeEndian.Uint32(o[4:])
		case 13:
			yes = binary.NativeEndian.Uint64(o[4:]) == e.cgroup
		}
		if yes {
			at += int(o[1])
		} else {
			at += int(binary.NativeEndian.Uint16(o[2:]))
		}
	}
	return at == len(code)
}

// hostMatches is the case of INET_DIAG_BC_S_COND.
func hostMatches(o []byte, family Family, addr [16]byte, port uint16) bool {
	if p := int32(binary.NativeEndian.Uint32(o[8:])); p != -1 && p != int32(port) {
		return false
	}
	want, bits := Family(o[4]), int(o[5])
	if want != 0 && want != family {
		mapped := addr[10] == 0xff && addr[11] == 0xff && [10]byte(addr[:10]) == [10]byte{}
		return family == IPv6 && want == IPv4 && mapped && bitsMatch(addr[12:], o[12:], bits)
	}
	return bits == 0 || bitsMatch(addr[:], o[12:], bits)
}

func bitsMatch(a, b []byte, bits int) bool {
	for i := range bits {
		if (a[i/8]^b[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}

// selects is what a request selects: its header and its bytecode.
func (d *DumpPlan) selects(s *Socket, bound bool) bool {
	if d.Empty || s.Family != d.Family || !shownStates(d.States).Has(s.State) ||
		d.LocalPort != 0 && d.LocalPort != s.Local.Port() || d.RemotePort != 0 && d.RemotePort != s.Remote.Port() {
		return false
	}
	e := entryOf(s, bound)
	return len(d.Bytecode) == 0 || run(d.Bytecode, &e)
}

// widened is what a kernel can know of a filter whose negations are pushed to
// the conditions: those it has no operation for hold both ways. It knows who
// bound a port, and takes a value that a row does not have for 0.
func widened(f Filter, s *Socket, bound, want bool) bool {
	e := f.h.Value()
	switch e.kind {
	case kindNot:
		return widened(e.head, s, bound, !want)
	case kindAnd, kindOr:
		every := (e.kind == kindAnd) == want
		for _, m := range f.appendList(nil, e.kind) {
			if widened(m, s, bound, want) != every {
				return !every
			}
		}
		return every
	case kindUser, kindInode, kindCookie:
		return true
	case kindAutobound:
		if want && bound {
			return false
		}
	}
	holds, _ := e.holds(s)
	return holds == want
}

// maker builds filters and sockets out of bytes.
type maker struct{ b []byte }

func (m *maker) next() byte {
	if len(m.b) == 0 {
		return 0
	}
	c := m.b[0]
	m.b = m.b[1:]
	return c
}

// Few values of each kind, so that conditions hold often.
func (m *maker) port() uint16 { return [...]uint16{0, 1, 80, 32768, 60999, 65535, 443, 81}[m.next()%8] }

func (m *maker) addr() netip.Addr {
	return netip.MustParseAddr([...]string{
		"0.0.0.0", "10.1.2.3", "10.1.2.4", "192.0.2.1", "::", "::1", "2001:db8::1", "2001:db8::2", "fe80::1",
	}[m.next()%9])
}

func (m *maker) prefix() netip.Prefix {
	a := m.addr()
	if m.next()%4 == 0 {
		a = netip.AddrFrom16(a.As16())
	}
	return netip.PrefixFrom(a, int(m.next())%(a.BitLen()+1))
}

func (m *maker) filter(depth int) Filter {
	c := m.next() % 20
	if depth == 0 {
		c %= 13
	}
	small := uint64(m.next() % 3)
	switch c {
	case 0:
		return InState(StateSet(uint32(m.next())<<6 | uint32(m.next())))
	case 1:
		return OfFamily([...]Family{IPv4, IPv6, 7}[small])
	case 2, 3, 4:
		return LocalPort(Comparison(m.next()%6), m.port())
	case 5:
		return RemotePort(Comparison(m.next()%6), m.port())
	case 6:
		return Local(m.prefix())
	case 7:
		return Remote(m.prefix())
	case 8:
		return OnInterface(uint32(small))
	case 9:
		return HasMark(uint32(small), [...]uint32{math.MaxUint32, 1, 3}[m.next()%3])
	case 10:
		return cgroupFilter(small, [...]string{"", "/a b", `\x`, "eq", "id:7"}[m.next()%5])
	case 11:
		return [...]Filter{OfUser(7), HasInode(7), HasCookie(7)}[small]
	case 12:
		return IsAutobound()
	case 13, 14:
		return Not(m.filter(depth - 1))
	}
	var members []Filter
	for range m.next() % 4 {
		members = append(members, m.filter(depth-1))
	}
	if c%2 == 0 {
		return And(members...)
	}
	return Or(members...)
}

func (m *maker) socket() Socket {
	s := Socket{
		Family: IPv6, State: State(m.next()%11 + 1), Interface: uint32(m.next() % 3),
		Local: netip.AddrPortFrom(m.addr(), m.port()), Remote: netip.AddrPortFrom(m.addr(), m.port()),
		Inode: uint32(m.next()%2) * 7, Cookie: uint64(m.next()%2) * 7,
	}
	if s.Local.Addr().Is4() && s.Remote.Addr().Is4() && m.next()%2 == 0 {
		s.Family = IPv4
	}
	if m.next()%2 == 0 {
		s.Mark, s.Fields = uint32(m.next()%4), s.Fields|FieldMark
	}
	if m.next()%2 == 0 {
		s.CgroupID, s.Fields = uint64(m.next()%4), s.Fields|FieldCgroup
	}
	return s
}

// checkBytecode compiles f and asserts what every plan must keep to.
func checkBytecode(t *testing.T, f Filter, sockets []Socket, q Query) {
	t.Helper()
	q.Filter = f
	for _, refused := range []optional{0, optionalMark, optionalCgroup | optionalInterface} {
		for _, family := range []Family{IPv4, IPv6} {
			d, left := q.plan(family, refused)
			if len(d.Bytecode) > 0 && (!audit(d.Bytecode) || d.Empty) {
				t.Fatalf("%.200s: the kernel refuses %d bytes, empty: %v", f, len(d.Bytecode), d.Empty)
			}
			for i := range sockets {
				for _, bound := range []bool{false, true} {
					checkRow(t, q, &d, &sockets[i], bound, refused == 0, len(left) == 0)
				}
			}
		}
	}
}

// checkRow: the kernel selects what matches, all that widened tells it to and,
// when nothing is left to Match, nothing else.
func checkRow(t *testing.T, q Query, d *DumpPlan, s *Socket, bound, full, exact bool) {
	t.Helper()
	selected, matches := d.selects(s, bound), q.matches(s, q.rowStates()) && s.Family == d.Family
	inHeader := (Query{LocalPort: q.LocalPort, RemotePort: q.RemotePort, States: q.States}).matches(s, q.rowStates())
	wide := s.Family == d.Family && inHeader && (q.Filter == Filter{} || widened(q.Filter, s, bound, true))
	// Who bound an ephemeral port is the one thing that a row does not tell.
	port := s.Local.Port()
	if matches && !selected && !(bound && port >= firstEphemeral && port <= lastEphemeral) {
		t.Fatalf("%.200s: matches, and the kernel drops it: %+v\n%.2000s", q.Filter, *s, *d)
	}
	if wide && !selected {
		t.Fatalf("%.200s: dropped though the kernel cannot know: %+v\n%.2000s", q.Filter, *s, *d)
	}
	if full && exact && selected && !wide {
		t.Fatalf("%.200s: selected though the kernel can know: %+v\n%.2000s", q.Filter, *s, *d)
	}
}

// FuzzBytecode compiles filters and runs them on sockets.
func FuzzBytecode(f *testing.F) {
	for i := range 256 {
		seed := make([]byte, 200)
		for j := range seed {
			seed[j] = byte(i*31 + j*j*7 + i*j*13 + j>>3*i)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &maker{b}
		q := Query{States: [...]StateSet{0, States(Established, Close), States(Listen, SynRecv)}[m.next()%3]}
		if m.next()%4 == 0 {
			q.LocalPort = m.port()
		}
		filter := m.filter(5)
		var sockets []Socket
		for range 8 {
			sockets = append(sockets, m.socket())
		}
		checkBytecode(t, filter, sockets, q)
	})
}

// TestBytecodeLong: filters beyond what code can hold select too much rather
// than too little.
func TestBytecodeLong(t *testing.T) {
	var hosts []Filter
	for i := range 2200 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})
		hosts = append(hosts, Remote(netip.PrefixFrom(a, 128)))
	}
	some := Or(hosts[:800]...)
	sockets := []Socket{numbered(IPv4, 443), numbered(IPv6, 443), numbered(IPv6, 0)}
	sockets[2].Remote = netip.MustParseAddrPort("[2001::7]:80")
	for name, c := range map[string]struct {
		f     Filter
		bytes int
		left  bool
	}{
		"or":           {some, 800*32 - 4, false},
		"nor":          {Not(some), 800 * 32, false},
		"long or":      {Or(hosts...), 0, true},
		"long nor":     {Not(Or(hosts...)), 2046 * 32, true},
		"long and":     {And(some, LocalPort(Less, 81), Not(Or(hosts[:1300]...))), 800*32 - 4 + 8, true},
		"jump too far": {Or(some, And(Or(hosts[700:1500]...), Or(hosts[1400:]...))), 0, true},
	} {
		checkBytecode(t, c.f, sockets, Query{})
		d, left := Query{Filter: c.f}.plan(IPv6, 0)
		if len(d.Bytecode) != c.bytes || (len(left) > 0) != c.left {
			t.Errorf("%s: %d bytes, want %d; %d left", name, len(d.Bytecode), c.bytes, len(left))
		}
	}
}

// TestAudit: the validator refuses what the kernel does.
func TestAudit(t *testing.T) {
	good := append(portOp(opLocalGE, 1).code, portOp(opLocalLE, 2).code...)
	relocate(good[:8], 8)
	if !audit(good) {
		t.Error("good code is refused")
	}
	for name, change := range map[string]func(b []byte) []byte{
		"unknown operation": func(b []byte) []byte { b[0] = 99; return b },
		"short step":        func(b []byte) []byte { b[1] = 4; return b },
		"odd jump":          func(b []byte) []byte { b[2]++; return b },
		"far jump":          func(b []byte) []byte { binary.NativeEndian.PutUint16(b[2:], 24); return b },
		"into an argument":  func(b []byte) []byte { binary.NativeEndian.PutUint16(b[2:], 12); return b },
		"cut short":         func(b []byte) []byte { return b[:12] },
		"empty":             func([]byte) []byte { return nil },
	} {
		if audit(change(slices.Clone(good))) {
			t.Errorf("%s: accepted", name)
		}
	}
}
