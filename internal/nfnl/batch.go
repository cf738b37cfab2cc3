package nfnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Batch sends requests in as few datagrams as is safe, and tells the outcome of
// each in order: nil, or *Error. Requests are carried out in order and
// independently: one that is refused does not stop the next. The error returned
// tells why the conversation itself broke off; the outcome of the requests not
// told is then unknown. Lack of privilege is both: the outcome of all requests
// of a datagram, none of which was carried out, and the end.
//
// Only the last request of a datagram is acknowledged. That tells of the others
// too: the kernel carries them out in order, answers a refused one whether asked
// to or not (netlink_rcv_skb), and does not keep it secret when an answer found
// no room (ENOBUFS). It is most of the time that a request and its answer take.
func (c *Conn) Batch(ctx context.Context, reqs []Message, outcome func(i int, err error)) error {
	return c.batches(ctx, reqs, batch{outcome: outcome}, maxBatch)
}

// BatchRows is Batch for requests that are answered with a message: row is given
// it before the outcome is told, with the index of its request.
func (c *Conn) BatchRows(ctx context.Context, reqs []Message, row func(i int, m Message) error, outcome func(i int, err error)) error {
	return c.batches(ctx, reqs, batch{outcome: outcome, row: row}, maxRows)
}

const (
	// maxBatch requests are answered before the next are sent. A refusal is
	// charged about 768 bytes to the receive buffer, 208 KiB by default, and
	// more with an extended acknowledgement; beyond it the kernel drops
	// answers (ENOBUFS).
	maxBatch = 128
	// maxRows rows are charged up to 2 KiB each.
	maxRows = 64
	// maxSend bytes fit the default send buffer with room to spare.
	maxSend = 64 << 10
)

func (c *Conn) batches(ctx context.Context, reqs []Message, b batch, most int) error {
	for start := 0; start < len(reqs); start += len(b.reqs) {
		b.start, b.reqs, b.told = start, reqs[start:chunk(reqs, start, most)], 0
		if err := c.batch(ctx, &b); err != nil {
			return fmt.Errorf("after %d of %d requests: %w", start+b.told, len(reqs), err)
		}
	}
	return nil
}

// chunk returns the end of the requests that go into one datagram.
func chunk(reqs []Message, start, most int) int {
	size := 0
	for i := start; i < len(reqs); i++ {
		size += headerLen + align(len(reqs[i].Data))
		if i > start && (i-start == most || size > maxSend) {
			return i
		}
	}
	return len(reqs)
}

// batch is one datagram of a Batch.
type batch struct {
	outcome func(i int, err error)
	row     func(i int, m Message) error

	start int // index of the first request
	reqs  []Message
	first uint32 // sequence number
	told  int    // requests before this one are settled
	lossy bool   // answers were dropped: silence tells nothing
	whole error  // the refusal of the first request, which may be that of all
	dirty bool   // the link has a deadline
}

// notSent is the error of a datagram that was not sent.
type notSent struct{ error }

func (e *notSent) Unwrap() error { return e.error }

// NotSent reports whether the error of a Batch came before the datagram was sent:
// the requests whose outcome was not told were then not carried out.
func NotSent(err error) bool {
	_, ok := errors.AsType[*notSent](err)
	return ok
}

func (c *Conn) batch(ctx context.Context, b *batch) error {
	if ctx.Err() != nil {
		return &notSent{ended(ctx)}
	}
	l, err := c.acquire(false)
	if err != nil {
		return &notSent{err}
	}
	stop := l.guard(ctx)
	clean := false
	defer func() { c.release(l, stop() && clean) }()
	b.reqs[len(b.reqs)-1].Flags |= Ack
	if b.first, err = l.send(b.reqs...); err != nil {
		return &notSent{explain(ctx, err)}
	}
	err = b.read(ctx, l)
	clean = err == nil && !b.dirty
	return err
}

func (b *batch) read(ctx context.Context, l *link) error {
	for !b.done() {
		data, err := l.receive()
		switch {
		case errors.Is(err, ErrOverrun):
			b.lossy = true
			return errors.Join(err, l.drain(b))
		case errors.Is(err, os.ErrDeadlineExceeded): // the answers are there already: see Batch
			return errors.Join(explain(ctx, err), l.drain(b))
		case err != nil:
			return explain(ctx, err)
		}
		if err := b.take(data); err != nil {
			return err
		}
		if err := b.refused(l); err != nil {
			return err
		}
	}
	return nil
}

// refused returns the refusal of the whole datagram: that of its first request
// for lack of privilege, when no other answer comes (nfnetlink_rcv).
func (b *batch) refused(l *link) error {
	if b.whole == nil {
		return nil
	}
	b.dirty = true
	if err := l.drain(b); err != nil {
		return err
	}
	whole := b.whole
	b.whole = nil
	if b.told > 1 {
		return nil
	}
	for !b.done() {
		b.settle(b.told, whole)
	}
	return whole
}

func (b *batch) done() bool { return b.told == len(b.reqs) }

// settle tells the outcome of request i, and that those before it of which
// nothing was heard went well.
func (b *batch) settle(i int, err error) {
	for ; b.told < i; b.told++ {
		if !b.lossy {
			b.outcome(b.start+b.told, nil)
		}
	}
	if i == b.told {
		b.told++
		b.outcome(b.start+i, err)
	}
}

func (b *batch) take(data []byte) error {
	for len(data) > 0 {
		h, payload, rest, err := split(data)
		if err != nil {
			return err
		}
		data = rest
		i := h.seq - b.first
		if uint64(i) >= uint64(len(b.reqs)) {
			continue
		}
		if err := b.message(int(i), h, payload); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) message(i int, h header, data []byte) error {
	switch h.typ {
	case typeError:
		err := parseError(h.flags, data)
		if errors.Is(err, ErrTruncated) {
			return err
		}
		if i == 0 && errors.Is(err, syscall.EPERM) {
			b.whole = err
		}
		b.settle(i, err)
	case typeOverrun:
		return ErrOverrun
	case typeDone:
	default:
		if b.row != nil {
			return b.row(b.start+i, Message{Type: h.typ, Flags: h.flags, Data: data})
		}
	}
	return nil
}
