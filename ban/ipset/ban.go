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
	w := writer{Sets: s, errs: make([]error, len(entries)), pending: make(map[*set][]item, len(s.sets))}
	now := time.Now()
	for i := range entries {
		w.errs[i] = w.sort(now, i, &entries[i])
	}
	if err := w.write(ctx); err != nil {
		return fmt.Errorf("ipset: ban: %w", errors.Join(append(w.errs, err)...))
	}
	return errors.Join(w.errs...)
}

// writer is one call of Ban.
type writer struct {
	*Sets
	errs    []error // of each entry
	pending map[*set][]item
	b       nfnl.Builder
}

// sort finds the set for an entry.
func (w *writer) sort(now time.Time, at int, e *ban.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	left, timed := e.Until.Left(now)
	set := w.of(e.Prefix)
	over := timed && left == 0
	switch {
	case set == nil && over:
		return nil
	case set == nil:
		return &ban.EntryError{Prefix: e.Prefix, Err: fmt.Errorf("no set for it was chosen (Config.Kinds): %w", errors.ErrUnsupported)}
	case left > maxTimeout*time.Second:
		return &ban.EntryError{Prefix: e.Prefix, Err: fmt.Errorf("%w: %v, of %d s at most", ban.ErrTooLong, left, maxTimeout)}
	}
	it := item{at: at, del: over, prefix: e.Prefix, until: e.Until}
	if set.comments && !over {
		it.comment = comment(e.Reason)
	}
	w.pending[set] = append(w.pending[set], it)
	return nil
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
func (w *writer) fill(ctx context.Context, set *set, items []item) error {
	for len(items) > 0 {
		n, size := 0, 0
		for ; n < len(items) && items[n].del == items[0].del; n++ {
			if size += items[n].size(); size > most {
				break
			}
		}
		if err := w.some(ctx, set, items[:n]); err != nil {
			return gone(err)
		}
		items = items[n:]
	}
	return nil
}

// some carries out one request of many entries. If the kernel refuses one of
// them those before it are done, and it does not say which it was: then each is
// done by itself, which changes nothing for those that are done already.
func (w *writer) some(ctx context.Context, set *set, items []item) error {
	err := set.explain("add", w.conn.Do(ctx, set.many(&w.b, time.Now(), items), nil))
	if !ofEntry(err) {
		return err
	}
	reqs := make([]nfnl.Message, len(items))
	for i := range items {
		reqs[i] = set.one(time.Now(), &items[i], 0)
	}
	return w.conn.Batch(ctx, reqs, func(i int, err error) {
		if err = set.explain("add", err); err != nil {
			w.errs[items[i].at] = &ban.EntryError{Prefix: items[i].prefix, Err: err}
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
		reqs = append(reqs, set.one(time.Time{}, &item{del: true, prefix: p}, nfnl.Exclude))
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
