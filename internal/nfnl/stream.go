package nfnl

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"time"
)

// Stream is a socket that the kernel sends to unasked: to the multicast groups
// it has joined, or once a request made over this very socket has bound it
// (nfnetlink_log). It lasts until Conn.Close. Only one goroutine at a time may
// use it.
type Stream struct {
	*link
	early [][]byte // datagrams that came before an answer
	rest  []byte   // of the last datagram, what was not yielded
	lost  gap
	look  bool // a datagram was received since the gap was looked at
}

// Stream opens a Stream. Config.Ready is not used.
func (c *Conn) Stream(cfg ListenConfig) (*Stream, error) { return c.stream(false, cfg) }

func (c *Conn) stream(fresh bool, cfg ListenConfig) (*Stream, error) {
	l, err := c.acquire(fresh)
	if err != nil {
		return nil, err
	}
	if err := l.join(cfg); err != nil {
		c.release(l, false)
		return nil, err
	}
	return &Stream{link: l}, nil
}

// SetReadBuffer sizes the kernel's receive buffer; see ListenConfig.
func (s *Stream) SetReadBuffer(bytes int) error { return s.sock.SetReadBuffer(bytes) }

// Do sends one request and waits for its acknowledgement. What comes before it
// is kept, and All begins with it. Do is for the time before the first All.
//
// On ErrOverrun the answer may be among what was lost.
func (s *Stream) Do(req Message) error {
	req.Flags |= Ack
	seq, err := s.send(req)
	if err != nil {
		return err
	}
	for {
		b, err := s.link.receive()
		if err != nil {
			return err
		}
		h, data, _, err := split(b)
		switch {
		case err != nil:
			return err
		case h.typ == typeError && h.seq == seq: // alone in its datagram
			return parseError(h.flags, data)
		}
		s.early = append(s.early, bytes.Clone(b))
	}
}

// All yields what the kernel sends. An *Overrun is a fact to note, after which
// ranging goes on; any other error is the last. After a break, or when ctx has
// ended, All may be called again and goes on with the next message.
//
// Nothing is allocated per message.
func (s *Stream) All(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		if ctx.Err() != nil {
			yield(Message{}, ended(ctx))
			return
		}
		defer s.guard(ctx)()
		for s.messages(yield) && s.overrun(yield) {
			b, err := s.receive()
			switch {
			case errors.Is(err, ErrOverrun):
				s.lost.open = true
			case err != nil:
				yield(Message{}, explain(ctx, err))
				return
			}
			s.rest, s.look = b, true
		}
	}
}

// guard is that of the link, and leaves it as it was.
func (s *Stream) guard(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = s.sock.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket
	})
	return func() {
		if !unwatch() {
			<-done
			_ = s.sock.SetReadDeadline(time.Time{})
		}
	}
}

// messages yields those that are left of the last datagram, and reports
// whether to go on.
func (s *Stream) messages(yield func(Message, error) bool) bool {
	for len(s.rest) > 0 {
		h, data, rest, err := split(s.rest)
		s.rest = rest
		if err != nil {
			yield(Message{}, err)
			return false
		}
		if !yield(Message{Type: h.typ, Flags: h.flags, Port: h.port, Data: data}, nil) {
			return false
		}
	}
	return true
}

// overrun yields a loss once it is over, and reports whether to go on.
func (s *Stream) overrun(yield func(Message, error) bool) bool {
	if !s.look || !s.lost.open {
		return true
	}
	s.look = false
	return !s.lost.over(s.sock) || yield(Message{}, &Overrun{Drops: s.lost.drops})
}

func (s *Stream) receive() ([]byte, error) {
	if len(s.early) > 0 {
		b := s.early[0]
		s.early = s.early[1:]
		return b, nil
	}
	return s.link.receive()
}
