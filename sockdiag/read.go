package sockdiag

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"strings"
)

// What a line of text does not tell is zero, and these say where zero would
// mean something else. Rows of the kernel never have them.
const (
	// UnknownOwner is that UID and Inode were not told: HasOwner then means
	// nothing.
	UnknownOwner Fields = 1 << (15 - iota)
	// UnknownTimer is that Timer, Expires and Retransmits were not told. ss
	// leaves out a timer that is off, so its lines never tell TimerOff.
	UnknownTimer
	// UnknownBacklog is that Backlog was not told: the kernel's text tables,
	// and so netstat(8), show only the AcceptQueue of a listener.
	UnknownBacklog
)

// Line is a socket and what only text has of it.
type Line struct {
	Socket
	// Processes have the socket open: users:(…) of ss -p, the
	// PID/Program name of netstat -p (one of them, with FD -1).
	Processes []TextProcess
	// Device is the name of the interface the socket is bound to, as ss
	// shows it: addr%eth0. Interface is 0, but for names like if7, by which
	// ss means an interface that it cannot name.
	Device string
	// Cgroup is the path below the mount of the v2 hierarchy (ss -e). Where
	// ss cannot find it, CgroupID is told instead.
	Cgroup string
	// Drops is how many packets were dropped (/proc/net/udp, raw and their
	// like). That of ss -m is in Memory.
	Drops uint32
}

// TextProcess is a process as a line of text names it.
type TextProcess struct {
	Command string // of at most 15 bytes by ss, and by netstat with its arguments, cut short
	PID     int
	FD      int // descriptor; -1 where the line has none
}

// ParseError is a line that is not of a socket.
type ParseError struct {
	Line   int    // from 1
	Column int    // in bytes, from 1: where the fault begins
	Token  string // what stands there; empty at the end of the line
	Msg    string // what is wrong with it
}

func (e *ParseError) Error() string {
	if e.Token == "" {
		return fmt.Sprintf("sockdiag: line %d, column %d: %s", e.Line, e.Column, e.Msg)
	}
	return fmt.Sprintf("sockdiag: line %d, column %d: %q: %s", e.Line, e.Column, e.Token, e.Msg)
}

// maxLine bytes are the most a line may have.
const maxLine = 64 << 10

// ReadSockets reads sockets from text as ReadLines does, and leaves out what
// only text has.
func ReadSockets(r io.Reader) iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		for l, err := range ReadLines(r) {
			if !yield(l.Socket, err) {
				return
			}
		}
	}
}

// ReadLines reads sockets from text, one format after the other as they come:
//
//   - /proc/net/tcp, udp, udplite, raw, and those of IPv6;
//   - netstat -n, with any of -t -u -U -w -a -p -e -o -W;
//   - ss -n, with any of -t -u -w -M -a -p -e -m -i -o -O -H --tos --inet-sockopt, each
//     socket on one line or its information on a second.
//
// Headers, empty lines and sockets that are not of the Internet are skipped,
// and so is what ss shows and Socket has no place for. A line that is none of
// these yields a *ParseError with the zero Line, and reading goes on with the
// next; any other error is the last.
//
// Text tells less than the kernel, and some of it in other words:
//
//   - What a line lacks is named by UnknownOwner, UnknownTimer and
//     UnknownBacklog; a Cookie of 0 is none.
//   - ss names no protocol when asked for one alone. A line is then TCP, or UDP
//     in state UNCONN: ask for two (ss -tu), and connected sockets of UDP are
//     told from those of TCP.
//   - *:80 is a socket of IPv6 that takes IPv4, as ss has written since
//     iproute2 4.16; before, it was one of IPv4.
//   - ss leaves out zeros and what it holds for usual, so that Info has the
//     parts up to the last that shows, a SndSsthresh of InfiniteSsthresh
//     above 65534, and rates without a limit. Times have six digits, and
//     those of timers fewer the longer they are.
//   - /proc/net/udplite looks like udp, and so do the raw6 and udp6 tables;
//     the lines "==> /proc/net/raw6 <==" of head(1) and tail(1) tell. Their
//     addresses are read as little-endian machines write them.
//   - netstat without -W cuts long addresses. An address of IPv6 that can have
//     been cut is an error.
func ReadLines(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		p := &textReader{}
		for lines.Scan() {
			if !p.scan(lines.Text(), yield) {
				return
			}
		}
		if !p.flush(yield) {
			return
		}
		if err := lines.Err(); err != nil {
			yield(Line{}, fmt.Errorf("sockdiag: line %d: %w", p.n+1, err))
		}
	}
}

// textReader knows what the lines before have told.
type textReader struct {
	n       int
	proto   Protocol // of the rows of /proc/net that follow; 0 is not told
	wide    bool     // netstat does not cut addresses
	pending *lineParser
}

// scan reads a line, and yields what the ones before made complete.
func (r *textReader) scan(line string, yield func(Line, error) bool) bool {
	r.n++
	text := strings.TrimSpace(line)
	if text == "" {
		return true
	}
	p := &lineParser{n: r.n, end: len(strings.TrimRight(line, " \t\r"))}
	if line[0] == ' ' || line[0] == '\t' {
		if r.pending != nil && !isProcRow(text) && !strings.HasPrefix(text, "sl ") {
			r.pending.resume(p, line)
			return true
		}
	}
	if !r.flush(yield) {
		return false
	}
	if r.skip(line, text) {
		return true
	}
	p.read(r, line)
	r.pending = p
	return p.continues || r.flush(yield)
}

// flush yields the line that waited for a second.
func (r *textReader) flush(yield func(Line, error) bool) bool {
	p := r.pending
	r.pending = nil
	switch {
	case p == nil:
		return true
	case p.err != nil:
		return yield(Line{}, p.err)
	}
	p.finish()
	return yield(p.line, nil)
}

// otherNames begin lines of sockets that are not of the Internet: Netid of ss,
// Proto of netstat.
var otherNames = map[string]bool{
	"nl": true, "p_raw": true, "p_dgr": true, "u_str": true, "u_dgr": true, "u_seq": true,
	"v_str": true, "v_dgr": true, "ti_st": true, "ti_rd": true, "ti_sq": true, "ti_dg": true, "xdp": true,
	"unix": true, "Proto": true, "Active": true, "State": true, "Netid": true, "Recv-Q": true,
}

// skip tells headers and sockets of other families, and learns from them.
func (r *textReader) skip(line, text string) bool {
	if name, ok := strings.CutPrefix(text, "==> "); ok {
		r.section(strings.TrimSuffix(name, " <=="))
		return true
	}
	if strings.HasPrefix(text, "sl ") {
		r.header(line)
		return true
	}
	word, _, _ := strings.Cut(text, " ")
	return otherNames[word]
}

// section takes the protocol from the name of a file.
func (r *textReader) section(path string) {
	name := strings.TrimSuffix(path[strings.LastIndexByte(path, '/')+1:], "6")
	r.proto = 0
	for p, n := range protocolNames {
		if n == name {
			r.proto = p
		}
	}
}

// header takes the protocol from the first line of a table. Only that of
// /proc/net/udp begins with three spaces (udp4_seq_show), and that of raw with
// two; the tables of IPv6 have one header for both.
func (r *textReader) header(line string) {
	switch {
	case r.proto != 0 && r.proto != TCP && strings.Contains(line, "drops"):
	case !strings.Contains(line, "ref"):
		r.proto = TCP
	case strings.Contains(line, "rem_address") && strings.HasPrefix(line, "  sl"):
		r.proto = Raw
	default:
		r.proto = UDP
	}
}
