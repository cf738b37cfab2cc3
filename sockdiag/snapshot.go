package sockdiag

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Snapshot is the sockets of a namespace at about one time.
//
// It is approximate. The kernel walks its table while connections come and go,
// and does not tell when the table changed under it (sock_diag never sets
// NLM_F_DUMP_INTR). A socket can therefore be told twice, which Snapshot
// repairs, and one that lived through the whole dump can be left out, which
// nobody can see. Both happen where long hash chains change under the dump, so
// rarely in a table of the usual size. Sockets told early and late were not
// seen at one instant: the two ends of a local connection can be in states that
// do not fit each other.
type Snapshot struct {
	// Query is what was asked for.
	Query Query
	// Sockets are the answer, each cookie once, in the kernel's order; of SCTP
	// each endpoint and each association once.
	Sockets []Socket
	// Families are the dumps that the answer was read from, each to its end.
	Families []Family
	// Duplicates is how many rows were told again. The last one was kept.
	Duplicates int
	// Start is when the first dump was asked for, and Duration how long it
	// took until the last one was read.
	Start    time.Time
	Duration time.Duration
}

// Snapshot collects the sockets that q selects. There is no partial answer:
// with an error the Snapshot is nil.
func (c *Conn) Snapshot(ctx context.Context, q Query) (*Snapshot, error) {
	families, err := q.families()
	if err != nil {
		return nil, &OpError{Op: q.op(), Err: err}
	}
	snap := &Snapshot{Query: q, Families: families, Start: time.Now()}
	rows := newRowSet(c.expect(q))
	for s, err := range c.All(ctx, q) {
		if err != nil {
			return nil, err
		}
		if !rows.put(&s) {
			snap.Duplicates++
		}
	}
	snap.Sockets = rows.list()
	snap.Duration = time.Since(snap.Start)
	c.last.Store(&answered{q, len(snap.Sockets)})
	return snap, nil
}

// answered is how many sockets a query found.
type answered struct {
	q    Query
	rows int
}

// expect guesses how many sockets q will find: as many as the last time, if
// the last query was the same, and an eighth more. Without a guess it is 0.
func (c *Conn) expect(q Query) int {
	if last := c.last.Load(); last != nil && last.q == q {
		return last.rows + last.rows/8
	}
	return 0
}

// rowSet collects sockets, each cookie once. They are kept in blocks: to grow
// one slice of values this large would copy all of them again and again.
type rowSet struct {
	blocks       [][]Socket
	at           map[uint64]*Socket      // by cookie, into blocks
	associations map[association]*Socket // of SCTP: they have the cookie of their endpoint
}

// association is the key of one.
type association struct {
	endpoint uint64 // cookie
	remote   netip.AddrPort
}

const (
	smallestBlock = 64 // rows, when nothing is expected
	largestBlock  = 4096
)

// newRowSet makes a set with room for the rows expected, if any are.
func newRowSet(expected int) *rowSet {
	first := max(expected, smallestBlock)
	return &rowSet{
		blocks: [][]Socket{make([]Socket, 0, first)},
		at:     make(map[uint64]*Socket, first),

		associations: make(map[association]*Socket),
	}
}

// put adds s, or replaces the row with its cookie: the later is the newer. It
// reports whether the cookie was new.
func (r *rowSet) put(s *Socket) bool {
	if old := r.old(s); old != nil {
		*old = *s
		return false
	}
	block := &r.blocks[len(r.blocks)-1]
	if len(*block) == cap(*block) {
		size := min(2*cap(*block), largestBlock)
		r.blocks = append(r.blocks, make([]Socket, 0, size))
		block = &r.blocks[len(r.blocks)-1]
	}
	*block = append(*block, *s)
	if s.Has(FieldAssociation) {
		r.associations[association{s.Cookie, s.Remote}] = &(*block)[len(*block)-1]
	} else {
		r.at[s.Cookie] = &(*block)[len(*block)-1]
	}
	return true
}

// old returns the row that s is told again, or nil.
func (r *rowSet) old(s *Socket) *Socket {
	if s.Has(FieldAssociation) {
		return r.associations[association{s.Cookie, s.Remote}]
	}
	return r.at[s.Cookie]
}

// list returns the sockets in the order they came. With as many as were
// expected, nothing is copied.
func (r *rowSet) list() []Socket {
	if len(r.blocks) == 1 {
		return r.blocks[0]
	}
	return slices.Concat(r.blocks...)
}
