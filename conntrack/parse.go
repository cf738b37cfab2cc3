package conntrack

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParseFlow reads one line, as ReadFlows does. Keys and bracketed words it does
// not know are skipped: new kernels add them. The error is a *ParseError, and
// the Flow then the zero Flow.
func ParseFlow(line string) (Flow, error) {
	p := parser{line: line}
	p.next()
	if strings.HasPrefix(p.tok, "[") {
		p.fail("want an entry; events are for ReadEvents")
	}
	if err := p.entry(); err != nil {
		return Flow{}, err
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
	details   Details
	port      uint32  // of an event
	family    string  // "ipv4", "ipv6", or empty
	untracked bool    // named "unknown": its tuples have no ports
	tuple     int     // 0 original, 1 reply; -1 before the first src=
	seen      [2]keys // keys met of each tuple
	unreplied bool
	err       *ParseError
}

// entry reads what describes an entry: to the end of the line, from the
// current token on.
func (p *parser) entry() error {
	p.head()
	for p.err == nil && p.tok != "" {
		p.item()
		p.next()
	}
	p.finish()
	if p.err != nil {
		return p.err
	}
	return nil
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
	p.untracked = name == "unknown" // by this kernel, at least: Linux 6.16 has no tracker of DCCP
	if want := p.flow.Original.Proto.name(); p.err == nil && name != want && !p.untracked && want != "unknown" {
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

// state reads the word of a protocol that has one.
func (p *parser) state() {
	if p.tok == "" || p.tok[0] == '[' || strings.Contains(p.tok, "=") {
		return
	}
	f, ok := &p.flow, true
	switch f.Original.Proto {
	case ProtoTCP:
		f.TCP.State, ok = ParseTCPState(p.tok)
		f.Fields |= FieldTCP
	case ProtoSCTP:
		p.details.SCTP.State, ok = ParseSCTPState(p.tok)
		f.Fields |= FieldSCTP
	case ProtoDCCP:
		p.details.DCCP.State, ok = parseDCCPWord(p.tok)
		f.Fields |= FieldDCCP
	}
	if !ok {
		p.fail("not a " + strings.ToUpper(f.Original.Proto.name()) + " state of conntrack")
	}
	p.next()
}

// parseDCCPWord reads also what conntrack(8) prints of a DCCP connection: the
// word that SCTP has for the number of the state.
func parseDCCPWord(s string) (DCCPState, bool) {
	if state, ok := ParseDCCPState(s); ok {
		return state, true
	}
	state, ok := ParseSCTPState(s)
	return DCCPState(state), ok
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
	key, value, ok := strings.Cut(p.tok, "=")
	switch {
	case p.tok[0] == '[':
		p.bracket(key, value)
	case ok && !p.tupleKey(key, value) && !p.flowKey(key, value):
		p.detailKey(key, value)
	case !ok && p.tok == "labels": // none that has a name
	case !ok:
		p.fail("want key=value or a word in brackets")
	}
}

// bracket reads what stands in brackets.
func (p *parser) bracket(key, value string) {
	switch f := &p.flow; key {
	case "[UNREPLIED]":
		p.unreplied = true
	case "[ASSURED]":
		f.Status |= Assured
	case "[OFFLOAD]":
		f.Status |= Offload
	case "[HW_OFFLOAD]":
		f.Status |= Offload | HWOffload
	case "[start":
		f.Start, f.Fields = p.time(value), f.Fields|FieldStart
	case "[stop":
		f.Stop, f.Fields = p.time(value), f.Fields|FieldStop
	}
}

// time reads an instant as ctime(3) writes it, with the bracket behind it.
func (p *parser) time(s string) Timestamp {
	t, err := time.ParseInLocation(time.ANSIC+"]", s, time.Local)
	if err != nil || t.Unix() != Timestamp(t.UnixNano()).Time().Unix() {
		p.fail("want a time such as Mon Jan  2 15:04:05 2006")
		return 0
	}
	return Timestamp(t.UnixNano())
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

// flowKey reads a key of the flow itself and reports whether it was one.
func (p *parser) flowKey(key, value string) bool {
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
	default:
		return false
	}
	return true
}

// detailKey reads a key that few flows have, or only events.
func (p *parser) detailKey(key, value string) {
	switch f := &p.flow; key {
	case "helper":
		p.details.Helper, f.Fields = p.name(value), f.Fields|FieldHelper
	case "secctx":
		p.details.SecurityContext, f.Fields = p.name(value), f.Fields|FieldSecurityContext
	case "labels":
		if labels, err := parseLabels(value); err == nil { // else they are names, which it does not know
			p.details.Labels, f.Fields = labels, f.Fields|FieldLabels
		}
	case "portid":
		p.port = uint32(p.parse(value, 32))
	case "progname": // may have spaces and brackets, and is the last
		p.end = len(p.line)
	}
}

// name keeps a copy, not to hold the line by it.
func (p *parser) name(s string) string {
	if !utf8.ValidString(s) {
		p.fail("not UTF-8")
	}
	return strings.Clone(s)
}

// finish checks that both tuples are whole and of one family.
func (p *parser) finish() {
	f := &p.flow
	f.setDetails(p.details)
	f.Fields |= FieldStatus
	if !p.unreplied {
		f.Status |= SeenReply
	}
	want := keySrc | keyDst
	switch proto := f.Original.Proto; {
	case proto == ProtoICMP || proto == ProtoICMPv6:
		want |= keyType | keyCode | keyID
	case f.Original.hasPorts() && !p.untracked:
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
