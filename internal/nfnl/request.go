package nfnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Do sends one request and waits for its acknowledgement. Messages that come
// before it are given to fn, which may be nil.
//
// It is right for requests whose answer carries NLM_F_MULTI without a
// NLMSG_DONE, as those to a conntrack GET and GET_STATS do: what ends the
// conversation is the acknowledgement alone.
func (c *Conn) Do(ctx context.Context, req Message, fn func(Message) error) error {
	return c.request(ctx, req, fn, (*link).one)
}

// DoMany is Do for a request that is answered with many messages in datagrams of
// their own, of at most 1 KiB: a system call takes up to 32 of them. A larger one is
// ErrTruncated.
func (c *Conn) DoMany(ctx context.Context, req Message, fn func(Message) error) error {
	return c.request(ctx, req, fn, (*link).many)
}

func (c *Conn) request(ctx context.Context, req Message, fn func(Message) error, read reader) error {
	req.Flags |= Ack
	var answer error
	err := c.exchange(ctx, []Message{req}, func(_ int, err error) { answer = err }, fn, read)
	return errors.Join(err, answer)
}

// reader waits for one datagram at least, and has a function take what came.
type reader func(l *link, take func([]byte) error) error

// Transaction sends requests that the kernel takes all or none (nftables,
// between NFNL_MSG_BATCH_BEGIN and _END, which the caller includes). Those
// flagged Ack are waited for. The first refusal is returned with the index of
// its request in a *BatchError.
func (c *Conn) Transaction(ctx context.Context, reqs []Message) error {
	var first error
	err := c.exchange(ctx, reqs, func(i int, err error) {
		if err != nil && first == nil {
			first = &BatchError{Index: i, Err: err}
		}
	}, nil, (*link).one)
	return errors.Join(first, err)
}

// BatchError is the refusal of one request of a transaction.
type BatchError struct {
	Index int
	Err   error
}

func (e *BatchError) Error() string { return fmt.Sprintf("message %d: %v", e.Index, e.Err) }

func (e *BatchError) Unwrap() error { return e.Err }

// exchange sends reqs in one datagram and reads until each that asked for an
// acknowledgement has got it.
func (c *Conn) exchange(ctx context.Context, reqs []Message, outcome func(int, error), fn func(Message) error, read reader) (err error) {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	l, err := c.acquire(false)
	if err != nil {
		return err
	}
	stop := l.guard(ctx)
	clean := false
	defer func() { c.release(l, stop() && clean) }()
	first, err := l.send(reqs...)
	if err != nil {
		return explain(ctx, err)
	}
	a := answers{first: first, reqs: reqs, outcome: outcome, fn: fn}
	for _, m := range reqs {
		if m.Flags&Ack != 0 {
			a.want++
		}
	}
	for !a.done() {
		err := read(l, a.take)
		if errors.Is(err, ErrOverrun) {
			return errors.Join(err, l.drain(&a))
		}
		if err != nil {
			return explain(ctx, err)
		}
	}
	clean = true
	return nil
}

// drain takes the answers that are queued already. Before an overrun there are
// some: the kernel tells of the loss first, and drops the newest. The link is of
// no more use, as it keeps the deadline.
func (l *link) drain(a interface {
	take(b []byte) error
	done() bool
}) error {
	if err := l.sock.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	for !a.done() {
		b, err := l.receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, ErrOverrun):
			continue
		case err != nil:
			return err
		}
		if err := a.take(b); err != nil {
			return err
		}
	}
	return nil
}

// answers collects the acknowledgements of one exchange.
type answers struct {
	first   uint32
	reqs    []Message
	want    int
	outcome func(int, error)
	fn      func(Message) error
}

func (a *answers) done() bool { return a.want <= 0 }

func (a *answers) take(b []byte) error {
	for len(b) > 0 {
		h, data, rest, err := split(b)
		if err != nil {
			return err
		}
		b = rest
		i := h.seq - a.first
		if uint64(i) >= uint64(len(a.reqs)) {
			continue
		}
		if err := a.message(int(i), h, data); err != nil {
			return err
		}
	}
	return nil
}

func (a *answers) message(i int, h header, data []byte) error {
	switch h.typ {
	case typeError:
		err := parseError(h.flags, data)
		if errors.Is(err, ErrTruncated) {
			return err
		}
		a.outcome(i, err)
		a.want--
		if err != nil && a.reqs[i].Flags&Ack == 0 {
			a.want = 0 // a batch refused as a whole answers on its first message
		}
	case typeOverrun:
		return ErrOverrun
	case typeDone:
	default:
		if a.fn != nil {
			return a.fn(Message{Type: h.typ, Flags: h.flags, Data: data})
		}
	}
	return nil
}
