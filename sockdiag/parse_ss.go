package sockdiag

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ssSeen is what the lines of a socket of ss had.
type ssSeen struct {
	info  bool       // any word of -i
	parts InfoFields // the parts of TCPInfo it was of
	keys  bool       // a key of TCPInfo: no name of a congestion control follows
}

// ss reads a line of ss: Netid, if there is one, State Recv-Q Send-Q Local Peer
// and words with values.
func (p *lineParser) ss() {
	s := &p.line.Socket
	p.continues = true
	s.Fields = UnknownOwner | UnknownTimer
	named := false
	for proto, name := range protocolNames {
		if p.peek(0).text == name {
			s.Protocol, named = proto, true
		}
	}
	if named {
		p.next()
	}
	if t := p.peek(0); isNumber(t.text) {
		p.fail(t, "is no state: ss leaves it out when asked for one alone")
		return
	}
	s.State = p.state(p.next())
	if !named {
		s.Protocol = TCP
		if s.State == Close {
			s.Protocol = UDP
		}
	}
	recv, send := p.number(p.next(), 10, 32), p.number(p.next(), 10, 32)
	s.queues(uint32(recv), uint32(send))
	local := p.next()
	p.ends(local, p.next(), 0)
	p.ssWords()
}

// resume reads the second line of a socket.
func (p *lineParser) resume(q *lineParser, line string) {
	p.n, p.end = q.n, q.end
	p.words = split(p.users(line), 0)
	p.ssWords()
}

// users takes users:(("nginx",pid=1,fd=5),…) out of a line, leaving blanks.
func (p *lineParser) users(line string) string {
	const key = `users:(`
	start := strings.Index(line, key+`("`)
	if start < 0 {
		return line
	}
	at := start + len(key)
	for strings.HasPrefix(line[at:], `("`) {
		n := p.user(line[at:])
		if n == 0 {
			p.fail(lineWord{line[at:], at + 1}, "is no process")
			return line[:start]
		}
		at += n
		if strings.HasPrefix(line[at:], ",") {
			at++
		}
	}
	if !strings.HasPrefix(line[at:], ")") {
		p.fail(lineWord{line[at:], at + 1}, "want ) after the processes")
		return line[:start]
	}
	at++
	return line[:start] + strings.Repeat(" ", at-start) + line[at:]
}

// user reads ("nginx",pid=1,fd=5) or, as before iproute2 3.14, ("nginx",1,5),
// and returns its length, 0 for a fault. Between the two may stand what -Z
// shows.
func (p *lineParser) user(s string) int {
	quote := strings.Index(s[2:], `",`) + 2
	if quote < 2 {
		return 0
	}
	end := strings.IndexByte(s[quote:], ')')
	if end < 0 {
		return 0
	}
	f := strings.Split(s[quote+2:quote+end], ",")
	pid, err := strconv.ParseUint(strings.TrimPrefix(f[0], "pid="), 10, 31)
	fd, ferr := strconv.ParseUint(strings.TrimPrefix(f[len(f)-1], "fd="), 10, 31)
	if err != nil || ferr != nil || len(f) < 2 {
		return 0
	}
	u := TextProcess{Command: strings.Clone(s[2:quote]), PID: int(pid), FD: int(fd)}
	p.line.Processes = append(p.line.Processes, u)
	return quote + end + 1
}

// ssWords reads what follows the addresses. What it does not know is skipped.
func (p *lineParser) ssWords() {
	for len(p.words) > 0 {
		t := p.next()
		key, value, ok := strings.Cut(t.text, ":")
		v := lineWord{value, t.col + len(key) + 1}
		switch {
		case !ok:
			p.ssWord(t)
		case key == "inet-sockopt":
			p.ssOptions()
		case strings.HasPrefix(value, "("):
			p.ssGroup(key, lineWord{strings.TrimSuffix(value[1:], ")"), v.col + 1})
		case !p.ssDetail(key, v) && p.line.Protocol == TCP:
			p.infoValue(key, v)
		}
	}
}

// ssOptions reads what follows "inet-sockopt:", "( is_icsk mc_loop)".
func (p *lineParser) ssOptions() {
	for last := false; !last && len(p.words) > 0; {
		word := strings.TrimPrefix(p.next().text, "(")
		word, last = strings.CutSuffix(word, ")")
		if i := slices.Index(optionNames[:], word); i >= 0 {
			p.line.Options |= 1 << i
		}
	}
	p.line.Fields |= FieldOptions
}

// optionNames are the words of ss --inet-sockopt for the bits of Options.
var optionNames = [...]string{
	"recverr", "is_icsk", "freebind", "hdrincl", "mc_loop", "transparent", "mc_all", "nodefrag",
	"bind_addr_no_port", "recverr_rfc4884", "defer_connect",
}

// ssGroup reads a key with values in brackets.
func (p *lineParser) ssGroup(key string, v lineWord) {
	switch key {
	case "timer":
		p.ssTimer(v)
	case "skmem":
		p.ssMemory(v)
	case "bbr", "dctcp":
		p.congestionView(key, v)
	}
}

