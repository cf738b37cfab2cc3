package conntrack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ParseError is a line that is not a conntrack entry.
type ParseError struct {
	Line   int    // from 1; 0 from ParseFlow
	Column int    // in bytes, from 1: where the fault begins
	Token  string // what stands there; empty at the end of the line
	Msg    string // what is wrong with it
}

func (e *ParseError) Error() string {
	where := fmt.Sprintf("column %d", e.Column)
	if e.Line > 0 {
		where = fmt.Sprintf("line %d, %s", e.Line, where)
	}
	if e.Token == "" {
		return fmt.Sprintf("conntrack: %s: %s", where, e.Msg)
	}
	return fmt.Sprintf("conntrack: %s: %q: %s", where, e.Token, e.Msg)
}

// maxLine bytes are the most a line may have.
const maxLine = 64 << 10

// ReadFlows reads the lines of /proc/net/nf_conntrack, of the older
// /proc/net/ip_conntrack, and of conntrack -L (default, extended, id). Empty
// lines are skipped. A line that is none of these yields a *ParseError, and
// reading goes on with the next; any other error is the last.
func ReadFlows(r io.Reader) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		n := 0
		for lines.Scan() {
			n++
			line := lines.Text()
			if strings.TrimSpace(line) == "" {
				continue
			}
			f, err := ParseFlow(line)
			if perr, ok := errors.AsType[*ParseError](err); ok {
				perr.Line = n
			}
			if !yield(f, err) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Flow{}, fmt.Errorf("conntrack: line %d: %w", n+1, err))
		}
	}
}

// ParseFlow reads one line, as ReadFlows does. Keys and bracketed words it does
// not know are skipped: new kernels add them. The error is a *ParseError, and
// the Flow then the zero Flow.
func ParseFlow(line string) (Flow, error) {
	p := parser{line: line}
	p.next()
	p.head()
	for p.err == nil && p.tok != "" {
		p.item()
		p.next()
	}
	p.finish()
	if p.err != nil {
		return Flow{}, p.err
	}
	return p.flow, nil
}

// parser reads a line token by token: words, and bracketed groups of words.
type parser struct {
	line string
	tok  string // the current token; empty at the end
	at   int    // where it begins
	end  int    // where it ends

	flow      Flow
	family    string  // "ipv4", "ipv6", or empty
	tuple     int     // 0 original, 1 reply; -1 before the first src=
	seen      [2]keys // keys met of each tuple
	unreplied bool
	err       *ParseError
}

// keys is a set of the keys of a tuple.
type keys uint8

const (
	keySrc keys = 1 << iota
	keyDst
	keySrcPort
	keyDstPort
	keyType
	keyCode
	keyID
)

func (p *parser) fail(msg string) {
	if p.err == nil {
		p.err = &ParseError{Column: p.at + 1, Token: p.tok, Msg: msg}
	}
}

func (p *parser) next() {
	p.at = p.end
	for p.at < len(p.line) && isSpace(p.line[p.at]) {
		p.at++
	}
	p.end = p.at
	inBracket := false
	for p.end < len(p.line) && (inBracket || !isSpace(p.line[p.end])) {
		inBracket = p.line[p.at] == '[' && p.line[p.end] != ']'
		p.end++
	}
	p.tok = p.line[p.at:p.end]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// head reads what stands before the first tuple: family, protocol, timeout,
// state.
func (p *parser) head() {
	p.tuple = -1
	if p.tok == "ipv4" || p.tok == "ipv6" {
		p.family = p.tok
		p.next()
		p.number(8)
		p.next()
	}
	name := p.tok
	p.next()
	p.flow.Original.Proto = Proto(p.number(8))
	p.flow.Reply.Proto = p.flow.Original.Proto
	if want := p.flow.Original.Proto.name(); p.err == nil && name != want && want != "unknown" {
		p.fail(fmt.Sprintf("is %s, but the protocol was named %q", want, name))
	}
	p.next()
	if p.tok != "" && p.tok[0] >= '0' && p.tok[0] <= '9' {
		p.flow.Timeout = time.Duration(p.number(32)) * time.Second
		p.flow.Fields |= FieldTimeout
		p.next()
	}
	p.state()
}

// state reads the word of a protocol that has one. SCTP's and DCCP's are
// skipped.
func (p *parser) state() {
	if p.tok == "" || p.tok[0] == '[' || strings.Contains(p.tok, "=") {
		return
	}
	if p.flow.Original.Proto == ProtoTCP {
		s, ok := ParseTCPState(p.tok)
		if !ok {
			p.fail("not a TCP state of conntrack")
		}
		p.flow.TCP.State = s
		p.flow.Fields |= FieldTCP
	}
	p.next()
}

func (p *parser) number(bits int) uint64 {
	return p.parse(p.tok, bits)
}

func (p *parser) parse(s string, bits int) uint64 {
	base := 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = hex, 16
	}
	n, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		p.fail(fmt.Sprintf("want a number of %d bits", bits))
	}
	return n
}

