package conntrack

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// AppendText appends e as conntrack -L expect writes it, without a line end;
// ReadExpectations reads it back. What that form does not have is left out: ID,
// NAT, Function, and the protocol of the master. The error is always nil.
func (e Expectation) AppendText(b []byte) ([]byte, error) {
	b = strconv.AppendInt(b, int64(e.Timeout/time.Second), 10)
	b = append(appendKey(b, " proto=", uint64(e.Tuple.Proto), true), ' ')
	b = e.Tuple.append(b)
	b = e.Mask.appendNamed(b, "mask-")
	b = e.Master.appendNamed(b, "master-")
	b = appendKey(b, " zone=", uint64(e.Zone), e.Has(ExpectFieldZone))
	if e.Flags&expectFlagsNamed != 0 {
		b = append(append(b, ' '), e.Flags.String()...)
	}
	b = appendKey(b, " class=", uint64(e.Class), e.Has(ExpectFieldClass))
	if e.Helper != "" {
		b = append(append(b, " helper="...), e.Helper...)
	}
	return b, nil
}

// String returns e as AppendText writes it.
func (e Expectation) String() string {
	b, _ := e.AppendText(nil)
	return string(b)
}

// appendNamed writes a tuple whose addresses have a prefix to their names.
func (t *Tuple) appendNamed(b []byte, prefix string) []byte {
	b = appendAddr(append(append(append(b, ' '), prefix...), "src="...), t.Src)
	b = appendAddr(append(append(append(b, ' '), prefix...), "dst="...), t.Dst)
	ports := t.hasPorts() || t.SrcPort|t.DstPort != 0 // read from text, it may lack the protocol
	b = appendKey(b, " sport=", uint64(t.SrcPort), ports)
	return appendKey(b, " dport=", uint64(t.DstPort), ports)
}

const expectFlagsNamed = ExpectPermanent | ExpectInactive | ExpectUserspace

var expectFlagNames = [...]string{"PERMANENT", "INACTIVE", "USERSPACE"}

