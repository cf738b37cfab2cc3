package nfnl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// Netlink families (linux/netlink.h).
const (
	Route     = 0  // NETLINK_ROUTE
	SockDiag  = 4  // NETLINK_SOCK_DIAG
	Netfilter = 12 // NETLINK_NETFILTER
)

// BufferSize is the length of the one receive buffer of a socket: the largest
// datagram the kernel makes for a dump.
const BufferSize = 32 << 10

// Socket is what Conn needs of a netlink socket. It exists for the fake peer.
type Socket interface {
	// Send sends one datagram.
	Send(b []byte) error
	// Receive waits for one datagram from the kernel and returns its full
	// length, which may be more than len(b). ErrOverrun is not final.
	Receive(b []byte) (int, error)
	// ReceiveMany waits for one datagram and takes those with it that have come
	// already: one a piece of b, of equal length, and as many as lens has room
	// for. It returns how many; their full lengths are in lens.
	ReceiveMany(b []byte, lens []int) (int, error)
	// SetReadDeadline wakes and bounds Receive and ReceiveMany.
	SetReadDeadline(t time.Time) error
	// SetReadBuffer sizes the kernel's receive buffer.
	SetReadBuffer(bytes int) error
	// Join makes the socket a member of a multicast group.
	Join(group uint32) error
	// Memory returns how many bytes of the receive buffer are taken, and how
	// many datagrams the kernel dropped on this socket (SO_MEMINFO).
	Memory() (taken, drops uint32, err error)
	// SetFilter makes the kernel drop the datagrams for which the program
	// returns 0 (SO_ATTACH_FILTER).
	SetFilter(program []Instruction) error
	Close() error
}

// Config is how sockets are opened.
type Config struct {
	// NetNS is the path of the network namespace, such as /run/netns/blue or
	// /proc/1234/ns/net; empty is the namespace of the calling thread.
	NetNS string
}

// Conn talks one netlink family in one network namespace. It is safe for
// concurrent use: each conversation has a socket of its own while it lasts, so
// a request may be made from inside the loop over a dump.
type Conn struct {
	dial  func() (Socket, error)
	after func() error // runs once, at Close

	mu     sync.Mutex
	idle   []*link
	busy   map[*link]bool
	closed bool
}

// maxIdle sockets are kept for the next conversation.
const maxIdle = 2

// link is one socket with its buffer.
type link struct {
	sock Socket
	buf  []byte
	out  []byte
	seq  uint32
}

// NewConn makes a Conn whose sockets come from dial. The first one is opened
// at once, so that the caller learns early what is wrong.
func NewConn(dial func() (Socket, error)) (*Conn, error) {
	c := &Conn{dial: dial, busy: make(map[*link]bool)}
	l, err := c.acquire(true)
	if err != nil {
		return nil, err
	}
	c.release(l, true)
	return c, nil
}

// Sibling opens another Conn of the same family in the same network namespace.
// The two share no socket, and each must be closed.
func (c *Conn) Sibling() (*Conn, error) { return NewConn(c.dial) }

// Close ends every conversation under way; each then answers net.ErrClosed.
// A second Close answers it too.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	var errs []error
	for l := range c.busy {
		errs = append(errs, l.sock.Close())
	}
	for _, l := range c.idle {
		errs = append(errs, l.sock.Close())
	}
	c.idle = nil
	if c.after != nil {
		errs = append(errs, c.after())
	}
	return errors.Join(errs...)
}

// acquire takes an idle link or opens one; fresh asks for a new one. A socket
// that joins groups must be fresh: events must not compete with answers for
// its buffer.
func (c *Conn) acquire(fresh bool) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	var l *link
	if n := len(c.idle); n > 0 && !fresh {
		l, c.idle = c.idle[n-1], c.idle[:n-1]
	} else {
		sock, err := c.dial()
		if err != nil {
			return nil, err
		}
		l = &link{sock: sock, buf: make([]byte, BufferSize), seq: rand.Uint32()}
	}
	c.busy[l] = true
	return l, nil
}

// release gives a link back. One whose conversation did not come to its end
// (clean is false) is closed: answers are still on their way to it.
func (c *Conn) release(l *link, clean bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, l)
	switch {
	case c.closed: // Close has closed it
	case clean && len(c.idle) < maxIdle:
		c.idle = append(c.idle, l)
	default:
		_ = l.sock.Close() // nothing is owed to it any more
	}
}

// guard ends l's waiting when ctx ends. The returned function must be called
// once the conversation is over; it reports whether the link is still usable.
func (l *link) guard(ctx context.Context) func() bool {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() {
		_ = l.sock.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket
	})
}

// send frames and sends messages in one datagram and returns the first
// sequence number.
func (l *link) send(msgs ...Message) (uint32, error) {
	first := l.seq + 1
	l.out = l.out[:0]
	for _, m := range msgs {
		if m.err != nil {
			return 0, m.err
		}
		l.seq++
		l.out = appendMessage(l.out, m, l.seq)
	}
	return first, l.sock.Send(l.out)
}

// receive waits for one datagram; the answer borrows the link's buffer.
func (l *link) receive() ([]byte, error) {
	n, err := l.sock.Receive(l.buf)
	if err != nil {
		return nil, err
	}
	if n > len(l.buf) {
		return nil, fmt.Errorf("%w: %d bytes in a buffer of %d", ErrTruncated, n, len(l.buf))
	}
	return l.buf[:n], nil
}

// one has a function take the next datagram.
func (l *link) one(take func([]byte) error) error {
	b, err := l.receive()
	if err != nil {
		return err
	}
	return take(b)
}

// small is the length of a datagram that can be received with others.
const small = 1 << 10

// many has a function take the datagrams that have come, or the next, none of
// which is large.
func (l *link) many(take func([]byte) error) error {
	var lens [BufferSize / small]int
	n, err := l.sock.ReceiveMany(l.buf, lens[:])
	if err != nil {
		return err
	}
	for i, size := range lens[:n] {
		if size > small {
			return fmt.Errorf("%w: %d bytes where small answers are expected", ErrTruncated, size)
		}
		if err := take(l.buf[i*small:][:size]); err != nil {
			return err
		}
	}
	return nil
}

// explain turns the error of a wait that the context broke off into the
// context's.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ended(ctx)
	}
	return err
}

// Ended is the error of a context that is done, with its cause: what every
// conversation answers then.
func Ended(ctx context.Context) error { return ended(ctx) }

// ended is the error of a context that is done, with its cause.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(ctx.Err(), cause) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
