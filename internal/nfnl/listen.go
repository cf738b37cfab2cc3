package nfnl

import (
	"context"
	"fmt"
	"iter"
)

// Overrun reports lost multicast messages. It answers errors.Is(ErrOverrun).
//
// It stands where the loss was: what is yielded before it happened before the
// loss, what comes after it happened after. (The kernel tells of a loss at
// once, ahead of what waits in the receive buffer, and from then on drops all
// until the buffer was emptied: NETLINK_S_CONGESTED, net/netlink/af_netlink.c.)
type Overrun struct {
	// Drops is how many datagrams the kernel says it has dropped on this
	// socket so far (SK_MEMINFO_DROPS); 0 when it cannot be asked. Messages
	// for which it had no memory at all are not counted.
	Drops uint32
}

func (e *Overrun) Error() string {
	return fmt.Sprintf("%v (%d datagrams so far)", ErrOverrun, e.Drops)
}

func (e *Overrun) Unwrap() error { return ErrOverrun }

// ListenConfig is what to listen to.
type ListenConfig struct {
	Groups []uint32
	// ReadBuffer is the kernel's receive buffer in bytes; 0 leaves the
	// system's default. Above net.core.rmem_max it takes CAP_NET_ADMIN in the
	// initial user namespace; without it the buffer is as large as the limit
	// allows.
	ReadBuffer int
	// Datagram is how long the longest datagram may be, in bytes; 0 and all
	// below BufferSize are BufferSize. A longer one than that ends the stream
	// with ErrTruncated.
	Datagram int
	// Filter, if not empty, is a program that chooses among the datagrams.
	Filter []Instruction
	// Ready, if not nil, is called once the groups are joined: what happens
	// from then on is seen.
	Ready func()
}

// Listen joins multicast groups and yields what the kernel sends to them, on a
// socket of its own. An *Overrun is a fact to note, after which ranging goes
// on; any other error is the last.
func (c *Conn) Listen(ctx context.Context, cfg ListenConfig) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		if ctx.Err() != nil {
			yield(Message{}, ended(ctx))
			return
		}
		s, err := c.stream(true, cfg)
		if err != nil {
			yield(Message{}, err)
			return
		}
		defer c.release(s.link, false)
		if cfg.Ready != nil {
			cfg.Ready()
		}
		s.All(ctx)(yield)
	}
}

func (l *link) join(cfg ListenConfig) error {
	if cfg.ReadBuffer > 0 {
		if err := l.sock.SetReadBuffer(cfg.ReadBuffer); err != nil {
			return fmt.Errorf("receive buffer of %d bytes: %w", cfg.ReadBuffer, err)
		}
	}
	if cfg.Datagram > len(l.buf) {
		l.buf = make([]byte, cfg.Datagram)
	}
	if len(cfg.Filter) > 0 {
		if err := l.sock.SetFilter(cfg.Filter); err != nil {
			return fmt.Errorf("socket filter: %w", err)
		}
	}
	for _, g := range cfg.Groups {
		if err := l.sock.Join(g); err != nil {
			return fmt.Errorf("join multicast group %d: %w", g, err)
		}
	}
	return nil
}

// gap is a loss that the kernel has told of and that may not be over.
type gap struct {
	open         bool
	taken, drops uint32
}

// looks is how often what is taken of the buffer is read before it counts as not
// fallen. Since Linux 6.16 each message is charged to the buffer while the kernel
// finds that there is no room for it, for a fraction of a microsecond.
const looks = 8

// over reports whether the kernel sends again, and then closes the gap. While
// it drops, what is taken of the buffer only falls: that it is empty, or did
// not fall with the last datagram, is the end.
func (g *gap) over(s Socket) bool {
	before := g.taken
	for range looks {
		var err error
		g.taken, g.drops, err = s.Memory()
		if err != nil || g.taken == 0 {
			break
		}
		if before == 0 || g.taken < before {
			return false
		}
	}
	g.open, g.taken = false, 0
	return true
}
