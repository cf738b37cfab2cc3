package sockdiag

import (
	"strconv"
	"strings"
	"time"
)

// netstatProtocols are the words in the column Proto.
var netstatProtocols = map[string]struct {
	proto  Protocol
	family Family
}{
	"tcp": {TCP, IPv4}, "tcp6": {TCP, IPv6}, "udp": {UDP, IPv4}, "udp6": {UDP, IPv6},
	"udpl": {UDPLite, IPv4}, "udpl6": {UDPLite, IPv6}, "raw": {Raw, IPv4}, "raw6": {Raw, IPv6},
}

// netstat reads a line of netstat: Proto Recv-Q Send-Q Local Foreign State,
// User Inode (-e), PID/Program name (-p), Timer (-o).
func (p *lineParser) netstat(r *textReader) {
	s := &p.line.Socket
	name := netstatProtocols[p.next().text]
	s.Protocol, s.Fields = name.proto, UnknownOwner|UnknownTimer
	recv, send := p.number(p.next(), 10, 32), p.number(p.next(), 10, 32)
	local, remote := p.next(), p.next()
	p.whole(r, local, remote)
	p.ends(local, remote, name.family)
	p.netstatState()
	s.queues(uint32(recv), uint32(send))
	if s.State == Listen {
		s.Backlog, s.Fields = 0, s.Fields|UnknownBacklog
	}
	p.netstatTimer()
	p.netstatOwner()
	if len(p.words) > 0 {
		p.netstatProcess()
	}
}

// cutLen is the length of what netstat has cut: 22 and the colon
// (addr_do_one). A cut address of IPv6 can pass for a whole one.
const cutLen = 23

// whole refuses addresses that may have been cut, until one is longer.
func (p *lineParser) whole(r *textReader, addrs ...lineWord) {
	for _, t := range addrs {
		r.wide = r.wide || len(t.text) > cutLen
	}
	for _, t := range addrs {
		if len(t.text) == cutLen && !r.wide {
			p.fail(t, "may be cut short (netstat -W)")
		}
	}
}

// netstatState reads the state: of TCP always a word, of raw sockets always a
// number, of others a word or nothing.
func (p *lineParser) netstatState() {
	s := &p.line.Socket
	t := p.peek(0)
	switch s.Protocol {
	case TCP:
		s.State = p.state(p.next())
	case Raw:
		s.State = State(p.number(p.next(), 10, 8))
		if s.State != Established && s.State != Close {
			p.fail(t, "is no state of a raw socket")
		}
	default:
		s.State = Close
		if state, err := ParseState(t.text); err == nil {
			s.State = state
			p.next()
		}
	}
}

// netstatTimer reads "keepalive (7199.99/0/0)" at the end: the seconds left,
// retransmissions and probes.
func (p *lineParser) netstatTimer() {
	n := len(p.words)
	if n < 2 {
		return
	}
	value, ok := strings.CutPrefix(p.words[n-1].text, "(")
	timer, known := netstatTimers[p.words[n-2].text]
	if !ok || !known {
		return
	}
	t := p.words[n-1]
	p.words = p.words[:n-2]
	f := strings.Split(strings.TrimSuffix(value, ")"), "/")
	if len(f) != 3 {
		p.fail(t, "is no timer's value")
		return
	}
	s := &p.line.Socket
	left, err := strconv.ParseFloat(f[0], 64)
	if err != nil || left >= 1<<31 {
		p.fail(t, "is no timer's value")
	}
	count := f[1]
	if timer == TimerKeepalive || timer == TimerProbe {
		count = f[2]
	}
	s.Timer, s.Fields = timer, s.Fields&^UnknownTimer
	s.Expires = max(0, time.Duration(left*100+0.5)*10*time.Millisecond)
	s.Retransmits = uint8(p.number(lineWord{count, t.col}, 10, 8))
}

var netstatTimers = map[string]Timer{
	"off": TimerOff, "on": TimerOn, "keepalive": TimerKeepalive, "timewait": TimerTimeWait,
	"probe": TimerProbe, "unkn-4": TimerProbe, // of net-tools before 2017
}

func (p *lineParser) netstatOwner() {
	s := &p.line.Socket
	if !isNumber(p.peek(1).text) {
		return
	}
	user := p.next()
	if !isNumber(user.text) {
		p.fail(user, "is no user's number (netstat -n)")
	}
	s.UID, s.Inode = uint32(p.number(user, 10, 32)), uint32(p.number(p.next(), 10, 32))
	s.Fields &^= UnknownOwner
}

// netstatProcess reads PID/Program name, which may have blanks, or "-".
func (p *lineParser) netstatProcess() {
	t := p.next()
	if t.text == "-" && len(p.words) == 0 {
		return
	}
	pid, name, ok := strings.Cut(t.text, "/")
	for _, w := range p.words {
		name += " " + w.text
	}
	n, err := strconv.Atoi(pid)
	if !ok || err != nil || n < 0 {
		p.fail(t, "is no process")
		return
	}
	p.line.Processes = []TextProcess{{Command: name, PID: n, FD: -1}}
}
