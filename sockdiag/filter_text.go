package sockdiag

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// String returns the filter in the language of ss(8), as ParseFilter reads it;
// the zero Filter is empty. Conditions that ss does not have are written with
// ParseFilter's words for them.
func (f Filter) String() string { return string(f.append(nil)) }

// AppendText appends String's text. The error is always nil.
func (f Filter) AppendText(b []byte) ([]byte, error) { return f.append(b), nil }

// MarshalText returns String's text. The error is always nil.
func (f Filter) MarshalText() ([]byte, error) { return f.append(nil), nil }

// UnmarshalText reads what ParseFilter does.
func (f *Filter) UnmarshalText(text []byte) error {
	parsed, err := ParseFilter(string(text))
	if err == nil {
		*f = parsed
	}
	return err
}

func (f Filter) append(b []byte) []byte {
	if f == (Filter{}) {
		return b
	}
	switch e := f.h.Value(); e.kind {
	case kindAnd:
		return f.appendMembers(b, kindAnd, " and ")
	case kindOr:
		return f.appendMembers(b, kindOr, " or ")
	case kindNot:
		return e.head.appendOperand(append(b, "not "...))
	default:
		return e.append(b)
	}
}

// appendMembers writes a list. ss knows states only at the front, without "and"
// behind them; two conditions on states in a row would be read as one.
func (f Filter) appendMembers(b []byte, k kind, separator string) []byte {
	members := f.appendList(nil, k)
	for i, m := range members {
		switch {
		case i == 0:
		case i == 1 && len(b) > 0 && k == kindAnd && members[0].kind() == kindState && m.kind() != kindState:
			b = append(b, ' ')
		default:
			b = append(b, separator...)
		}
		b = m.appendOperand(b)
	}
	return b
}

func (f Filter) kind() kind { return f.h.Value().kind }

// appendOperand writes f as part of a longer expression.
func (f Filter) appendOperand(b []byte) []byte {
	if k := f.kind(); k == kindAnd || k == kindOr {
		return append(f.append(append(b, "( "...)), " )"...)
	}
	return f.append(b)
}

// append writes one condition.
func (e *expr) append(b []byte) []byte {
	switch e.kind {
	case kindState:
		return appendStates(b, StateSet(e.n))
	case kindFamily:
		return append(b, e.familyText()...)
	case kindPort:
		b = append(append(b, e.word("sport", "dport")...), ' ')
		return strconv.AppendUint(append(append(b, e.cmp.String()...), " :"...), e.n, 10)
	case kindPrefix:
		return e.appendPrefix(append(append(b, e.word("src", "dst")...), ' '))
	case kindInterface:
		return strconv.AppendUint(append(b, "dev = "...), e.n, 10)
	case kindMark:
		return e.appendMark(append(b, "fwmark = 0x"...))
	case kindCgroup:
		return e.appendCgroup(append(b, "cgroup = "...))
	case kindUser:
		return strconv.AppendUint(append(b, "uid = "...), e.n, 10)
	case kindInode:
		return strconv.AppendUint(append(b, "inode = "...), e.n, 10)
	case kindCookie:
		return strconv.AppendUint(append(b, "cookie = 0x"...), e.n, 16)
	}
	return append(b, "autobound"...)
}

func (e *expr) word(local, remote string) string {
	if e.remote {
		return remote
	}
	return local
}

// familyText writes a family as a prefix without an address.
func (e *expr) familyText() string {
	if Family(e.n) == IPv4 {
		return "src inet:*"
	}
	return "src inet6:*"
}

func (e *expr) appendPrefix(b []byte) []byte {
	p := e.prefix
	if p.Addr().Is4() {
		if p.IsSingleIP() {
			return p.Addr().AppendTo(b)
		}
		return p.AppendTo(b)
	}
	b = p.Addr().AppendTo(append(b, '['))
	if !p.IsSingleIP() {
		b = strconv.AppendInt(append(b, '/'), int64(p.Bits()), 10)
	}
	return append(b, ']')
}

func (e *expr) appendMark(b []byte) []byte {
	b = strconv.AppendUint(b, e.n, 16)
	if e.mask != math.MaxUint32 {
		b = strconv.AppendUint(append(b, "/0x"...), uint64(e.mask), 16)
	}
	return b
}

// appendCgroup writes the path as it was given, or the ID. The first letter of
// a relative path is escaped, lest it be read as an operator or an ID.
func (e *expr) appendCgroup(b []byte) []byte {
	if e.path == "" {
		return strconv.AppendUint(append(b, cgroupID...), e.n, 10)
	}
	for i, c := range []byte(e.path) {
		if i == 0 && c != '/' || c == '\\' || isSpace(c) {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return b
}

// cgroupID is before the ID of a cgroup in place of its path.
const cgroupID = "id:"

// stateWords are the names of ss for states and sets of them.
var stateWords = []struct {
	word string
	set  StateSet
}{
	{"all", allStates},
	{"connected", Connected},
	{"synchronized", Synchronized},
	{"bucket", pendingStates | 1<<TimeWait},
	{"big", allStates &^ (pendingStates | 1<<TimeWait)},
	{"established", 1 << Established},
	{"syn-sent", 1 << SynSent},
	{"syn-recv", pendingStates},
	{"fin-wait-1", 1 << FinWait1},
	{"fin-wait-2", 1 << FinWait2},
	{"time-wait", 1 << TimeWait},
	{"closed", 1 << Close},
	{"close-wait", 1 << CloseWait},
	{"last-ack", 1 << LastAck},
	{"listening", 1 << Listen},
	{"closing", 1 << Closing},
	{"bound-inactive", 1 << BoundInactive},
}

// appendStates writes a set as one word, as the states that are in it, or, when
// that is shorter, as those that are not.
func appendStates(b []byte, set StateSet) []byte {
	for _, w := range stateWords {
		if w.set == set {
			return append(append(b, "state "...), w.word...)
		}
	}
	verb, left := "state ", set
	if bits.OnesCount32(uint32(set)) > 6 && !set.Has(BoundInactive) || set == 0 {
		verb, left = "exclude ", allStates&^set
	}
	if set == 0 {
		return append(b, "exclude all"...)
	}
	var words []string
	for _, w := range stateWords[5:] {
		if w.set&left == w.set {
			words = append(words, verb+w.word)
		}
	}
	return append(b, strings.Join(words, " ")...)
}
