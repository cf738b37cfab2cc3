package nft

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode"
)

// Text is the rule as nft(8) lists it, comment included and handle not. What
// needs more than the rules themselves is written as the kernel has it:
// interfaces by number ("iif 3"), values of maps without a name, extensions of
// iptables by name ("xt match conntrack"). An expression that this package
// does not know is its name in brackets: "[tunnel]". What cannot be printed is
// U+FFFD.
func (r ListedRule) Text() string {
	list, ok := parseExprs(r.exprs)
	l := newLister(r.family)
	l.sets = r.sets
	for i := range list {
		l.expr(list, i)
	}
	if !ok {
		l.add("[malformed]")
	}
	if r.Comment != "" {
		l.comment = r.Comment
	}
	if l.comment != "" {
		l.add("comment " + quote(l.comment))
	}
	return l.String()
}

// lister writes a rule as text, expression by expression.
type lister struct {
	regs registers
	sets sets
	inet bool // the table sees both families
	l3   Family
	l4   uint8
	// text is the statements so far. Those by which nft(8) only says what
	// header the next one looks at are taken back when it comes: deps is where
	// they are, by the header base that depends on them, plus 1.
	text []string
	deps [4]int

	comment string // that iptables has as a match

	skip bool // the next expression was written with the one before
}

func newLister(family Family) *lister {
	l := &lister{inet: family == INet}
	if family == IPv4 || family == IPv6 {
		l.l3 = family
	}
	return l
}

func (l *lister) String() string {
	var words []string
	for _, s := range l.text {
		if s != "" {
			words = append(words, s)
		}
	}
	return strings.Map(printable, strings.Join(words, " "))
}

// printable replaces what would upset a terminal: comments and names of sets
// and chains may have any bytes.
func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return unicode.ReplacementChar
	}
	return r
}

func (l *lister) add(s string) { l.text = append(l.text, s) }

func (l *lister) addf(format string, args ...any) { l.add(fmt.Sprintf(format, args...)) }

// expr writes expression i of a rule.
func (l *lister) expr(list []expr, i int) {
	e := &list[i]
	if l.skip {
		l.skip = false
		return
	}
	if l.regs.load(e) {
		return
	}
	switch e.name {
	case "cmp":
		l.compare(list, i)
	case "range":
		s := l.selector(l.regs.get(e.number(1)))
		l.match(s, fmt.Sprintf("%s%s-%s", nameOf(compareSigns, e.number(2)), s.format(e.value(3)), s.format(e.value(4))))
	case "lookup":
		if l.lookup(e) {
			return
		}
	default:
		l.statement(e)
	}
	l.regs = registers{}
}

// compare writes a comparison. Two that bound the same register are a range.
func (l *lister) compare(list []expr, i int) {
	e := &list[i]
	o := l.regs.get(e.number(1))
	s, v, op := l.selector(o), e.value(3), e.number(2)
	if i+1 < len(list) {
		next := &list[i+1]
		const atLeast, atMost = 5, 3 // NFT_CMP_GTE, NFT_CMP_LTE
		if next.name == "cmp" && next.number(1) == e.number(1) && op == atLeast && next.number(2) == atMost {
			l.skip = true
			l.match(s, s.format(v)+"-"+s.format(next.value(3)))
			return
		}
	}
	if parts := l.split(o); op == equal && o.mask == nil && len(parts) > 1 && len(v) == o.size {
		for _, p := range parts { // nft(8) asks for neighbours in one go
			l.match(l.selector(p), l.selector(p).format(v[:p.size]))
			v = v[p.size:]
		}
		return
	}
	l.note(o, op, v, l.match(s, l.comparison(o, s, op, v)))
}

// comparison is the right side: "!= 80".
func (l *lister) comparison(o operand, s selector, op uint64, v []byte) string {
	sign := nameOf(compareSigns, op)
	switch n, contiguous := prefixLen(o.mask); {
	case s.bits != nil && o.mask != nil && op == unequal && native(v) == 0:
		return bitsText(s.bits, native(o.mask), ",")
	case s.bits != nil && o.mask != nil && op == equal && native(v) == 0:
		return "! " + bitsText(s.bits, native(o.mask), ",")
	case s.bits != nil:
		return sign + bitsText(s.bits, native(v), ",")
	case s.short != 0 && o.mask == nil:
		return sign + prefixText(v, s.short, len(v)*8)
	case o.mask == nil && op == equal && s.text == "tcp flags":
		return "== " + s.format(v)
	case o.mask == nil:
		return sign + s.format(v)
	case isAddr(s) && contiguous && len(v) == len(o.mask):
		return sign + prefixText(v, max(s.short, len(v)), n)
	case s.text == "tcp flags" && len(v) == 1 && (op == equal || op == unequal):
		return flagsComparison(op, o.mask, v)
	case op == equal:
		sign = "== "
	}
	return "& " + maskText(s, o.mask) + " " + sign + s.format(v)
}