// String returns the flags as conntrack -L expect writes them: joined by
// commas; empty for none.
func (f ExpectFlags) String() string {
	var names []string
	for i, name := range expectFlagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// ReadExpectations reads the lines of conntrack -L expect. Empty lines are
// skipped. Any other line yields a *ParseError, and reading goes on with the
// next; any other error is the last.
func ReadExpectations(r io.Reader) iter.Seq2[Expectation, error] {
	return func(yield func(Expectation, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		n := 0
		for lines.Scan() {
			n++
			if strings.TrimSpace(lines.Text()) == "" {
				continue
			}
			p := expectParser{line: lines.Text()}
			e, err := p.parse()
			if err != nil {
				err.Line = n
				if !yield(Expectation{}, err) {
					return
				}
			} else if !yield(e, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Expectation{}, fmt.Errorf("conntrack: line %d: %w", n+1, err))
		}
	}
}

// ParseExpectation reads one line, as ReadExpectations does. Keys it does not
// know are skipped. The line does not tell the protocol of the master: it is
// left 0. The error is a *ParseError, and the Expectation then the zero one.
func ParseExpectation(line string) (Expectation, error) {
	p := expectParser{line: line}
	e, err := p.parse()
	if err != nil {
		return Expectation{}, err
	}
	return e, nil
}

// expectParser reads a line word by word.
type expectParser struct {
	line    string
	tok     string // the current word; empty at the end
	at, end int    // where it begins and ends

	e    Expectation
	part int     // of tuple, mask and master the current one; -1 before
	seen [3]uint // keys met of each, by place in tupleKeys
	err  *ParseError
}

func (p *expectParser) next() {
	p.at = p.end
	for p.at < len(p.line) && isSpace(p.line[p.at]) {
		p.at++
	}
	p.end = p.at
	for p.end < len(p.line) && !isSpace(p.line[p.end]) {
		p.end++
	}
	p.tok = p.line[p.at:p.end]
}

func (p *expectParser) fail(msg string) {
	if p.err == nil {
		p.err = &ParseError{Column: p.at + 1, Token: p.tok, Msg: msg}
	}
}

func (p *expectParser) parse() (Expectation, *ParseError) {
	p.part = -1
	p.next()
	p.e.Timeout = time.Duration(p.number(p.tok, 32)) * time.Second
	p.e.Fields = ExpectFieldTimeout
	for p.next(); p.err == nil && p.tok != ""; p.next() {
		key, value, ok := strings.Cut(p.tok, "=")
		switch {
		case !ok:
			p.flags()
		case !p.tupleKey(key, value):
			p.key(key, value)
		}
	}
	p.finish()
	if p.err != nil {
		return Expectation{}, p.err
	}
	return p.e, nil
}

func (p *expectParser) number(s string, bits int) uint64 {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		p.fail(fmt.Sprintf("want a number of %d bits", bits))
	}
	return n
}

// flags reads the word of flags.
func (p *expectParser) flags() {
	for name := range strings.SplitSeq(p.tok, ",") {
		flag := ExpectFlags(0)
		for i, known := range expectFlagNames {
			if name == known {
				flag = 1 << i
			}
		}
		if flag == 0 {
			p.fail("want key=value or flags of an expectation")
		}
		p.e.Flags |= flag
	}
	p.e.Fields |= ExpectFieldFlags
}

// key reads a key of the expectation itself.
func (p *expectParser) key(key, value string) {
	switch key {
	case "proto":
		p.e.Tuple.Proto = Proto(p.number(value, 8))
		p.e.Mask.Proto = p.e.Tuple.Proto
	case "zone":
		p.e.Zone, p.e.Fields = uint16(p.number(value, 16)), p.e.Fields|ExpectFieldZone
	case "class":
		p.e.Class, p.e.Fields = uint32(p.number(value, 32)), p.e.Fields|ExpectFieldClass
	case "helper":
		if len(value) > maxHelperName {
			p.fail(fmt.Sprintf("want a name of %d bytes at most", maxHelperName))
		}
		p.e.Helper = value
	}
}

// Bits of the keys of a tuple.
const (
	expectSrc = 1 << iota
	expectDst
	expectSrcPort
	expectDstPort
)

// tupleKey reads a key of a tuple and reports whether it was one. The ports
// belong to the addresses before them.
func (p *expectParser) tupleKey(key, value string) bool {
	name := key
	for i, prefix := range [...]string{"", "mask-", "master-"} {
		if short, ok := strings.CutPrefix(key, prefix); ok && (short == "src" || short == "dst") {
			p.part, name = i, short
		}
	}
	if p.part < 0 {
		return false
	}
	t, bit := [...]*Tuple{&p.e.Tuple, &p.e.Mask, &p.e.Master}[p.part], uint(0)
	switch name {
	case "src":
		bit, t.Src = expectSrc, p.addr(value)
	case "dst":
		bit, t.Dst = expectDst, p.addr(value)
	case "sport":
		bit, t.SrcPort = expectSrcPort, uint16(p.number(value, 16))
	case "dport":
		bit, t.DstPort = expectDstPort, uint16(p.number(value, 16))
	default:
		return false
	}
	if p.seen[p.part]&bit != 0 {
		p.fail("comes twice in one tuple")
	}
	p.seen[p.part] |= bit
	return true
}

func (p *expectParser) addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		p.fail("want an IP address")
	}
	return a
}

// finish checks that the tuples are whole and of one family.
func (p *expectParser) finish() {
	is4 := p.e.Tuple.Src.Is4()
	for i, t := range []*Tuple{&p.e.Tuple, &p.e.Mask, &p.e.Master} {
		switch name := [...]string{"expected tuple", "mask", "master"}[i]; {
		case p.seen[i]&(expectSrc|expectDst) != expectSrc|expectDst:
			p.fail("the " + name + " is not whole")
		case t.Src.Is4() != is4 || t.Dst.Is4() != is4:
			p.fail("the addresses are of different families")
		}
	}
}
