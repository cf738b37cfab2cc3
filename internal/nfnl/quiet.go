package nfnl

import (
	"context"
	"errors"
	"fmt"
)

// BatchQuiet is Batch with one acknowledgement for each datagram sent, that of
// its last request. The kernel carries out the requests of a datagram in order,
// and tells every refusal without being asked (netlink_rcv_skb): those before the
// acknowledgement of which it tells nothing have succeeded. Where most succeed, it
// takes one system call for 128 requests, not one for each.
//
// outcome is called for refusals first. When the conversation breaks off, the
// requests of the last datagram that were not refused are not told.
func (c *Conn) BatchQuiet(ctx context.Context, reqs []Message, outcome func(i int, err error)) error {
	for start := 0; start < len(reqs); {
		end := chunk(reqs, start, maxBatch)
		tell := func(i int, err error) { outcome(start+i, err) }
		if err := c.quiet(ctx, reqs[start:end], tell); err != nil {
			return fmt.Errorf("after %d of %d requests: %w", start, len(reqs), err)
		}
		start = end
	}
	return nil
}

func (c *Conn) quiet(ctx context.Context, reqs []Message, outcome func(int, error)) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	last := len(reqs) - 1
	for i := range reqs {
		reqs[i].Flags &^= Ack
	}
	reqs[last].Flags |= Ack
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
	q := quietAnswers{first: first, told: make([]bool, len(reqs)), outcome: outcome}
	for !q.told[last] {
		b, err := l.receive()
		if err == nil {
			err = q.take(b)
		}
		if err != nil {
			return explain(ctx, err)
		}
	}
	clean = true
	for i, told := range q.told {
		if !told {
			outcome(i, nil)
		}
	}
	return nil
}

// quietAnswers collects the refusals of one datagram's requests.
type quietAnswers struct {
	first   uint32
	told    []bool
	outcome func(int, error)
}

func (q *quietAnswers) take(b []byte) error {
	for len(b) > 0 {
		h, data, rest, err := split(b)
		if err != nil {
			return err
		}
		b = rest
		i := h.seq - q.first
		if uint64(i) >= uint64(len(q.told)) {
			continue
		}
		switch h.typ {
		case typeOverrun:
			return ErrOverrun
		case typeError:
			err := parseError(h.flags, data)
			if errors.Is(err, ErrTruncated) {
				return err
			}
			q.told[i] = true
			q.outcome(int(i), err)
		}
	}
	return nil
}
