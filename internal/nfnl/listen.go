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

// ListenConfig is what to listen to.
type ListenConfig struct {
	Groups []uint32
	// ReadBuffer is the kernel's receive buffer in bytes; 0 leaves the
	// system's default. Above net.core.rmem_max it takes CAP_NET_ADMIN in the
	// initial user namespace; without it the buffer is as large as the limit
	// allows.
	ReadBuffer int
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
		l, err := c.acquire(true)
		if err != nil {
			yield(Message{}, err)
			return
		}
		stop := l.guard(ctx)
		defer func() { stop(); c.release(l, false) }()
		if err := l.join(cfg); err != nil {
			yield(Message{}, explain(ctx, err))
			return
		}
		if cfg.Ready != nil {
			cfg.Ready()
		}
		l.listen(ctx, yield)
	}
}

func (l *link) join(cfg ListenConfig) error {
	if cfg.ReadBuffer > 0 {
		if err := l.sock.SetReadBuffer(cfg.ReadBuffer); err != nil {
			return fmt.Errorf("receive buffer of %d bytes: %w", cfg.ReadBuffer, err)
		}
	}
	for _, g := range cfg.Groups {
		if err := l.sock.Join(g); err != nil {
			return fmt.Errorf("join multicast group %d: %w", g, err)
		}
	}
	return nil
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
			if !yield(Message{Type: h.typ, Flags: h.flags, Port: h.port, Data: data}, nil) {
				return
			}
			b = rest
		}
	}
}