// ssDetail reads what ss -e and --tos show, and reports whether it was that.
func (p *lineParser) ssDetail(key string, v lineWord) bool {
	s := &p.line.Socket
	switch key {
	case "uid":
		s.UID = uint32(p.number(v, 10, 32))
	case "ino":
		s.Inode = uint32(p.number(v, 10, 32))
		s.Fields &^= UnknownOwner
	case "sk":
		s.Cookie = p.number(v, 16, 64)
	case "fwmark":
		s.Mark, s.Fields = uint32(p.number(v, 0, 32)), s.Fields|FieldMark
	case "v6only":
		s.V6Only, s.Fields = p.number(v, 10, 1) != 0, s.Fields|FieldV6Only
	case "tos":
		s.TOS, s.Fields = uint8(p.number(v, 0, 8)), s.Fields|FieldTOS
	case "tclass":
		s.TClass, s.Fields = uint8(p.number(v, 0, 8)), s.Fields|FieldTClass
	case "class_id":
		s.ClassID, s.Fields = uint32(p.number(v, 0, 32)), s.Fields|FieldClassID
	case "cgroup":
		p.ssCgroup(v)
	default:
		return false
	}
	return true
}

// ssCgroup reads a path, or "unreachable:1f", the ID of a cgroup that is gone.
func (p *lineParser) ssCgroup(v lineWord) {
	id, ok := strings.CutPrefix(v.text, "unreachable:")
	if !ok {
		p.line.Cgroup = strings.Clone(v.text)
		return
	}
	s := &p.line.Socket
	s.CgroupID = p.number(lineWord{id, v.col + len("unreachable:")}, 16, 64)
	s.Fields |= FieldCgroup
}

// ssTimer reads (keepalive,1min30sec,0).
func (p *lineParser) ssTimer(v lineWord) {
	f := strings.Split(v.text, ",")
	if len(f) != 3 {
		p.fail(v, "is no timer")
		return
	}
	s := &p.line.Socket
	for i, name := range timerNames {
		if f[0] == name {
			s.Timer, s.Fields = Timer(i), s.Fields&^UnknownTimer
		}
	}
	if s.Has(UnknownTimer) { // "unknown", or a later one
		return
	}
	var ok bool
	if s.Expires, ok = ssDuration(f[1]); !ok {
		p.fail(lineWord{f[1], v.col + len(f[0]) + 1}, "is no time")
	}
	s.Retransmits = uint8(p.number(lineWord{f[2], v.col + len(v.text) - len(f[2])}, 10, 8))
}

// ssDuration reads 1min30sec, 1.204ms (which is more than a second), 204ms and
// nothing (print_ms_timer).
func ssDuration(s string) (d time.Duration, ok bool) {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"min", time.Minute}, {"sec", time.Second}, {".", time.Second}, {"ms", time.Millisecond}} {
		number, rest, found := strings.Cut(s, u.name)
		if !found || u.name == "ms" && rest != "" {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return 0, false
		}
		d, s = d+time.Duration(n)*u.unit, rest
	}
	return d, s == ""
}

// ssMemory reads (r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0). Older versions end
// with o or bl.
func (p *lineParser) ssMemory(v lineWord) {
	m := &p.line.Memory
	into := map[string]*uint32{
		"r": &m.RcvAlloc, "rb": &m.RcvBuf, "t": &m.SndAlloc, "tb": &m.SndBuf, "f": &m.FwdAlloc,
		"w": &m.SndQueued, "o": &m.OptMem, "bl": &m.RcvBacklog, "d": &m.Drops,
	}
	for f := range strings.SplitSeq(v.text, ",") {
		i := strings.IndexAny(f, "0123456789")
		if i < 0 || into[f[:i]] == nil {
			p.fail(v, "is no memory of a socket")
			return
		}
		*into[f[:i]] = uint32(p.number(lineWord{f[i:], v.col}, 10, 32))
	}
	p.line.Fields |= FieldMemory
}

// finishSS fills in what ss leaves out.
func (p *lineParser) finishSS() {
	s := &p.line.Socket
	if !p.seen.info || s.Protocol != TCP {
		return
	}
	i := &s.Info
	s.Fields |= FieldInfo
	i.State, i.Fields = s.State, InfoBase
	for part := InfoBase; part <= p.seen.parts; part <<= 1 { // struct tcp_info grows at its end
		i.Fields |= part
	}
	if i.SndSsthresh == 0 {
		i.SndSsthresh = InfiniteSsthresh
	}
	if i.Reordering == 0 {
		i.Reordering = usualReordering
	}
	if i.Has(InfoPacing) && i.PacingRate == 0 {
		i.PacingRate = math.MaxUint64
	}
	if i.Has(InfoPacing) && i.MaxPacingRate == 0 {
		i.MaxPacingRate = math.MaxUint64
	}
	if s.State == Listen {
		i.Unacked, i.Sacked = 0, 0 // the accept queue and the backlog
	}
}

// usualReordering is tcp_reordering's default, which ss leaves out.
const usualReordering = 3
