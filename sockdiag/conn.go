package sockdiag

import (
	"context"
	"iter"
	"sync/atomic"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Config is how Dial opens a Conn.
type Config struct {
	// NetNS is the path of the network namespace whose sockets to read, such
	// as /run/netns/blue or /proc/1234/ns/net; empty is the namespace of the
	// calling thread.
	NetNS string
}

// Conn reads the sockets of one network namespace. It is safe for concurrent
// use; calls run side by side, and one may be made from inside the loop over
// another.
type Conn struct {
	nl   *nfnl.Conn
	here bool                     // Config.NetNS was empty
	last atomic.Pointer[answered] // the last Snapshot's

	refused atomic.Uint32 // what the kernel does not take in bytecode: optional
}

// Dial opens a Conn. A nil config is the zero Config.
//
// Errors: fs.ErrNotExist when Config.NetNS is gone, fs.ErrPermission when it
// may not be opened or entered, errors.ErrUnsupported when the kernel has no
// sock_diag at all.
func Dial(cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	nl, err := nfnl.Dial(nfnl.SockDiag, &nfnl.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, dialError(err)
	}
	return &Conn{nl: nl, here: cfg.NetNS == ""}, nil
}

// Close ends what is under way and frees the sockets. Every call after it,
// and a second Close, answers net.ErrClosed.
func (c *Conn) Close() error {
	if err := c.nl.Close(); err != nil {
		return &OpError{Op: "close", Err: err}
	}
	return nil
}

// All streams the sockets that q selects, those of IPv4 first, as the kernel
// tells them: in no order, and with the flaws that Snapshot describes. It holds
// one datagram at a time and allocates nothing per socket.
//
// A nil error goes with a Socket; a non-nil one, an *OpError, is the last.
// Breaking off is free.
func (c *Conn) All(ctx context.Context, q Query) iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		families, err := q.families()
		if err != nil {
			yield(Socket{}, &OpError{Op: q.op(), Err: err})
			return
		}
		for _, f := range families {
			if !c.dump(ctx, f, q, yield) {
				return
			}
		}
	}
}

// dump streams the sockets of one family. It reports whether to go on. What the
// kernel does not take of the filter's bytecode, it is asked without.
func (c *Conn) dump(ctx context.Context, f Family, q Query, yield func(Socket, error) bool) bool {
	for refused := c.refusedOperations(); ; {
		plan, _ := q.plan(f, refused)
		more, err := c.stream(ctx, &plan, q, yield)
		if err == nil {
			c.refused.Or(uint32(refused))
			return more
		}
		next, again := refused.without(plan.used, err)
		if !more || !again {
			yield(Socket{}, dumpError(q, f, plan.explain(err)))
			return false
		}
		refused = next
	}
}

func (c *Conn) refusedOperations() optional { return optional(c.refused.Load()) }

// stream yields the answer to one request. With an error, more reports that
// there was nothing before it.
func (c *Conn) stream(ctx context.Context, d *DumpPlan, q Query, yield func(Socket, error) bool) (more bool, err error) {
	states, rows := q.rowStates(), 0
	s := Socket{Protocol: q.protocol()}
	for m, err := range c.nl.Dump(ctx, q.requestOf(d)) {
		if err == nil && foreign(m, d.Family) {
			continue
		}
		if err == nil {
			err = s.decode(m.Data)
		}
		if err != nil {
			return rows == 0, err
		}
		rows++
		if q.matches(&s, states) && !yield(s, nil) {
			return false, nil
		}
	}
	return true, nil
}

// foreign reports that m is no row of family f.
func foreign(m nfnl.Message, f Family) bool {
	return m.Type != byFamily || len(m.Data) > 0 && Family(m.Data[0]) != f
}
