package ban

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Memory is a Backend that enforces nothing: for tests and dry runs. The zero
// Memory is ready.
type Memory struct {
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Max is how many bans there is room for; 0 is no limit.
	Max int

	mu      sync.Mutex
	closed  bool
	entries map[netip.Prefix]Entry
}

var _ Backend = (*Memory)(nil)

// Reopen returns a Memory with the bans, the clock and the room of m, which it
// closes: a program that starts again.
func (m *Memory) Reopen() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return &Memory{Now: m.Now, Max: m.Max, entries: m.entries}
}

// open locks m, and forgets the bans that are over.
func (m *Memory) open(ctx context.Context) (now time.Time, err error) {
	m.mu.Lock()
	if m.closed {
		return now, net.ErrClosed
	}
	now = time.Now()
	if m.Now != nil {
		now = m.Now()
	}
	if m.entries == nil {
		m.entries = make(map[netip.Prefix]Entry)
	}
	maps.DeleteFunc(m.entries, func(_ netip.Prefix, e Entry) bool { return e.Until.Over(now) })
	return now, ctx.Err()
}

// Ban implements Backend.
func (m *Memory) Ban(ctx context.Context, entries ...Entry) error {
	now, err := m.open(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, m.put(now, e))
	}
	return errors.Join(errs...)
}

func (m *Memory) put(now time.Time, e Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	_, have := m.entries[e.Prefix]
	switch {
	case e.Until.Over(now):
		delete(m.entries, e.Prefix)
		return nil
	case !have && m.Max > 0 && len(m.entries) >= m.Max:
		return &EntryError{e.Prefix, ErrFull}
	}
	e.Evidence = ""
	m.entries[e.Prefix] = e
	return nil
}

// Unban implements Backend.
func (m *Memory) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	_, err := m.open(ctx)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range prefixes {
		if _, ok := m.entries[p]; !ok {
			errs = append(errs, &EntryError{p, fs.ErrNotExist})
		}
		delete(m.entries, p)
	}
	return errors.Join(errs...)
}

// List implements Backend.
func (m *Memory) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		_, err := m.open(ctx)
		entries := slices.Collect(maps.Values(m.entries))
		m.mu.Unlock()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Close implements Backend.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
