package nflog

import (
	"context"
	"io"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what to listen to. A nil *Config is the zero Config: group 0.
type Config struct {
	// NetNS is the path of the network namespace, such as /run/netns/blue or
	// /proc/1234/ns/net; empty is the namespace of the calling thread. To
	// enter another one takes CAP_SYS_ADMIN.
	NetNS string

	// Group is the NFLOG group of the rule.
	Group uint16

	// Snaplen is how many bytes of each packet the kernel copies, from the
	// network header on; 65531 is the most. A rule may ask for fewer (nft
	// snaplen, iptables --nflog-size).
	//
	// 0 is 256: an ICMP error with the packet it quotes takes at most 188
	// bytes of headers in IPv4 (60 + 8 + 60 + 60), and 156 in IPv6 (40 + 8 +
	// 40 + 60 + a fragment header), which leaves 100 for other extension
	// headers; a segment with full options shows 136 bytes of data.
	Snaplen uint32

	// ReadBuffer is the receive buffer of the socket in bytes (SO_RCVBUF; the
	// kernel allows and accounts twice that). 0 is 4 MiB: some 6,500 packets
	// of the default Snaplen one by one, or 17,000 with a Threshold of 64.
	// What is above net.core.rmem_max takes CAP_NET_ADMIN in the initial user
	// namespace; without it the buffer is as large as the limit allows.
	ReadBuffer int

	// Threshold is how many packets the kernel collects before it hands them
	// over (NFULA_CFG_QTHRESH); 0 is 1. One by one, a packet arrives about
	// 0.2 ms after it was logged; the kernel's own default of 100 lets a lone
	// packet wait for a second. 64 takes a quarter of the CPU time per packet
	// and is worth it above some ten thousand packets per second. A rule may
	// ask for a lower one (nft queue-threshold), not for a higher one.
	Threshold uint32

	// FlushInterval is how long a packet waits at most for the Threshold
	// (NFULA_CFG_TIMEOUT), in steps of 10 ms, rounded up, an hour at most; 0
	// is 100 ms.
	FlushInterval time.Duration

	// Conntrack asks for the conntrack entry with each packet:
	// Packet.Conntrack and CTInfo. The kernel needs
	// CONFIG_NETFILTER_NETLINK_GLUE_CT; without it, Listen answers
	// errors.ErrUnsupported.
	Conntrack bool
}

const (
	defaultSnaplen       = 256
	defaultReadBuffer    = 4 << 20
	defaultThreshold     = 1
	defaultFlushInterval = 100 * time.Millisecond
)

// withDefaults returns a copy with nothing left at zero.
func (c *Config) withDefaults() Config {
	var d Config
	if c != nil {
		d = *c
	}
	if d.Snaplen == 0 {
		d.Snaplen = defaultSnaplen
	}
	if d.ReadBuffer <= 0 {
		d.ReadBuffer = defaultReadBuffer
	}
	if d.Threshold == 0 {
		d.Threshold = defaultThreshold
	}
	if d.FlushInterval <= 0 {
		d.FlushInterval = defaultFlushInterval
	}
	return d
}

// centiseconds is FlushInterval as the kernel wants it, rounded up.
func (c *Config) centiseconds() uint32 {
	const unit = 10 * time.Millisecond
	return uint32((min(c.FlushInterval, time.Hour)-1)/unit + 1) // the kernel multiplies it by HZ in 32 bits
}

// Reader listens to one group. It is safe for concurrent use; ranges that run
// side by side share the packets among them.
type Reader struct {
	source io.Closer

	// events has no buffer: a packet that is not yet asked for holds up the
	// source, so that it is the kernel's queue that fills and the loss has a
	// number.
	events chan event
	seq    sequence // the source's

	end    sync.Once
	ended  chan struct{} // closed when no event follows
	err    error         // why, once ended
	closed atomic.Bool
}

// event is a packet, or the error that goes in its place.
type event struct {
	packet Packet
	err    error
}

func newReader() *Reader {
	return &Reader{events: make(chan event), ended: make(chan struct{})}
}

// Packets returns the packets as they come. A nil error goes with a packet. A
// *Lost (errors.Is ErrLost) is a fact to report, after which ranging goes on;
// any other error is the last: the context's, net.ErrClosed after Close, or
// that of the socket.
//
// Breaking off and ranging again goes on with the next packet. The group stays
// bound in between: until Close, packets queue up in the kernel.
func (r *Reader) Packets(ctx context.Context) iter.Seq2[Packet, error] {
	return func(yield func(Packet, error) bool) {
		for {
			e, err := r.next(ctx)
			if err != nil {
				yield(Packet{}, err)
				return
			}
			if !yield(e.packet, e.err) {
				return
			}
		}
	}
}

// next waits for an event; the error is a final one.
func (r *Reader) next(ctx context.Context) (event, error) {
	if ctx.Err() != nil {
		return event{}, context.Cause(ctx)
	}
	select {
	case <-r.ended:
		return event{}, r.reason()
	default:
	}
	select {
	case e := <-r.events:
		return e, nil
	case <-r.ended:
		return event{}, r.reason()
	case <-ctx.Done():
		return event{}, context.Cause(ctx)
	}
}

func (r *Reader) reason() error {
	if r.closed.Load() {
		return net.ErrClosed
	}
	return r.err
}

// Close gives the group back and ends every range with net.ErrClosed. It does
// not wait for them. A second Close answers net.ErrClosed.
func (r *Reader) Close() error {
	if !r.closed.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	r.fail(net.ErrClosed)
	return r.source.Close()
}

// deliver hands a packet over, and before it what its number reveals. It waits
// until both are taken and reports false when no more are wanted. Only the
// source calls it, from one goroutine.
func (r *Reader) deliver(p Packet, numbered bool) bool {
	if numbered {
		if lost := r.seq.advance(p.Seq); lost != nil && !r.send(event{err: lost}) {
			return false
		}
	}
	return r.send(event{packet: p})
}

// overrun tells that the kernel has dropped packets; see deliver.
func (r *Reader) overrun() bool { return r.send(event{err: &Lost{Overrun: true}}) }

// fail ends the sequence. The first reason stays.
func (r *Reader) fail(err error) {
	r.end.Do(func() {
		r.err = err
		close(r.ended)
	})
}

func (r *Reader) send(e event) bool {
	select {
	case r.events <- e:
		return true
	case <-r.ended:
		return false
	}
}
