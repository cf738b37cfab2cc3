// Package nfnltest is a fake netlink peer for tests: a Conn whose kernel is a
// function.
package nfnltest

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Request is one message the code under test sent.
type Request struct {
	Type, Flags uint16
	Seq         uint32
	Data        []byte
}

// Handler answers a request with datagrams. A nil datagram stands for a
// receive that fails with ErrOverrun.
type Handler func(Request) [][]byte

// Peer is the fake kernel.
type Peer struct {
	handle Handler

	crowded atomic.Bool

	mu    sync.Mutex
	socks []*socket
}

// Dial returns a Conn that talks to a new Peer.
func Dial(h Handler) (*nfnl.Conn, *Peer) {
	p := &Peer{handle: h}
	c, err := nfnl.NewConn(p.open)
	if err != nil {
		panic(err) // open does not fail
	}
	return c, p
}

// Crowd makes the sockets tell how many datagrams wait in them.
func (p *Peer) Crowd() { p.crowded.Store(true) }

// Sockets returns how many sockets were opened so far.
func (p *Peer) Sockets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.socks)
}

// Multicast queues datagrams on every socket that has joined a group.
func (p *Peer) Multicast(group uint32, datagrams ...[]byte) {
	p.mu.Lock()
	socks := p.socks
	p.mu.Unlock()
	for _, s := range socks {
		if s.member(group) {
			s.queue(datagrams)
		}
	}
}

func (p *Peer) open() (nfnl.Socket, error) {
	s := &socket{peer: p, groups: make(map[uint32]bool)}
	s.wake = sync.NewCond(&s.mu)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socks = append(p.socks, s)
	return s, nil
}

type socket struct {
	peer *Peer

	mu       sync.Mutex
	wake     *sync.Cond
	in       [][]byte
	groups   map[uint32]bool
	drops    uint32
	deadline time.Time
	closed   bool
}

func (s *socket) queue(datagrams [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = append(s.in, datagrams...)
	s.wake.Broadcast()
}

func (s *socket) member(group uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[group]
}

func (s *socket) Send(b []byte) error {
	for len(b) >= 16 {
		n := binary.NativeEndian.Uint32(b)
		s.queue(s.peer.handle(Request{
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Data:  append([]byte(nil), b[16:n]...),
		}))
		b = b[(n+3)&^3:]
	}
	return nil
}

func (s *socket) Receive(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.in) == 0 {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case !s.deadline.IsZero():
			return 0, os.ErrDeadlineExceeded
		}
		s.wake.Wait()
	}
	d := s.in[0]
	s.in = s.in[1:]
	if d == nil {
		s.drops++
		return 0, nfnl.ErrOverrun
	}
	copy(b, d)
	return len(d), nil
}

// ReceiveMany receives one.
func (s *socket) ReceiveMany(b []byte, lens []int) (n int, err error) {
	lens[0], err = s.Receive(b[:len(b)/len(lens)])
	return 1, err
}

// SetReadDeadline knows only deadlines that are past.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.wake.Broadcast()
	return nil
}

func (s *socket) SetReadBuffer(int) error { return nil }

func (s *socket) Join(group uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[group] = true
	return nil
}

// Memory takes the buffer for empty, so that an overrun is told where it is
// queued, unless Peer.Crowd says otherwise.
func (s *socket) Memory() (taken, drops uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peer.crowded.Load() {
		taken = uint32(len(s.in))
	}
	return taken, s.drops, nil
}

// SetFilter keeps nothing from the program: the fake kernel sends all.
func (s *socket) SetFilter([]nfnl.Instruction) error { return nil }

func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake.Broadcast()
	return nil
}

// Message frames one message.
func Message(typ, flags uint16, seq uint32, data []byte) []byte {
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Done frames the end of a dump; errno 0 is success.
func Done(seq uint32, errno syscall.Errno) []byte {
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return Message(3, nfnl.Multi, seq, data)
}

// Acknowledge frames an NLMSG_ERROR as a kernel with NETLINK_CAP_ACK and
// NETLINK_EXT_ACK sends it; errno 0 is an acknowledgement.
func Acknowledge(r Request, errno syscall.Errno, text string, offset uint32) []byte {
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	data = append(data, Message(r.Type, r.Flags, r.Seq, nil)...)
	ext := nfnl.NewBuilder(0, 0)
	if text != "" {
		ext.String(1, text)
	}
	if offset != 0 {
		ext.HostU32(2, offset)
	}
	return Message(2, 0x100|0x200, r.Seq, append(data, ext.Message().Data...))
}
