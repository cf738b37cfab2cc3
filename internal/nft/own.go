package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ErrOwned tells that a table belongs to another socket (NFT_TABLE_F_OWNER):
// only that one may change it, and it goes with it.
var ErrOwned = errors.New("another process owns the table (nft list tables names it)")

// Owned is a table that goes when its owner does. Keep it until Close: one that
// becomes garbage takes the table along. It is safe for concurrent use.
type Owned struct {
	family   Family
	name     string
	vanishes bool

	mu sync.Mutex // one conversation at a time, so that all have the same socket
	nl *nfnl.Conn
}

// farewell bounds the request that deletes a table.
const farewell = 5 * time.Second

// Own is Apply for a table that is there as long as the Owned is open: the
// kernel removes it with the socket that made it, so also after a crash
// (NFT_TABLE_F_OWNER, Linux 5.12). Nobody else can change it meanwhile, and
// "nft flush ruleset" passes it by. A table of that name that somebody else
// owns is ErrOwned; one that nobody owns is replaced.
//
// On older kernels it is a table like others: Close deletes it, and the next
// Own of that name replaces what a crash has left.
func (c *Conn) Own(ctx context.Context, t Table) (*Owned, error) {
	nl, err := c.nl.Sibling()
	if err != nil {
		return nil, &Error{Object: tableObject(t), Err: err}
	}
	o := &Owned{family: t.Family, name: t.Name, vanishes: true, nl: nl}
	if err = o.Replace(ctx, t); lacksOwners(err) {
		o.vanishes = false
		err = o.Replace(ctx, t)
	}
	if err != nil {
		_ = nl.Close() // nothing is under way
		return nil, err
	}
	return o, nil
}

// lacksOwners reports that the kernel refused the table itself: EINVAL or
// EOPNOTSUPP, by version, is for a flag that it does not know.
func lacksOwners(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.flag && (errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported))
}

// Vanishes reports that the kernel removes the table also after a crash.
func (o *Owned) Vanishes() bool { return o.vanishes }

// Replace makes the table equal to t, which must be of the same family and
// name, in one transaction. A ctx that ends meanwhile may leave the outcome
// unknown; where the table vanishes it is then gone.
func (o *Owned) Replace(ctx context.Context, t Table) error {
	if t.Family != o.family || t.Name != o.name {
		return &Error{Object: tableObject(t), Err: fmt.Errorf("is not the table owned, %v %s", o.family, o.name)}
	}
	if err := check([]Table{t}); err != nil {
		return err
	}
	var flags uint32
	if o.vanishes {
		flags = flagOwner
	}
	b := newBatch()
	b.replace(t, flags)
	o.mu.Lock()
	defer o.mu.Unlock()
	return b.explain(o.nl.Transaction(ctx, b.end()))
}

// Close removes the table. One that does not vanish may be gone already: that
// is no error.
func (o *Owned) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	if !o.vanishes {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		err = (&Conn{o.nl}).Delete(ctx, o.family, o.name)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, o.nl.Close())
}