// item reads one key=value or [WORD].
func (p *parser) item() {
	switch p.tok {
	case "[UNREPLIED]":
		p.unreplied = true
	case "[ASSURED]":
		p.flow.Status |= Assured
	case "[OFFLOAD]":
		p.flow.Status |= Offload
	case "[HW_OFFLOAD]":
		p.flow.Status |= Offload | HWOffload
	default:
		key, value, ok := strings.Cut(p.tok, "=")
		switch {
		case ok && !p.tupleKey(key, value):
			p.flowKey(key, value)
		case !ok && p.tok[0] != '[':
			p.fail("want key=value or a word in brackets")
		}
	}
}

// tupleKey reads a key of the current tuple and reports whether it was one.
func (p *parser) tupleKey(key, value string) bool {
	if key == "src" && p.tuple < 1 {
		p.tuple++
	}
	if p.tuple < 0 {
		return false
	}
	t := &p.flow.Original
	if p.tuple == 1 {
		t = &p.flow.Reply
	}
	k, icmp := keys(0), t.Proto == ProtoICMP || t.Proto == ProtoICMPv6
	switch {
	case key == "src":
		k, t.Src = keySrc, p.addr(value)
	case key == "dst":
		k, t.Dst = keyDst, p.addr(value)
	case key == "sport", key == "srckey":
		k, t.SrcPort = keySrcPort, uint16(p.parse(value, 16))
	case key == "dport", key == "dstkey":
		k, t.DstPort = keyDstPort, uint16(p.parse(value, 16))
	case key == "type" && icmp:
		k, t.ICMPType = keyType, uint8(p.parse(value, 8))
	case key == "code" && icmp:
		k, t.ICMPCode = keyCode, uint8(p.parse(value, 8))
	case key == "id" && icmp && p.seen[p.tuple]&keyID == 0:
		k, t.ICMPID = keyID, uint16(p.parse(value, 16))
	default:
		return false
	}
	if p.seen[p.tuple]&k != 0 {
		p.fail("comes twice in one tuple")
	}
	p.seen[p.tuple] |= k
	return true
}

func (p *parser) addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		p.fail("want an IP address")
	}
	return a
}

// flowKey reads a key of the flow itself.
func (p *parser) flowKey(key, value string) {
	f, counter := &p.flow, &p.flow.OriginalCounter
	if p.tuple == 1 {
		counter = &f.ReplyCounter
	}
	set := func(v *uint32, field Fields) { *v, f.Fields = uint32(p.parse(value, 32)), f.Fields|field }
	switch key {
	case "packets":
		counter.Packets, f.Fields = p.parse(value, 64), f.Fields|FieldCounters
	case "bytes":
		counter.Bytes, f.Fields = p.parse(value, 64), f.Fields|FieldCounters
	case "mark":
		set(&f.Mark, FieldMark)
	case "secmark":
		set(&f.Secmark, FieldSecmark)
	case "use":
		set(&f.Use, FieldUse)
	case "id":
		set(&f.ID, FieldID)
	case "zone":
		f.Zone, f.Fields = uint16(p.parse(value, 16)), f.Fields|FieldZone
	case "zone-orig":
		f.OriginalZone = uint16(p.parse(value, 16))
	case "zone-reply":
		f.ReplyZone = uint16(p.parse(value, 16))
	}
}

// finish checks that both tuples are whole and of one family.
func (p *parser) finish() {
	f := &p.flow
	f.Fields |= FieldStatus
	if !p.unreplied {
		f.Status |= SeenReply
	}
	want := keySrc | keyDst
	switch proto := f.Original.Proto; {
	case proto == ProtoICMP || proto == ProtoICMPv6:
		want |= keyType | keyCode | keyID
	case f.Original.hasPorts():
		want |= keySrcPort | keyDstPort
	}
	is4 := f.Original.Src.Is4()
	for i, t := range []*Tuple{&f.Original, &f.Reply} {
		switch {
		case p.seen[i] != want:
			p.fail([2]string{"the original", "the reply"}[i] + " tuple is not whole, or has keys of another protocol")
		case t.Src.Is4() != is4 || t.Dst.Is4() != is4:
			p.fail("the addresses are of different families")
		case p.family != "" && (p.family == "ipv4") != is4:
			p.fail("the addresses are not " + p.family)
		}
	}
}
