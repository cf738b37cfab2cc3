package conntrack

import (
	"context"
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
	// ID.
	Duplicates int
	// Start and Duration tell when the walk was made.
	Start    time.Time
	Duration time.Duration
}

// Snapshot collects the flows that pass the filter.
func (c *Conn) Snapshot(ctx context.Context, filter *Filter) (*Snapshot, error) {
	s := &Snapshot{Start: time.Now()}
	for flow, err := range c.All(ctx, filter) {
		if err != nil {
			return nil, err
		}
		s.Flows = append(s.Flows, flow)
	}
	s.Duration = time.Since(s.Start)
	s.dedup()
	return s, nil
}

// dedup drops rows that came again. IDs are hashes (nf_ct_get_id), so that a
// repeated ID only makes a row suspect: the tuples decide. Entries that share
// an ID are told apart in the upper half of the key.
func (s *Snapshot) dedup() {
	seen := make(map[uint64]int, len(s.Flows))
	kept := s.Flows[:0]
	for _, f := range s.Flows {
		key := uint64(f.ID)
		at, again := seen[key]
		for again && !sameEntry(&kept[at], &f) {
			key += 1 << 32
			at, again = seen[key]
		}
		switch {
		case again:
			s.Duplicates++
			kept[at] = f // the later view
			continue
		case f.Has(FieldID):
			seen[key] = len(kept)
		}
		kept = append(kept, f)
	}
	clear(s.Flows[len(kept):])
	s.Flows = kept
}

func sameEntry(a, b *Flow) bool {
	return a.ID == b.ID && a.Original == b.Original && a.Zone == b.Zone &&
		a.OriginalZone == b.OriginalZone && a.ReplyZone == b.ReplyZone
}
