package nfnl

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Overrun reports lost multicast messages. It answers errors.Is(ErrOverrun).
type Overrun struct {
	// Drops is how many datagrams the kernel says it has dropped on this
	// socket so far (SK_MEMINFO_DROPS); 0 when it cannot be asked.
	Drops uint32
}

func (e *Overrun) Error() string {
	return fmt.Sprintf("%v (%d datagrams so far)", ErrOverrun, e.Drops)
}

func (e *Overrun) Unwrap() error { return ErrOverrun }

// Listen joins multicast groups and yields what the kernel sends to them, on a
// socket of its own. ready, if not nil, is called once the groups are joined:
// what happens from then on is seen. An *Overrun is a fact to note, after which
// ranging goes on; any other error is the last.
func (c *Conn) Listen(ctx context.Context, groups []uint32, ready func()) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		if ctx.Err() != nil {
			yield(Message{}, context.Cause(ctx))
			return
		}
		l, err := c.acquire(true)
		if err != nil {
			yield(Message{}, err)
			return
		}
		stop := l.guard(ctx)
		defer func() { stop(); c.release(l, false) }()
		for _, g := range groups {
			if err := l.sock.Join(g); err != nil {
				yield(Message{}, explain(ctx, fmt.Errorf("join multicast group %d: %w", g, err)))
				return
			}
		}
		if ready != nil {
			ready()
		}
		l.listen(ctx, yield)
	}
}

func (l *link) listen(ctx context.Context, yield func(Message, error) bool) {
	for {
		b, err := l.receive()
		if errors.Is(err, ErrOverrun) {
			drops, _ := l.sock.Drops() // 0 is documented as "cannot be asked"
			if !yield(Message{}, &Overrun{Drops: drops}) {
				return
			}
			continue
		}
		if err != nil {
			yield(Message{}, explain(ctx, err))
			return
		}
		for len(b) > 0 {
			h, data, rest, err := split(b)
			if err != nil {
				yield(Message{}, err)
				return
			}
			if !yield(Message{Type: h.typ, Flags: h.flags, Data: data}, nil) {
				return
			}
			b = rest
		}
	}
}
