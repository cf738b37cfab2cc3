package sockdiag

import (
	"context"
	"iter"
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
	// Duplicates is how many rows were told again. The last one was kept, in
	// the place of the first.
	Duplicates int
	// Fields is what any of the rows told. Without FieldMark no mark was
	// visible: the kernel is older than Linux 4.9, or CAP_NET_ADMIN is missing,
	// or no row can have one.
	Fields Fields
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
	rows := newBlocks(c.expect(q))
	for s, err := range c.All(ctx, q) {
		if err != nil {
			return nil, err
		}
		snap.Fields |= s.Fields
		rows.add(&s)
	}
	snap.Sockets = rows.list()
	snap.Duration = time.Since(snap.Start)
	snap.dedup()
	c.last.Store(&answered{q, len(snap.Sockets)})
	return snap, nil
}

// All yields the sockets, like Conn.All but for the errors.
func (s *Snapshot) All() iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		for i := range s.Sockets {
			if !yield(s.Sockets[i], nil) {
				return
			}
		}
	}
}

// dedup drops rows that were told again: the later is the newer.
func (s *Snapshot) dedup() {
	known, kept := newIndex(len(s.Sockets)), 0
	for i := range s.Sockets {
		row := &s.Sockets[i]
		if earlier := known.put(s.Sockets[:kept], row); earlier != nil {
			s.Duplicates++
			*earlier = *row
			continue
		}
		if kept < i {
			s.Sockets[kept] = *row
		}
		kept++
	}
	clear(s.Sockets[kept:])
	s.Sockets = s.Sockets[:kept]
}

// answered is how many sockets a query found.
type answered struct {
	q    Query
	rows int
}

// expect guesses how many sockets q will find: as many as the last time, if
// the last query was the same, and an eighth more. Else it is what the kernel
// counts, when that is what q asks for, or 0.
func (c *Conn) expect(q Query) int {
	if last := c.last.Load(); last != nil && last.q == q {
		return last.rows + last.rows/8
	}
	if c.here && q.everyTCP() {
		return countTCP(procNet)
	}
	return 0
}

// blocks collects sockets of which it is not known how many will come: to grow
// one slice of values this large would copy all of them again and again.
type blocks [][]Socket

const (
	smallestBlock = 64 // sockets, when nothing is expected
	largestBlock  = 4096
)

// newBlocks makes room for the sockets expected, if any are.
func newBlocks(expected int) blocks {
	return blocks{make([]Socket, 0, max(expected, smallestBlock))}
}

func (b *blocks) add(s *Socket) {
	last := &(*b)[len(*b)-1]
	if len(*last) == cap(*last) {
		*b = append(*b, make([]Socket, 0, min(2*cap(*last), largestBlock)))
		last = &(*b)[len(*b)-1]
	}
	*last = append(*last, *s)
}

// list returns the sockets in the order they came. With as many as were
// expected, nothing is copied.
func (b blocks) list() []Socket {
	if len(b) == 1 {
		return b[0]
	}
	return slices.Concat(b...)
}
