package conntrack

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// Mirror is a live copy of the table, kept by events and checked by dumps. Run
// keeps it; the other methods may be called at any time, from any goroutine,
// and never wait for the kernel.
//
// What it shows of an entry is as the kernel last told it:
//
//   - State, status, mark, labels and the other details as of the last event;
//     window scales and TCP flags as of the last change of the TCP state.
//   - Timeout is what is left of the time that was last told. Packets renew it
//     without an event: an entry whose time has run out here may well live.
//   - Counters and Start as of the last dump; Use is not kept.
//
// Entries made while nobody listened (net.netfilter.nf_conntrack_events=2, the
// default since Linux 6.1), or with events off, or with a rule that leaves
// events out, change and end without a word. Only the next dump tells:
// MirrorOptions.Reconcile bounds how long that takes.
//
// A mirror takes about 160 bytes of memory for each entry, 50 more for each
// that is translated and for each original source, and keeps what the largest
// table took.
type Mirror struct {
	conn *Conn
	opts MirrorOptions
	born time.Time
	want chan struct{} // a dump is wanted

	mu         sync.RWMutex
	table      mirrorTable
	counts     mirrorCounts
	stats      MirrorStats
	generation uint32               // of the dump under way, or the last
	gone       map[flowKey]struct{} // ended since the dump under way began; nil when none is
	stale      bool                 // events were lost since the last dump began
	outSince   time.Time            // zero while in step
	inStep     chan struct{}        // closed while in step
	running    bool
}

// MirrorOptions are how a mirror is kept. The zero MirrorOptions, as a nil one,
// has the defaults.
type MirrorOptions struct {
	// ReadBuffer is as that of EventOptions.
	ReadBuffer int
	// Reconcile is how often the mirror is compared with a dump when nothing
	// asks for it; 0 is once a minute, a negative one never.
	Reconcile time.Duration
}

const defaultReconcile = time.Minute

// MirrorStats tell how a mirror fares.
type MirrorStats struct {
	// InStep is whether the mirror has all that it was told of: a dump was
	// merged, and no events were lost since it began.
	InStep bool
	// Events is how many events were read.
	Events uint64
	// Overruns is how often events were lost, and Dropped how many the kernel
	// counted (since Run was last called).
	Overruns, Dropped uint64
	// Dumps is how many dumps were merged. LastDump is when the last of them
	// ended, and DumpDuration how long it took.
	Dumps        uint64
	LastDump     time.Time
	DumpDuration time.Duration
	// Unannounced is how many of the entries only dumps have told of. Among
	// them are those whose changes and end no event will tell.
	Unannounced int
	// Appeared is how many entries dumps after the first have shown that no
	// event had told of, and Vanished how many they no longer had though no
	// event had told of their end.
	Appeared, Vanished uint64
	// OutOfStep is for how long, in total, the mirror was out of step: from
	// the report of a loss to the end of the dump that made up for it, and
	// from the start of Run to that of its first dump.
	OutOfStep time.Duration
}

// NewMirror makes a Mirror of the table of a Conn, empty until it runs.
func NewMirror(c *Conn, opts *MirrorOptions) *Mirror {
	m := &Mirror{conn: c, born: time.Now(), want: make(chan struct{}, 1), inStep: make(chan struct{}),
		table: newMirrorTable(), counts: newMirrorCounts()}
	if opts != nil {
		m.opts = *opts
	}
	if m.opts.Reconcile == 0 {
		m.opts.Reconcile = defaultReconcile
	}
	return m
}

var errRunning = errors.New("the mirror runs already")

// Run keeps the mirror until the context ends, the Conn is closed, or the
// kernel refuses; it always returns an error. It listens, dumps, and merges
// the two; it dumps again after events were lost and every
// MirrorOptions.Reconcile. Nothing of it is left when it returns, except what
// the mirror shows, which no longer changes. It may then be called again.
func (m *Mirror) Run(ctx context.Context) error {
	if !m.start() {
		return opError("mirror", errRunning)
	}
	defer m.end()
	inner, cancel := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	defer keeper.Wait()
	defer cancel(nil)
	opts := EventOptions{ReadBuffer: m.opts.ReadBuffer, Ready: func() {
		keeper.Go(func() { cancel(m.keep(inner)) })
	}}
	var last error
	for e, err := range m.conn.Events(inner, &opts) {
		switch {
		case err == nil:
			m.event(&e)
		case errors.Is(err, ErrOverrun):
			m.overrun(err)
		default:
			last = err
		}
	}
	if ctx.Err() == nil && inner.Err() != nil {
		return context.Cause(inner) // what ended keep
	}
	return last
}

