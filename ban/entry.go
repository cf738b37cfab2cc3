package ban

import (
	"fmt"
	"net/netip"
)

// Entry is the ban of a source. It is comparable.
type Entry struct {
	// Prefix is the source: a host is a /32 or a /128.
	Prefix netip.Prefix
	// Until is when the ban ends.
	Until Until
	// Reason says in a line why, for people: "Conn Cnt: 684 is greater than
	// limit:60". A backend may keep less of it; see its package.
	Reason string
	// Evidence is what the ban rests on, such as a Finding in JSON. Only the
	// Journal keeps it.
	Evidence string
}

// Host returns the Prefix of one address, an IPv4-mapped one unmapped.
func Host(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// Check reports an entry that no backend could enforce as it is written: a
// Prefix that is not valid, has bits set beyond its length, is IPv4-mapped or
// bans everybody, or an Until that is not set. The error is an *EntryError.
func (e Entry) Check() error {
	switch a := e.Prefix.Addr(); {
	case !e.Prefix.IsValid():
		return e.errorf("not a prefix")
	case a.Is4In6():
		return e.errorf("an IPv4-mapped address: write it as IPv4")
	case e.Prefix != e.Prefix.Masked():
		return e.errorf("bits are set beyond its length: write %v", e.Prefix.Masked())
	case e.Prefix.Bits() == 0:
		return e.errorf("it would ban everybody")
	case e.Until.IsZero():
		return e.errorf("Until is not set: use ban.For, ban.At or ban.Forever")
	}
	return nil
}

func (e Entry) errorf(format string, args ...any) error {
	return &EntryError{Prefix: e.Prefix, Err: fmt.Errorf(format, args...)}
}

// String returns prefix, end and reason on one line.
func (e Entry) String() string {
	s := fmt.Sprintf("%v until %v", e.Prefix, e.Until)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}
