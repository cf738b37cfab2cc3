package ipset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// most is how many bytes of entries go into one request: an attribute has 65535.
// Some 1,300 hosts fit, fewer with comments.
const most = 60_000

// Ban implements ban.Backend. An error that is not of single entries wraps
// ban.ErrNotEnforcing if a set is gone.
func (s *Sets) Ban(ctx context.Context, entries ...ban.Entry) error {
	w := writer{Sets: s, now: time.Now(), entries: entries, errs: make([]error, len(entries)), pending: make(map[*set][]int, len(s.sets))}
	for i := range entries {
		w.errs[i] = w.sort(i)
	}
	if err := w.write(ctx); err != nil {
		return fmt.Errorf("ipset: ban: %w", errors.Join(append(w.errs, err)...))
	}
	return errors.Join(w.errs...)
}

// writer is one call of Ban.
type writer struct {
	*Sets
	now     time.Time
	entries []ban.Entry
	errs    []error        // of each entry
	pending map[*set][]int // indices of entries
	b       nfnl.Builder
}

// sort finds the set for an entry.
func (w *writer) sort(at int) error {
	e := &w.entries[at]
	if err := e.Check(); err != nil {
		return err
	}
	set := w.of(e.Prefix)
	left, _ := e.Until.Left(w.now)
	switch {
	case set == nil && e.Until.Over(w.now):
		return nil
	case set == nil:
		return &ban.EntryError{Prefix: e.Prefix, Err: fmt.Errorf("no set for it was chosen (Config.Kinds): %w", errors.ErrUnsupported)}
	case left > maxTimeout*time.Second+time.Millisecond: // see seconds
		return &ban.EntryError{Prefix: e.Prefix, Err: fmt.Errorf("%w: %v, of %d s at most", ban.ErrTooLong, left, maxTimeout)}
	}
	w.pending[set] = append(w.pending[set], at)
	return nil
}

// cmd is what is done about an entry: one that is over is deleted.
func (w *writer) cmd(at int) uint8 {
	if w.entries[at].Until.Over(w.now) {
		return cmdDel
	}
	return cmdAdd
}

func (w *writer) write(ctx context.Context) error {
	if ctx.Err() != nil {
		return nfnl.Ended(ctx)
	}
	var errs []error
	for _, set := range w.sets {
		errs = append(errs, w.fill(ctx, set, w.pending[set]))
	}
	return errors.Join(errs...)
}

// fill carries out what is pending for a set, in order.
func (w *writer) fill(ctx context.Context, set *set, pending []int) error {
	for len(pending) > 0 {
		cmd := w.cmd(pending[0])
		n, bytes := 0, 0
		for ; n < len(pending) && w.cmd(pending[n]) == cmd; n++ {
			if bytes += size(&w.entries[pending[n]]); bytes > most {
				break
			}
		}
		if err := w.some(ctx, set, cmd, pending[:n]); err != nil {
			return gone(err)
		}
		pending = pending[n:]
	}
	return nil
}

// some carries out one request of many entries. If the kernel refuses one of
// them those before it are done, and it does not say which it was: then each is
// done by itself, which changes nothing for those that are done already.
func (w *writer) some(ctx context.Context, set *set, cmd uint8, at []int) error {
	now := time.Now()
	err := set.explain("add", w.conn.Do(ctx, set.many(&w.b, cmd, now, w.entries, at), nil))
	if !ofEntry(err) {
		return err
	}
	reqs := make([]nfnl.Message, len(at))
	for i, at := range at {
		reqs[i] = set.one(cmd, now, &w.entries[at], 0)
	}
	return w.conn.Batch(ctx, reqs, func(i int, err error) {
		if err = set.explain("add", err); err != nil {
			w.errs[at[i]] = &ban.EntryError{Prefix: w.entries[at[i]].Prefix, Err: err}
		}
	})
}

// Unban implements ban.Backend.
func (s *Sets) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ipset: unban: %w", nfnl.Ended(ctx))
	}
	errs := make([]error, len(prefixes))
	reqs := make([]nfnl.Message, 0, len(prefixes))
	at := make([]int, 0, len(prefixes)) // index of the prefix of each request
	for i, p := range prefixes {
		set := s.of(p)
		if set == nil || p != p.Masked() {
			errs[i] = &ban.EntryError{Prefix: p, Err: fs.ErrNotExist}
			continue
		}
		reqs = append(reqs, set.one(cmdDel, time.Time{}, &ban.Entry{Prefix: p}, nfnl.Exclude))
		at = append(at, i)
	}
	var lost error
	err := s.conn.Batch(ctx, reqs, func(i int, err error) {
		p := prefixes[at[i]]
		switch err = s.of(p).explain("delete", err); {
		case err == nil:
		case ofEntry(err):
			errs[at[i]] = &ban.EntryError{Prefix: p, Err: err}
		case lost == nil:
			lost = gone(err)
		}
	})
	if err = errors.Join(lost, err); err != nil {
		return fmt.Errorf("ipset: unban: %w", errors.Join(append(errs, err)...))
	}
	return errors.Join(errs...)
}
