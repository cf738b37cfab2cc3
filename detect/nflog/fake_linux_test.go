package nflog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	gonflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// wire is a fake of the kernel's end of the socket: it acknowledges requests,
// in the way of refuse, and delivers datagrams.
type wire struct {
	datagrams chan []netlink.Message
	failures  chan error
	closed    chan struct{}
	once      sync.Once

	mu       sync.Mutex
	requests []netlink.Message

	// refuse is the errno of the answer to request i, from 0 on. before is a
	// datagram that comes ahead of the answer.
	refuse func(i int) syscall.Errno
	before func(i int) []netlink.Message
}

func newWire() *wire {
	return &wire{
		datagrams: make(chan []netlink.Message, 64),
		failures:  make(chan error, 64),
		closed:    make(chan struct{}),
	}
}

func (w *wire) Send(m netlink.Message) (netlink.Message, error) {
	select {
	case <-w.closed:
		return m, net.ErrClosed
	default:
	}
	w.mu.Lock()
	i := len(w.requests)
	w.requests = append(w.requests, m)
	w.mu.Unlock()
	if w.before != nil {
		if b := w.before(i); b != nil {
			w.datagrams <- b
		}
	}
	answer := make([]byte, 4+16) // struct nlmsgerr
	if w.refuse != nil {
		binary.NativeEndian.PutUint32(answer, uint32(-int32(w.refuse(i))))
	}
	w.datagrams <- []netlink.Message{{
		Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence}, Data: answer,
	}}
	return m, nil
}

func (w *wire) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		select {
		case ms := <-w.datagrams:
			for _, m := range ms {
				var err error
				if m.Header.Type == netlink.Error && !bytes.Equal(m.Data[:4], make([]byte, 4)) {
					errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
					m, err = netlink.Message{}, &netlink.OpError{Op: "receive", Err: errno}
				}
				if !yield(m, err) {
					return
				}
			}
		case err := <-w.failures:
			yield(netlink.Message{}, err)
		case <-w.closed:
			yield(netlink.Message{}, os.ErrClosed)
		}
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// sent returns the requests of go-nflog so far.
func (w *wire) sent() []netlink.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// overrun is what a receive returns when the kernel has dropped packets.
func (w *wire) overrun() {
	w.failures <- &netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmsg", unix.ENOBUFS)}
}

// readers runs a test over both ways to read.
func readers(t *testing.T, test func(t *testing.T, goNflog bool)) {
	t.Helper()
	for name, goNflog := range map[string]bool{"own": false, "go-nflog": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, goNflog)
		})
	}
}

// listenOn is Listen with w for the kernel. Without Groups it is group 0.
func listenOn(t testing.TB, w *wire, cfg Config) (*Reader, error) {
	t.Helper()
	if cfg.Groups == nil {
		cfg.Groups = []uint16{0}
	}
	c := cfg.withDefaults()
	r := &Reader{}
	var err error
	if c.GoNflog {
		r.source, err = goNflogOn(t, w, &c, r)
	} else {
		r.source, err = ownOn(w, &c, r)
	}
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return r, nil
}

func goNflogOn(t testing.TB, w *wire, cfg *Config, r *Reader) (source, error) {
	t.Helper()
	n := newGoNflog(r)
	for _, g := range cfg.Groups {
		nl, err := open(cfg, g) // go-nflog cannot be had without a socket; it is not used
		if err != nil {
			t.Skipf("netlink sockets are not allowed here: %v", err)
		}
		if err := nl.Con.Close(); err != nil {
			t.Fatal(err)
		}
		if err := n.register(nl, w, cfg, g); err != nil {
			return nil, fmt.Errorf("group %d: %w", g, err)
		}
	}
	return n, nil
}

func ownOn(w *wire, cfg *Config, r *Reader) (source, error) {
	conn, err := nfnl.NewConn(func() (nfnl.Socket, error) {
		return &wireSocket{wire: w, expired: make(chan struct{})}, nil
	})
	if err != nil {
		return nil, err
	}
	o, err := bindOwn(conn, cfg, r)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return o, nil
}

// wireSocket is a wire as this project's own reader sees it.
type wireSocket struct {
	*wire

	mu      sync.Mutex
	expired chan struct{} // closed when the deadline is past
}

func (s *wireSocket) Send(b []byte) error {
	h := netlink.Header{
		Length: binary.NativeEndian.Uint32(b), Type: netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
		Flags: netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])), Sequence: binary.NativeEndian.Uint32(b[8:]),
	}
	_, err := s.wire.Send(netlink.Message{Header: h, Data: b[16:h.Length]})
	return err
}

func (s *wireSocket) Receive(b []byte) (int, error) {
	s.mu.Lock()
	expired := s.expired
	s.mu.Unlock()
	select {
	case ms := <-s.datagrams:
		return copy(b, datagram(ms)), nil
	case err := <-s.failures:
		if errors.Is(err, unix.ENOBUFS) {
			err = nfnl.ErrOverrun
		}
		return 0, err
	case <-s.closed:
		return 0, net.ErrClosed
	case <-expired:
		return 0, os.ErrDeadlineExceeded
	}
}

// datagram is what the kernel sends for ms.
func datagram(ms []netlink.Message) (b []byte) {
	for _, m := range ms {
		b = append(b, nfnltest.Message(uint16(m.Header.Type), 0, m.Header.Sequence, m.Data)...)
	}
	return b
}

// SetReadDeadline knows only deadlines that are past.
func (s *wireSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.IsZero() {
		s.expired = make(chan struct{})
	} else {
		close(s.expired)
	}
	return nil
}

func (s *wireSocket) SetReadBuffer(int) error                { return nil }
func (s *wireSocket) ReceiveMany([]byte, []int) (int, error) { return 0, errors.ErrUnsupported }
func (s *wireSocket) Join(uint32) error                      { return nil }
func (s *wireSocket) Memory() (uint32, uint32, error)        { return 0, 0, nil }
func (s *wireSocket) SetFilter([]nfnl.Instruction) error     { return nil }

// message frames the attributes of a packet.
func message(family uint8, attrs func(b *nfnl.Builder)) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typePacket}, Data: payload(family, attrs)}
}

// numbered is the shortest packet.
func numbered(seq uint32) netlink.Message {
	return message(unix.AF_INET, func(b *nfnl.Builder) {
		b.Bytes(1, []byte{8, 0, byte(Input), 0})
		b.U32(12, seq)
	})
}

var _ connection = (*wire)(nil)
var _ connection = (*netlink.Conn)(nil)
var _ gonflog.HookFunc = (*goSocket)(nil).hook
var _ gonflog.ErrorFunc = (*goSocket)(nil).failed
