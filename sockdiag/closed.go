package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ErrOverrun tells that events were lost because the receive buffer was full. It
// is told among the events, and ranging goes on after it.
var ErrOverrun = nfnl.ErrOverrun

// Overrun is the error that carries ErrOverrun. Its Drops is how many events the
// kernel has dropped since the stream began.
type Overrun = nfnl.Overrun

// ClosedSocket is a socket that has come to its end.
type ClosedSocket struct {
	// Socket is the last that the kernel knew of it, in State Close. Of TCP it
	// has Info: what was sent, retransmitted and acknowledged in all its life.
	// RecvQueue is what the process never read. It has no Inode, UID, Mark or
	// CgroupID any more: see Owner.
	Socket Socket
	// Owner is who had it when it was last seen; the zero Owner when it was
	// not, having lived too short a time.
	Owner Owner
}

// Owner is what a dump has told of a socket while it was open.
type Owner struct {
	// State, UID, Inode, CgroupID and Mark are those of the Socket.
	State      State
	UID, Inode uint32
	CgroupID   uint64
	Mark       uint32
	// Seen is when the dump that showed it was asked for.
	Seen time.Time
	// Process is the first process that had the socket, by PID, when
	// ClosedOptions.Processes asked for it; else the zero Process.
	Process Process
}

// ClosedOptions are what Closed tells. The zero ClosedOptions, as a nil one, is
// TCP and UDP of both families, with the owners at the start.
type ClosedOptions struct {
	// Protocol is TCP or UDP; 0 is both. The kernel tells of no other.
	Protocol Protocol
	// Family is IPv4 or IPv6; 0 is both.
	Family Family
	// ReadBuffer is the socket's receive buffer in bytes; 0 is 8 MiB, room for
	// about 13,000 events. Above net.core.rmem_max it takes CAP_NET_ADMIN in the
	// initial user namespace; without it the buffer is as large as the limit
	// allows.
	ReadBuffer int
	// Remember is how many sockets' owners are kept; 0 is 65,536, and with a
	// negative number nothing is dumped and no owner known. Each takes about
	// 220 bytes. Sockets that a dump tells after as many are not remembered.
	Remember int
	// Refresh is how often to dump again, so that the owners of younger sockets
	// are known; 0 is never. What the last two dumps have told is remembered,
	// up to Remember of each.
	Refresh time.Duration
	// Processes, if not empty, is the proc file system, such as "/proc", where
	// the processes of the sockets are looked for with each dump. That costs
	// several times the dump.
	Processes Proc
	// Ready, if not nil, is called once the kernel has begun to send and the
	// owners are known.
	Ready func()
}

const (
	defaultClosedBuffer = 8 << 20
	defaultRemember     = 1 << 16
)

// Closed yields the sockets of TCP and UDP that come to their end, as the kernel
// frees them (SKNLGRP_INET_TCP_DESTROY and its like, ss -E): those that were
// closed, reset or destroyed, but not handshakes that came to nothing. A
// connection that goes to TimeWait ends when it does, not when that does. It
// takes no privilege.
//
// A nil error goes with a socket. ErrOverrun, in an *Overrun, says that some were
// lost, and ranging goes on; any other error is the last.
func (c *Conn) Closed(ctx context.Context, opts *ClosedOptions) iter.Seq2[ClosedSocket, error] {
	var o ClosedOptions
	if opts != nil {
		o = *opts
	}
	return func(yield func(ClosedSocket, error) bool) {
		if err := o.check(); err != nil {
			yield(ClosedSocket{}, &OpError{Op: "closed", Err: err})
			return
		}
		w := newWatch(ctx, c, &o)
		defer w.stop()
		for m, err := range c.nl.Listen(w.ctx, w.listenConfig()) {
			if err == nil && m.Type != byFamily {
				continue
			}
			var s ClosedSocket
			if err == nil {
				s, err = w.closed(m.Data)
			}
			if err != nil {
				s, err = ClosedSocket{}, w.explain(err)
			}
			if !yield(s, err) || err != nil && !errors.Is(err, ErrOverrun) {
				return
			}
		}
	}
}

func (o *ClosedOptions) check() error {
	if o.Protocol != 0 && o.Protocol != TCP && o.Protocol != UDP {
		return fmt.Errorf("the kernel does not tell of closed sockets of %v: %w", o.Protocol, errors.ErrUnsupported)
	}
	_, err := Query{Family: o.Family}.families()
	return err
}

// groups returns the multicast groups (enum sknetlink_groups).
func (o *ClosedOptions) groups() []uint32 {
	var groups []uint32
	for _, g := range []struct {
		p  Protocol
		f  Family
		id uint32
	}{
		{TCP, IPv4, 1}, // SKNLGRP_INET_TCP_DESTROY
		{UDP, IPv4, 2}, // SKNLGRP_INET_UDP_DESTROY
		{TCP, IPv6, 3}, // SKNLGRP_INET6_TCP_DESTROY
		{UDP, IPv6, 4}, // SKNLGRP_INET6_UDP_DESTROY
	} {
		if (o.Protocol == 0 || o.Protocol == g.p) && (o.Family == 0 || o.Family == g.f) {
			groups = append(groups, g.id)
		}
	}
	return groups
}

// decodeClosed reads an event (inet_diag_handler_get_info): a row whose protocol
// is in an attribute. One that is not there is TCP's.
func decodeClosed(b []byte) (Socket, error) {
	s := Socket{Protocol: TCP}
	if err := s.decode(b); err != nil {
		return Socket{}, err
	}
	if s.Has(FieldRawProtocol) {
		s.Protocol, s.RawProtocol = Protocol(s.RawProtocol), 0
		s.Fields &^= FieldRawProtocol
	}
	return s, nil
}
