package nflog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Config says what to listen to. Groups is required.
type Config struct {
	// NetNS is the path of the network namespace, such as /run/netns/blue or
	// /proc/1234/ns/net; empty is the namespace of the calling thread. To
	// enter another one takes CAP_SYS_ADMIN.
	NetNS string

	// Groups are the NFLOG groups of the rules. The packets of all come in the
	// order in which the kernel delivers them, which is that of logging if
	// Threshold is 1. To group 0 the kernel itself logs.
	Groups []uint16

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
	// CONFIG_NETFILTER_NETLINK_GLUE_CT and the module nf_conntrack_netlink.
	Conntrack ConntrackMode

	// GoNflog reads through github.com/florianl/go-nflog/v2, at many times the
	// cost: a socket for each group, whose packets then come in no order among
	// groups, and without Packet.Family.
	GoNflog bool
}

// ConntrackMode says whether packets come with their conntrack entries.
type ConntrackMode uint8

// The values of ConntrackMode.
const (
	// WithoutConntrack asks for none.
	WithoutConntrack ConntrackMode = iota
	// WithConntrackIfSupported asks for them where the kernel can;
	// Reader.Conntrack tells whether.
	WithConntrackIfSupported
	// WithConntrack asks for them; where the kernel cannot, Listen answers
	// errors.ErrUnsupported.
	WithConntrack
)

const (
	maxSnaplen           = 65531 // NFULNL_COPY_RANGE_MAX
	defaultSnaplen       = 256
	defaultReadBuffer    = 4 << 20
	defaultThreshold     = 1
	defaultFlushInterval = 100 * time.Millisecond
)

// withDefaults returns a copy with no number left at zero.
func (c *Config) withDefaults() Config {
	d := *c
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

// check refuses what cannot be listened to.
func (c *Config) check() error {
	if c == nil || len(c.Groups) == 0 {
		return errors.New("nflog: Config.Groups is empty: name the NFLOG groups of the rules")
	}
	for i, g := range c.Groups {
		if slices.Contains(c.Groups[:i], g) {
			return fmt.Errorf("nflog: Config.Groups has group %d twice", g)
		}
	}
	return nil
}

// centiseconds is FlushInterval as the kernel wants it, rounded up.
func (c *Config) centiseconds() uint32 {
	const unit = 10 * time.Millisecond
	return uint32((min(c.FlushInterval, time.Hour)-1)/unit + 1) // the kernel multiplies it by HZ in 32 bits
}

// Reader listens to groups. Close may be called at any time; only one range at
// a time may be under way.
type Reader struct {
	source    source
	conntrack bool
	ranging   atomic.Bool
	closed    atomic.Bool
}

// source is where packets come from.
type source interface {
	// packets yields them, and goes on where the last call was broken off. It
	// yields the error that ends it, after which it does not call yield again.
	packets(ctx context.Context, yield func(Packet, error) bool)
	Close() error
}

// errRanging is the answer to a second range beside the first.
var errRanging = errors.New("nflog: another range over this Reader is under way")

// Listen binds the groups. When it returns, packets logged from now on are
// seen.
//
// Errors: fs.ErrPermission without CAP_NET_ADMIN in the network namespace, or
// when another process (or another Reader) listens on a group there already;
// fs.ErrNotExist when Config.NetNS is gone; errors.ErrUnsupported when the
// kernel has no nfnetlink_log, or cannot do Config.Conntrack.
func Listen(cfg *Config) (*Reader, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := cfg.withDefaults()
	r, err := listen(&c)
	if c.Conntrack == WithConntrackIfSupported && errors.Is(err, errNoGlue) {
		c.Conntrack = WithoutConntrack
		r, err = listen(&c)
	}
	if err != nil {
		return nil, fmt.Errorf("nflog: %w", err)
	}
	return r, nil
}

// attempts to bind the groups: packets may crowd out the kernel's answers.
const attempts = 5

func listen(cfg *Config) (r *Reader, err error) {
	bind := listenOwn
	if cfg.GoNflog {
		bind = listenGoNflog
	}
	for range attempts {
		r = &Reader{conntrack: cfg.Conntrack != WithoutConntrack}
		if r.source, err = bind(cfg, r); !errors.Is(err, nfnl.ErrOverrun) {
			break
		}
	}
	return r, err
}

// Conntrack reports whether packets come with their conntrack entries, if they
// have one.
func (r *Reader) Conntrack() bool { return r.conntrack }

// Packets returns the packets as they come. A nil error goes with a packet. A
// *Lost (errors.Is ErrLost) is a fact to report, after which ranging goes on;
// any other error is the last: the context's, net.ErrClosed after Close, or
// that of the socket.
//
// The bytes of a packet are good until the range's next turn: see
// Packet.Clone.
//
// Breaking off and ranging again goes on with the next packet. The groups stay
// bound in between: until Close, packets queue up in the kernel. A range beside
// another one gets an error.
func (r *Reader) Packets(ctx context.Context) iter.Seq2[Packet, error] {
	return func(yield func(Packet, error) bool) {
		if !r.ranging.CompareAndSwap(false, true) {
			yield(Packet{}, errRanging)
			return
		}
		defer r.ranging.Store(false)
		if err := r.over(ctx); err != nil {
			yield(Packet{}, err)
			return
		}
		r.source.packets(ctx, yield)
	}
}

// over is the reason why a range yields no more, or nil.
func (r *Reader) over(ctx context.Context) error {
	switch {
	case r.closed.Load():
		return net.ErrClosed
	case ctx.Err() != nil:
		return nfnl.Ended(ctx)
	}
	return nil
}

// Close gives the groups back and ends a range under way with net.ErrClosed.
// It does not wait for that. A second Close answers net.ErrClosed.
func (r *Reader) Close() error {
	if !r.closed.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	return r.source.Close()
}
