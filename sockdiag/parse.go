package sockdiag

import (
	"net/netip"
	"strconv"
	"strings"
)

// lineWord is a word of a line.
type lineWord struct {
	text string
	col  int // in bytes, from 1
}

// lineParser reads the words of one socket. The first fault stays.
type lineParser struct {
	n, end  int // of the line: its number, and where it ends
	words   []lineWord
	line    Line
	details Details
	err     error
	// continues says that a second line may follow, and seen what the lines
	// of ss had.
	continues bool
	seen      ssSeen
}

// split makes words of s, which begins in the column after at.
func split(s string, at int) (words []lineWord) {
	start := -1
	for i := 0; i <= len(s); i++ {
		blank := i == len(s) || s[i] == ' ' || s[i] == '\t' || s[i] == '\r'
		switch {
		case blank && start >= 0:
			words, start = append(words, lineWord{s[start:i], at + start + 1}), -1
		case !blank && start < 0:
			start = i
		}
	}
	return words
}

func (p *lineParser) fail(t lineWord, msg string) {
	if p.err == nil {
		p.err = &ParseError{Line: p.n, Column: t.col, Token: t.text, Msg: msg}
	}
}

// peek returns a word ahead; that behind the last is empty.
func (p *lineParser) peek(ahead int) lineWord {
	if ahead < len(p.words) {
		return p.words[ahead]
	}
	return lineWord{"", p.end + 1}
}

func (p *lineParser) next() lineWord {
	t := p.peek(0)
	p.words = p.words[min(1, len(p.words)):]
	return t
}

func (p *lineParser) number(t lineWord, base, bits int) uint64 {
	n, err := strconv.ParseUint(t.text, base, bits)
	if err != nil {
		p.fail(t, "is no number of "+strconv.Itoa(bits)+" bits")
		return 0
	}
	return n
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// read finds out what kind of line it is.
func (p *lineParser) read(r *textReader, line string) {
	indented := line[0] == ' ' || line[0] == '\t'
	line = p.users(line)
	p.words = split(line, 0)
	first := p.peek(0)
	_, isNetstat := netstatProtocols[first.text]
	switch {
	case isProcRow(strings.TrimSpace(line)):
		p.proc(r.proto)
	case isNetstat && isNumber(p.peek(1).text):
		p.netstat(r)
	case indented:
		p.fail(first, "continues no socket's line")
	default:
		p.ss()
	}
}

// finish completes a line without a fault.
func (p *lineParser) finish() {
	s := &p.line.Socket
	if s.Protocol == Raw {
		s.RawProtocol, s.Fields = uint8(s.Local.Port()), s.Fields|FieldRawProtocol
	}
	if p.continues {
		p.finishSS()
	}
	s.setDetails(p.details)
}

// ends sets the addresses, which are of one family, 0 for that of the local
// one.
func (p *lineParser) ends(local, remote lineWord, f Family) {
	s := &p.line.Socket
	if f == 0 {
		f = IPv4
		if strings.Count(local.text, ":") > 1 || local.text[:min(1, len(local.text))] == "*" {
			f = IPv6
		}
	}
	s.Family = f
	s.Local = p.addr(local, f)
	device := p.line.Device
	s.Remote = p.addr(remote, f)
	p.line.Device = device
	if n, ok := strings.CutPrefix(device, "if"); ok && isNumber(n) { // ll_index_to_name
		s.Interface = uint32(p.number(lineWord{n, local.col}, 10, 32))
	}
}

// addr reads 192.0.2.1:80, [2001:db8::1]:80, 2001:db8::1:80,
// [fe80::1]%eth0:80, *:80 and 0.0.0.0:*. The device goes to the line.
func (p *lineParser) addr(t lineWord, f Family) netip.AddrPort {
	i := strings.LastIndexByte(t.text, ':')
	if i < 0 {
		p.fail(t, "is no address and port")
		return netip.AddrPort{}
	}
	port := p.port(t, t.text[i+1:])
	host, device, _ := strings.Cut(t.text[:i], "%")
	p.line.Device = strings.TrimSuffix(device, "]")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "*" && f == IPv4 {
		host = "0.0.0.0"
	} else if host == "*" {
		host = "::"
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		p.fail(t, "is no address: a name, or cut short (ss -n, netstat -nW)")
	case f == IPv4 && !a.Is4():
		p.fail(t, "is no address of IPv4")
	}
	return netip.AddrPortFrom(a.Unmap(), port)
}

func (p *lineParser) port(t lineWord, s string) uint16 {
	if s == "*" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		p.fail(t, "its port is no number (ss -n, netstat -n)")
	}
	return uint16(n)
}

// state reads a TCP state in the words of ss or netstat, or as State writes
// one without a word.
func (p *lineParser) state(t lineWord) State {
	s, err := ParseState(t.text)
	if err != nil {
		p.fail(t, "is no state")
	}
	return s
}
