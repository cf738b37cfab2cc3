package sockdiag

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"
)

// isProcRow tells the rows of /proc/net: "  12: 0100007F:1F90 …".
func isProcRow(text string) bool {
	word, _, _ := strings.Cut(text, " ")
	number, ok := strings.CutSuffix(word, ":")
	return ok && isNumber(number)
}

// columns of UDP, UDPLite and raw sockets; TCP has 12 or 17.
const datagramColumns = 13

// proc reads a row of /proc/net/tcp (get_tcp4_sock and its like), udp, udplite
// or raw (udp4_seq_show, raw_sock_seq_show). Without a header, the number of
// columns tells TCP from the others.
func (p *lineParser) proc(proto Protocol) {
	s := &p.line.Socket
	datagram := len(p.words) == datagramColumns
	switch {
	case datagram && (proto == 0 || proto == TCP):
		proto = UDP
	case proto == 0:
		proto = TCP
	}
	s.Protocol = proto
	p.next() // sl
	p.procEnds()
	state := p.next()
	s.State = State(p.number(state, 16, 8))
	if s.State < Established || s.State > NewSynRecv {
		p.fail(state, "is no state")
	}
	p.procQueues(p.next())
	p.procTimer()
	p.procOwner()
	if datagram {
		p.words = p.words[2:] // ref, pointer
		p.line.Drops = uint32(p.number(p.next(), 10, 32))
	}
}

func (p *lineParser) procEnds() {
	s := &p.line.Socket
	local, remote := p.next(), p.next()
	s.Local, s.Family = p.hexAddr(local)
	var f Family
	if s.Remote, f = p.hexAddr(remote); f != s.Family {
		p.fail(remote, "is of another family")
	}
}

// hexAddr reads 0100007F:1F90: words of 32 bits in the order of the machine,
// which is taken for a little-endian one, and the port as a number.
func (p *lineParser) hexAddr(t lineWord) (netip.AddrPort, Family) {
	host, port, _ := strings.Cut(t.text, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 && len(b) != 16 || len(port) != 4 {
		p.fail(t, "is no address in hexadecimal")
		return netip.AddrPort{}, 0
	}
	for w := b; len(w) > 0; w = w[4:] {
		binary.BigEndian.PutUint32(w, binary.LittleEndian.Uint32(w))
	}
	a, _ := netip.AddrFromSlice(b)
	n := p.number(lineWord{port, t.col + len(host) + 1}, 16, 16)
	f := IPv6
	if len(b) == 4 {
		f = IPv4
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), f
}

// pair reads two numbers in hexadecimal.
func (p *lineParser) pair(t lineWord) (a, b uint64) {
	first, second, ok := strings.Cut(t.text, ":")
	if !ok {
		p.fail(t, "is no pair of numbers")
		return 0, 0
	}
	return p.number(lineWord{first, t.col}, 16, 64), p.number(lineWord{second, t.col + len(first) + 1}, 16, 64)
}

// procQueues reads tx_queue:rx_queue. A listener's rx_queue is its accept
// queue; its backlog is not told.
func (p *lineParser) procQueues(t lineWord) {
	s := &p.line.Socket
	tx, rx := p.pair(t)
	s.queues(uint32(rx), uint32(tx))
	if s.State == Listen {
		s.Backlog, s.Fields = 0, s.Fields|UnknownBacklog
	}
}

// procTimer reads tr:tm->when, in hundredths of a second (USER_HZ), retrnsmt
// and, after the uid, timeout, which is the number of probes.
func (p *lineParser) procTimer() {
	s := &p.line.Socket
	timer := p.next()
	kind, when := p.pair(timer)
	if kind > 255 {
		p.fail(timer, "is no timer")
	}
	s.Timer = Timer(kind)
	if when <= 1<<31 { // else overdue: kernels before Linux 3.11 subtract unchecked
		s.Expires = time.Duration(when) * 10 * time.Millisecond
	}
	s.Retransmits = uint8(p.number(p.next(), 16, 8))
}

// procOwner reads uid, timeout and inode.
func (p *lineParser) procOwner() {
	s := &p.line.Socket
	s.UID = uint32(p.number(p.next(), 10, 32))
	probes := p.number(p.next(), 10, 8)
	if s.Timer == TimerKeepalive || s.Timer == TimerProbe {
		s.Retransmits = uint8(probes)
	}
	s.Inode = uint32(p.number(p.next(), 10, 32))
}
