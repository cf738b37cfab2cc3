package nflog

import (
	"encoding/binary"
	"errors"
	"iter"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"

	gonflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
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
	if w.refuse != nil {
		if errno := w.refuse(i); errno != 0 {
			w.failures <- &netlink.OpError{Op: "receive", Err: errno}
			return m, nil
		}
	}
	w.datagrams <- []netlink.Message{{
		Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence},
		Data:   make([]byte, 20),
	}}
	return m, nil
}

func (w *wire) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		select {
		case ms := <-w.datagrams:
			for _, m := range ms {
				if !yield(m, nil) {
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

// listenOn is Listen with w for the kernel.
func listenOn(t testing.TB, w *wire, cfg *Config) (*Reader, error) {
	t.Helper()
	c := cfg.withDefaults()
	nl, err := open(&c) // go-nflog cannot be had without a socket; it is not used
	if err != nil {
		t.Skipf("netlink sockets are not allowed here: %v", err)
	}
	if err := nl.Con.Close(); err != nil {
		t.Fatal(err)
	}
	r := newReader()
	src, err := register(nl, w, r)
	if err != nil {
		return nil, err
	}
	r.source = src
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return r, nil
}

// message frames the attributes of a packet.
func message(family uint8, attrs func(b *nfnl.Builder)) netlink.Message {
	b := nfnl.NewNetfilter(4, 0, 0, family)
	attrs(b)
	return netlink.Message{Header: netlink.Header{Type: typePacket}, Data: b.Message().Data}
}

// numbered is the shortest packet.
func numbered(seq uint32) netlink.Message {
	return message(unix.AF_INET, func(b *nfnl.Builder) {
		b.Bytes(1, []byte{8, 0, byte(Input), 0})
		b.U32(12, seq)
	})
}

// full has every attribute that the kernel knows.
func full(b *nfnl.Builder) {
	b.Bytes(1, []byte{0x86, 0xdd, byte(Forward), 0})
	b.String(10, "why: ")
	b.U32(4, 2)
	b.U32(6, 3)
	b.U32(5, 4)
	b.U32(7, 5)
	b.U32(2, 0xcafe)
	b.Bytes(8, []byte{0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0})
	b.U16(15, 1)
	b.U16(17, 14)
	b.Bytes(16, make([]byte, 14))
	b.Bytes(3, binary.BigEndian.AppendUint64([]byte{0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0}, 250))
	b.U32(11, 1000)
	b.U32(14, 1001)
	b.U32(12, 0)
	b.U32(13, 99)
	b.Nested(18, func() { b.U32(3, 14) })
	b.U32(19, uint32(EstablishedReply))
	b.Nested(20, func() { b.U16(1, 0x8100); b.U16(2, 7); b.U16(3, 1) })
	b.Bytes(21, make([]byte, 14))
	b.U32(500, 1)
	b.Bytes(9, []byte{0x60, 1, 2, 3, 4})
}

var _ connection = (*wire)(nil)
var _ connection = (*netlink.Conn)(nil)
var _ gonflog.HookFunc = (*Reader)(nil).hook
var _ gonflog.ErrorFunc = (*Reader)(nil).failed