func (m *Mirror) start() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		return false
	}
	m.running = true
	m.outSince, m.stats.Dropped = time.Now(), 0
	m.ask()
	return true
}

func (m *Mirror) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
	m.fallOut()
	m.stats.OutOfStep += time.Since(m.outSince)
}

// ask makes keep dump, again if it is at it.
func (m *Mirror) ask() {
	m.stale = true
	select {
	case m.want <- struct{}{}:
	default: // is asked for
	}
}

// fallOut notes that the mirror is out of step.
func (m *Mirror) fallOut() {
	if m.outSince.IsZero() {
		m.outSince, m.inStep = time.Now(), make(chan struct{})
	}
}

// overrun notes that events were lost. The kernel sends again by then (see
// nfnl.Overrun), so that a dump that begins now makes up for it.
func (m *Mirror) overrun(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Overruns++
	if o, ok := errors.AsType[*Overrun](err); ok {
		m.stats.Dropped = uint64(o.Drops)
	}
	m.fallOut()
	m.ask()
}

// keep dumps when asked to, and now and then. After a dump it rests as long as
// that took, so that a reader too slow for the events is not slowed further.
func (m *Mirror) keep(ctx context.Context) error {
	var tick <-chan time.Time
	if m.opts.Reconcile > 0 {
		t := time.NewTicker(m.opts.Reconcile)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.want:
		case <-tick:
		}
		start := time.Now()
		if err := m.dump(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Since(start)):
		}
	}
}

// dump merges a dump.
func (m *Mirror) dump(ctx context.Context) error {
	start := time.Now()
	m.beginDump()
	for f, err := range m.conn.All(ctx, nil) {
		if err != nil {
			m.breakOff()
			return err
		}
		m.merge(&f)
	}
	m.endDump(start)
	return nil
}

func (m *Mirror) beginDump() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.gone = make(map[flowKey]struct{})
	m.stale = false
}

// breakOff ends a dump that failed: what it did not show may well be there.
func (m *Mirror) breakOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = nil
}

// endDump drops what the dump did not show and no event told of meanwhile.
func (m *Mirror) endDump(start time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.table.all() {
		if r.generation != m.generation {
			m.stats.Vanished++
			m.remove(r)
		}
	}
	m.gone = nil
	m.stats.Dumps++
	m.stats.LastDump, m.stats.DumpDuration = time.Now(), time.Since(start)
	if !m.stale && !m.outSince.IsZero() {
		m.stats.OutOfStep += time.Since(m.outSince)
		m.outSince = time.Time{}
		close(m.inStep)
	}
}

// Wait waits until the mirror is in step: see MirrorStats.InStep. Its error is
// the context's.
func (m *Mirror) Wait(ctx context.Context) error {
	for {
		m.mu.RLock()
		inStep, done := m.inStep, m.outSince.IsZero() && m.running
		m.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return opError("mirror", ctx.Err())
		case <-inStep:
		}
	}
}

// Len returns how many entries there are.
func (m *Mirror) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.table.n
}

// Get returns the entry that has the tuple in the original direction, in the
// zone of that direction (0 is the default zone).
func (m *Mirror) Get(original Tuple, zone uint16) (Flow, bool) {
	k := keyOf(&original, zone)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r := m.table.find(&k); r != nil {
		return r.flow(time.Since(m.born)), true
	}
	return Flow{}, false
}

// All yields the entries as they are at the moment ranging begins, in no
// order. They are copied before the first is yielded (some 150 bytes each), so
// that a slow loop holds up nothing.
func (m *Mirror) All() iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		m.mu.RLock()
		rows := make([]mirrorRow, 0, m.table.n)
		for r := range m.table.all() {
			rows = append(rows, *r)
		}
		now := time.Since(m.born)
		m.mu.RUnlock()
		for i := range rows {
			if !yield(rows[i].flow(now)) {
				return
			}
		}
	}
}

// Stats returns how the mirror fares.
func (m *Mirror) Stats() MirrorStats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.stats
	s.InStep = m.outSince.IsZero() && m.running
	if !m.outSince.IsZero() && m.running {
		s.OutOfStep += time.Since(m.outSince)
	}
	return s
}
