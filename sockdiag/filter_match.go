package sockdiag

import "net/netip"

// Match reports whether the filter holds for s. It allocates nothing.
func (f Filter) Match(s *Socket) bool { return f == Filter{} || f.is(s, true) }

// is reports that f is known to be want.
func (f Filter) is(s *Socket, want bool) bool {
	for {
		e := f.h.Value()
		switch e.kind {
		case kindNot:
			f, want = e.head, !want
		case kindAnd, kindOr:
			every := (e.kind == kindAnd) == want
			if e.head.is(s, want) != every {
				return !every
			}
			f = e.tail
		default:
			holds, known := e.holds(s)
			return known && holds == want
		}
	}
}

// holds decides a condition, if s tells what it is about.
func (e *expr) holds(s *Socket) (holds, known bool) {
	switch e.kind {
	case kindState:
		return shownStates(StateSet(e.n)).Has(s.State), true
	case kindFamily:
		return uint64(s.Family) == e.n, true
	case kindPort:
		return e.comparePort(e.end(s).Port()), true
	case kindPrefix:
		return e.contains(s), true
	case kindInterface:
		return uint64(s.Interface) == e.n, true
	case kindMark:
		return uint64(s.Mark&e.mask) == e.n, s.Has(FieldMark)
	case kindCgroup:
		return s.CgroupID == e.n, s.Has(FieldCgroup)
	case kindUser:
		return uint64(s.UID) == e.n, s.HasOwner()
	case kindInode:
		return uint64(s.Inode) == e.n, true
	case kindCookie:
		return s.Cookie == e.n, true
	case kindAutobound:
		port := s.Local.Port()
		return port >= firstEphemeral && port <= lastEphemeral, true
	}
	return false, false
}

// end returns the end of the connection that e is about.
func (e *expr) end(s *Socket) netip.AddrPort {
	if e.remote {
		return s.Remote
	}
	return s.Local
}

func (e *expr) comparePort(p uint16) bool {
	port := uint16(e.n)
	switch e.cmp {
	case Equal:
		return p == port
	case NotEqual:
		return p != port
	case Less:
		return p < port
	case LessOrEqual:
		return p <= port
	case Greater:
		return p > port
	}
	return p >= port
}

// contains compares as the kernel does (INET_DIAG_BC_S_COND): the addresses of
// IPv6 sockets are mapped ones to a prefix of IPv6.
func (e *expr) contains(s *Socket) bool {
	a := e.end(s).Addr()
	if e.prefix.Addr().Is4() {
		return e.prefix.Contains(a)
	}
	return s.Family == IPv6 && a.IsValid() && e.prefix.Contains(netip.AddrFrom16(a.As16()))
}

// shownStates returns the states that rows of sockets in one of set's show.
func shownStates(set StateSet) StateSet {
	if set.Has(NewSynRecv) {
		set |= 1 << SynRecv
	}
	if set.Has(BoundInactive) {
		set |= 1 << Close
	}
	return set &^ (1<<NewSynRecv | 1<<BoundInactive)
}
