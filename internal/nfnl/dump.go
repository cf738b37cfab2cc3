package nfnl

import (
	"context"
	"iter"
)

// Dump sends a request with NLM_F_DUMP and yields the messages of the answer.
// The sequence ends after the first error; ErrInterrupted comes after the last
// row. Breaking off is free: the socket is thrown away with what is still on
// its way.
//
// Nothing is allocated per message.
func (c *Conn) Dump(ctx context.Context, req Message) iter.Seq2[Message, error] {
	req.Flags |= DumpAll
	return func(yield func(Message, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Message{}, ended(ctx))
			return
		}
		l, err := c.acquire(false)
		if err != nil {
			yield(Message{}, err)
			return
		}
		stop := l.guard(ctx)
		clean := false
		defer func() { c.release(l, stop() && clean) }()
		seq, err := l.send(req)
		if err != nil {
			yield(Message{}, explain(ctx, err))
			return
		}
		clean = l.dump(ctx, seq, yield)
	}
}

// dump reads until DONE and reports whether it got there.
func (l *link) dump(ctx context.Context, seq uint32, yield func(Message, error) bool) bool {
	interrupted := false
	for {
		b, err := l.receive()
		if err != nil {
			yield(Message{}, explain(ctx, err))
			return false
		}
		for len(b) > 0 {
			var h header
			var data []byte
			if h, data, b, err = split(b); err != nil {
				yield(Message{}, err)
				return false
			}
			if h.seq != seq {
				continue
			}
			interrupted = interrupted || h.flags&intr != 0
			switch h.typ {
			case typeDone:
				err := parseDone(h.flags, data)
				if err == nil && interrupted {
					err = ErrInterrupted
				}
				if err != nil {
					yield(Message{}, err)
				}
				return true
			case typeError:
				if err := parseError(h.flags, data); err != nil {
					yield(Message{}, err)
				}
				return true
			case typeOverrun:
				yield(Message{}, ErrOverrun)
				return false
			}
			if !yield(Message{Type: h.typ, Flags: h.flags, Data: data}, nil) {
				return false
			}
		}
	}
}
