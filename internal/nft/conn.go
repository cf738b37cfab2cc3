package nft

import (
	"context"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Conn changes and reads the rule set of one network namespace. It is safe for
// concurrent use.
type Conn struct{ nl *nfnl.Conn }

// Dial opens a Conn to the network namespace at a path such as
// /run/netns/blue; empty is the calling thread's.
func Dial(netns string) (*Conn, error) {
	nl, err := nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: netns})
	if err != nil {
		return nil, &Error{Err: err}
	}
	return &Conn{nl}, nil
}

// Close ends what is under way, which then answers net.ErrClosed. The rules
// stay.
func (c *Conn) Close() error { return c.nl.Close() }

// Apply replaces each table, by family and name, with the one given, in one
// transaction: on an error nothing has changed. Other tables are left alone.
// Counters start at zero again.
func (c *Conn) Apply(ctx context.Context, tables ...Table) error {
	if err := check(tables); err != nil || len(tables) == 0 {
		return err
	}
	b := newBatch()
	for _, t := range tables {
		b.replace(t, 0)
	}
	return b.explain(c.nl.Transaction(ctx, b.end()))
}

// Delete removes a table and all in it. One that is not there is
// fs.ErrNotExist.
func (c *Conn) Delete(ctx context.Context, family Family, name string) error {
	t := Table{Family: family, Name: name}
	if err := t.check(); err != nil {
		return err
	}
	b := newBatch()
	b.table(delTable, 0, t, 0)
	return b.explain(c.nl.Transaction(ctx, b.end()))
}
