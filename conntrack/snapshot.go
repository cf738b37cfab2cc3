package conntrack

import (
	"context"
	"math"
	"slices"
	"time"
)

// Snapshot is a collected dump.
//
// It is not one instant. ctnetlink walks the table bucket by bucket and never
// says that it changed meanwhile (it does not set NLM_F_DUMP_INTR): an entry
// made or moved during the walk may be missing, one may be seen twice (then
// counted in Duplicates and kept once), and entries that had expired but were
// not yet collected are skipped, though nf_conntrack_count counts them.
type Snapshot struct {
	Flows []Flow
	// Duplicates is how many rows came again: same original tuple, zone and
	// ID. The later view is kept, in the place of the earlier.
	Duplicates int
	// Count is how many entries the kernel counted before the walk began
	// (nf_conntrack_count), those not asked for, expired or not yet confirmed
	// included. It is 0 when a filter was given: it is not asked for then.
	Count int
	// Start and Duration tell when the walk was made.
	Start    time.Time
	Duration time.Duration
}

// Snapshot collects the flows that pass the filter. With an error the Snapshot
// is nil.
func (c *Conn) Snapshot(ctx context.Context, filter *Filter) (*Snapshot, error) {
	s := &Snapshot{Start: time.Now()}
	if filter == nil {
		s.Count = c.entries(ctx)
	}
	rows := newBlocks(s.Count)
	for flow, err := range c.All(ctx, filter) {
		if err != nil {
			return nil, err
		}
		rows.add(&flow)
	}
	s.Flows = rows.list()
	s.Duration = time.Since(s.Start)
	s.dedup()
	return s, nil
}

// entries asks how many entries the table has; 0 when the kernel does not say.
func (c *Conn) entries(ctx context.Context) int {
	u, err := c.Usage(ctx)
	if err != nil {
		return 0 // the dump will say why
	}
	return int(u.Count)
}

// mostExpected is the largest table that room is made for ahead, in flows: a
// pointer of 32 bits could not address more.
const mostExpected = min(1<<24, math.MaxInt/8192)

// blocks collects flows of which it is not known how many will come: to grow
// one slice would copy all of them again and again.
type blocks [][]Flow

const (
	smallestBlock = 64 // flows
	largestBlock  = 4096
)

func newBlocks(expected int) blocks { return blocks{make([]Flow, 0, room(expected))} }

// room is for the flows expected, and for some that the table gains meanwhile.
// What is not used is not backed by memory.
func room(expected int) int {
	n := min(expected, mostExpected)
	return max(n+n/32, smallestBlock)
}

func (b *blocks) add(f *Flow) {
	last := &(*b)[len(*b)-1]
	if len(*last) == cap(*last) {
		*b = append(*b, make([]Flow, 0, min(2*cap(*last), largestBlock)))
		last = &(*b)[len(*b)-1]
	}
	*last = append(*last, *f)
}

// list returns the flows in the order they came. With as many as were
// expected, nothing is copied.
func (b blocks) list() []Flow {
	if len(b) == 1 {
		return b[0]
	}
	return slices.Concat(b...)
}

// dedup drops rows that came again. IDs are hashes (nf_ct_get_id), so that a
// repeated ID only makes a row suspect: the tuples decide.
func (s *Snapshot) dedup() {
	known, kept := newIndex(len(s.Flows)), 0
	for i := range s.Flows {
		f := &s.Flows[i]
		if f.Has(FieldID) {
			if earlier := known.put(s.Flows[:kept], f); earlier != nil {
				s.Duplicates++
				*earlier = *f
				continue
			}
		}
		if kept < i {
			s.Flows[kept] = *f
		}
		kept++
	}
	clear(s.Flows[kept:])
	s.Flows = s.Flows[:kept]
}

// index tells where in a slice flows are by their ID, in 12 bytes a flow: a Go
// map takes three times that and as often longer. It is an open-addressing
// table, each slot the ID in its upper half and the place plus 1 in its lower;
// 0 is a free slot.
type index []uint64

// newIndex makes an index of n flows at most: a third of its slots stays free.
func newIndex(n int) index { return make(index, n+n/2+1) }

// put returns the flow that is the same entry as f. If there is none, f is
// noted to be the next after flows.
func (x index) put(flows []Flow, f *Flow) *Flow {
	for at := x.start(f.ID); ; at = (at + 1) % len(x) {
		slot := x[at]
		if slot == 0 {
			x[at] = uint64(f.ID)<<32 | uint64(len(flows)+1)
			return nil
		}
		if uint32(slot>>32) != f.ID {
			continue
		}
		if known := &flows[uint32(slot)-1]; sameEntry(known, f) {
			return known
		}
	}
}

// start is the slot to begin at. It spreads IDs, as before Linux 5.1 they are
// addresses, which are alike in their lowest bits.
func (x index) start(id uint32) int {
	const golden = 0x9e3779b1 // 2^32 / φ
	return int(uint64(id*golden) * uint64(len(x)) >> 32)
}

func sameEntry(a, b *Flow) bool {
	return a.ID == b.ID && a.Original == b.Original && a.Zone == b.Zone &&
		a.OriginalZone == b.OriginalZone && a.ReplyZone == b.ReplyZone
}
