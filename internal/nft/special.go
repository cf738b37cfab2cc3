package nft

import (
	"fmt"
	"strings"
)

// special takes an expression that loads something rare.
func (r *registers) special(e *expr) bool {
	switch e.name {
	case "fib":
		r.set(e.number(1), operand{kind: other, text: fibText(e), size: 4, key: uint32(e.number(2)) | uint32(e.number(3))&fibPresent})
	case "rt":
		r.set(e.number(1), operand{kind: other, text: nameOr([]string{"rt classid", "rt nexthop", "rt nexthop", "tcp maxseg", "rt ipsec"}, e.number(2)), size: 4})
	case "socket":
		r.set(e.number(2), operand{kind: other, text: nameOr([]string{"socket transparent", "socket mark", "socket wildcard", "socket cgroupv2"}, e.number(1)), size: 4})
	case "exthdr":
		if e.has(7) { // NFTA_EXTHDR_SREG: changes it
			return false
		}
		r.set(e.number(1), operand{kind: other, text: fmt.Sprintf("[exthdr %d,%d,%d]", e.number(2), e.number(3), e.number(4)), size: 4})
	case "numgen", "hash", "osf", "tunnel", "xfrm", "inner":
		dreg := map[string]int{"numgen": 1, "hash": 2, "osf": 1, "tunnel": 2, "xfrm": 1, "inner": 0}[e.name]
		r.set(e.number(dreg), operand{kind: other, text: "[" + e.name + "]", size: 4})
	default:
		return false
	}
	return true
}

// fibPresent is NFTA_FIB_F_PRESENT: only whether there is a route.
const fibPresent = 32

// fibText names what is looked up in the routes.
func fibText(e *expr) string {
	var keys []string
	flags := e.number(3)
	for _, b := range []bit{{1, "saddr"}, {2, "daddr"}, {4, "mark"}, {8, "iif"}, {16, "oif"}} { // NFTA_FIB_F_*
		if flags&b.mask != 0 {
			keys = append(keys, b.name)
		}
	}
	result := nameOr([]string{"", "oif", "oifname", "type"}, e.number(2))
	return "fib " + strings.Join(keys, " . ") + " " + result
}

var addressTypes = []string{
	"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
}

// special is how the values of something rare are written.
func (l *lister) special(o operand) func([]byte) string {
	if strings.HasPrefix(o.text, "fib ") {
		switch o.key {
		case fibPresent | 1, fibPresent | 2:
			return func(b []byte) string { return nameOr([]string{"missing", "exists"}, native(b)) }
		case 1:
			return indexText
		case 2:
			return nameText
		case 3:
			return func(b []byte) string { return nameOr(addressTypes, native(b)) }
		}
	}
	return nativeDecimal
}
