package conntrack

import (
	"context"
	"io/fs"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Config is how a Conn is opened. The zero Config is the caller's own network
// namespace.
type Config struct {
	// NetNS is the path of another network namespace, such as /run/netns/blue
	// or /proc/1234/ns/net. Entering one takes CAP_SYS_ADMIN. Empty is the
	// namespace of the calling thread.
	NetNS string
}

// Conn is a connection to ctnetlink. It is safe for concurrent use, and a
// request can be made from inside the loop over a dump.
type Conn struct {
	nl     *nfnl.Conn
	kernel abilities
}

// Dial opens a Conn; a nil config is the zero Config. It takes no privilege:
// the requests do.
func Dial(cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	nl, err := nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, opError("dial", err)
	}
	return &Conn{nl: nl}, nil
}

// Close ends all calls under way, which answer net.ErrClosed.
func (c *Conn) Close() error { return opError("close", c.nl.Close()) }

// All yields the flows that pass the filter as the kernel lists them, in
// constant memory and without allocating per flow. A nil error goes with a
// flow; a non-nil one is the last. Breaking off is free.
//
// A dump is approximate: the table changes under it, entries may be missed or
// come twice, and entries that have expired are left out. See Snapshot.
func (c *Conn) All(ctx context.Context, filter *Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		var flow Flow
		for m, err := range c.rows(ctx, filter) {
			if err == nil {
				err = decodeFlow(m.Data, &flow)
			}
			if err != nil {
				yield(Flow{}, opError("dump", err))
				return
			}
			if filter.Match(&flow) && !yield(flow, nil) {
				return
			}
		}
	}
}

// Get returns the entry that has the tuple in either direction, in the given
// zone (0 is the default zone). There being none is fs.ErrNotExist.
func (c *Conn) Get(ctx context.Context, tuple Tuple, zone uint16) (Flow, error) {
	flow, err := c.lookup(ctx, &Flow{Original: tuple, Zone: zone})
	return flow, opError("get", err)
}

// lookup gets whatever entry has the flow's original tuple and zone.
func (c *Conn) lookup(ctx context.Context, f *Flow) (Flow, error) {
	req, err := encodeLookup(&nfnl.Builder{}, opGet, f)
	if err != nil {
		return Flow{}, err
	}
	var flow Flow
	found := false
	err = c.nl.Do(ctx, req, func(m nfnl.Message) error {
		found = true
		return decodeFlow(m.Data, &flow)
	})
	if err == nil && !found {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Flow{}, err
	}
	return flow, nil
}