// flagsComparison is short for "& mask == value" where nft(8) is.
func flagsComparison(op uint64, mask, v []byte) string {
	sign := nameOf(compareSigns, op)
	list := func(b []byte) string { return bitsText(flagBits, network(b), ",") }
	switch single := bits.OnesCount64(network(mask)) == 1; {
	case network(v) == 0 && op == unequal:
		return list(mask)
	case network(v) == 0:
		return "! " + list(mask)
	case single && op == equal:
		return "& " + flagsText(mask) + " == " + flagsText(v)
	case single:
		return "& " + flagsText(mask) + " != " + flagsText(v)
	}
	return sign + list(v) + " / " + list(mask)
}

// isAddr reports whether a selector's values are addresses.
func isAddr(s selector) bool { return strings.HasSuffix(s.text, "addr") }

// maskText writes a mask, of more than one flag in parentheses.
func maskText(s selector, mask []byte) string {
	m := s.format(mask)
	if strings.Contains(m, " | ") {
		m = "(" + m + ")"
	}
	return m
}

// implied takes back what s says by itself.
func (l *lister) implied(s selector) {
	if s.base == 0 {
		return
	}
	l.takeBack(s.base - 1)
	if strings.HasPrefix(s.text, "icmp") { // it is of one family
		l.takeBack(networkHeader)
	}
}

// takeBack removes what was written only to say which header follows.
func (l *lister) takeBack(base uint32) {
	if base < uint32(len(l.deps)) && l.deps[base] != 0 {
		l.text[l.deps[base]-1] = ""
		l.deps[base] = 0
	}
}

// match writes a condition and takes back what it makes needless. It returns
// where the condition is.
func (l *lister) match(s selector, right string) (at int) {
	l.implied(s)
	l.add(s.text + " " + right)
	return len(l.text) - 1
}

// note keeps what a comparison says of the packet's protocols.
func (l *lister) note(o operand, op uint64, v []byte, at int) {
	if op != equal || o.mask != nil {
		return
	}
	switch {
	case o.kind == metaKey && (o.key == 8 || o.key == 9): // of ether
		l.deps[linkHeader] = at + 1
	case o.kind == metaKey && o.key == metaNFProto:
		l.l3, l.deps[networkHeader] = Family(network(v)), at+1
	case o.kind == metaKey && o.key == 1 && network(v) == 0x0800:
		l.l3, l.deps[networkHeader] = IPv4, at+1
	case o.kind == metaKey && o.key == 1 && network(v) == 0x86dd:
		l.l3, l.deps[networkHeader] = IPv6, at+1
	case o.kind == metaKey && o.key == metaL4Proto, l.isProtocol(o):
		l.l4, l.deps[transportHeader] = uint8(network(v)), at+1
	}
}

// isProtocol reports a comparison of ip protocol or ip6 nexthdr.
func (l *lister) isProtocol(o operand) bool {
	return o.kind == payload && o.key == networkHeader && o.size == 1 &&
		(l.l3 == IPv4 && o.offset == 9 || l.l3 == IPv6 && o.offset == 6)
}

// lookup asks a set, or a map for a verdict. It reports whether it asks a map
// for a value, which is then in the register.
func (l *lister) lookup(e *expr) (loads bool) {
	set := l.setText(e.text(1), l.regs.concat(e.number(2)))
	s := l.key(e.number(2))
	switch {
	case e.has(3) && e.number(3) == regVerdict:
		l.match(s, "vmap "+set)
	case e.has(3): // the value of a map: for the statement that comes
		l.regs = registers{}
		l.regs.set(e.number(3), operand{kind: other, text: s.text + " map " + set, size: 4})
		return true
	case e.number(5)&1 != 0: // NFT_LOOKUP_F_INV
		l.match(s, "!= "+set)
	default:
		l.match(s, set)
	}
	return false
}

// key is the selector of a set's key, which may be several side by side.
func (l *lister) key(reg uint64) selector {
	list := l.regs.concat(reg)
	if len(list) == 0 {
		return selector{text: "[unknown]", format: hexText}
	}
	s := l.selector(list[0])
	l.implied(s)
	s.text += lookedUp(s, list[0])
	for _, o := range list[1:] {
		next := l.selector(o)
		l.implied(next)
		s.text += " . " + next.text + lookedUp(next, o)
	}
	return s
}

// lookedUp is what of an address is looked up.
func lookedUp(s selector, o operand) string {
	if o.mask == nil || !isAddr(s) {
		return ""
	}
	return " & " + s.format(o.mask) + " =="
}
