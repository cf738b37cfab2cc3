package sockdiag

import (
	"iter"
	"time"
)

// Delta is the difference of two snapshots of one host. It refers to them and
// takes 4 bytes a socket itself. Its sequences come in the order of the snapshots, and
// can be ranged over again.
type Delta struct {
	// Interval is from the start of the one snapshot to that of the other. A
	// single socket was seen up to a Snapshot.Duration later in each.
	Interval time.Duration

	before, after *Snapshot
	// was is the place in before of each socket of after, or -1, and gone are
	// the places of those in before that are not in after.
	was, gone []int32
}

// Compare finds the sockets of both snapshots by their cookies. A nil Snapshot
// is an empty one, as before the first.
//
// The queries should select the same sockets, or those which only one of them
// selects are told as opened or closed; so are the few that a dump left out. A
// query with States lets a socket appear and go as its state changes. What
// traffic there was is known only with Query.Info in both.
func Compare(before, after *Snapshot) Delta {
	if before == nil {
		before = &Snapshot{}
	}
	if after == nil {
		after = &Snapshot{}
	}
	d := Delta{before: before, after: after}
	if !before.Start.IsZero() && !after.Start.IsZero() {
		d.Interval = after.Start.Sub(before.Start)
	}
	d.match()
	return d
}

// match fills was and gone.
func (d *Delta) match() {
	old := d.before.Sockets
	known, found := indexOf(old), make([]bool, len(old))
	d.was = make([]int32, len(d.after.Sockets))
	for i := range d.after.Sockets {
		_, at := known.find(old, &d.after.Sockets[i])
		if d.was[i] = int32(max(at, -1)); at >= 0 {
			found[at] = true
		}
	}
	for at, ok := range found {
		if !ok {
			d.gone = append(d.gone, int32(at))
		}
	}
}

// Opened yields the sockets that only the later snapshot has. All that their
// counters tell is of the interval.
func (d Delta) Opened() iter.Seq[Socket] {
	return func(yield func(Socket) bool) {
		for i, at := range d.was {
			if at < 0 && !yield(d.after.Sockets[i]) {
				return
			}
		}
	}
}

// Closed yields the sockets that only the earlier snapshot has, as they were
// then. What they did afterwards is not known.
func (d Delta) Closed() iter.Seq[Socket] {
	return func(yield func(Socket) bool) {
		for _, at := range d.gone {
			if !yield(d.before.Sockets[at]) {
				return
			}
		}
	}
}

// Kept yields the sockets that both snapshots have, changed or not.
func (d Delta) Kept() iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for i, at := range d.was {
			if at >= 0 && !yield(Change{Before: d.before.Sockets[at], After: d.after.Sockets[i]}) {
				return
			}
		}
	}
}

// PerSecond returns the rate of what was counted in the interval: 0 when the
// interval is not positive.
func (d Delta) PerSecond(n uint64) float64 {
	if d.Interval <= 0 {
		return 0
	}
	return float64(n) / d.Interval.Seconds()
}
