package ban

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
)

// Multi is a Backend of several. A ban is in force once it is in force in each;
// errors name the backend by its type.
type Multi []Backend

var (
	_ Backend  = Multi(nil)
	_ Checker  = Multi(nil)
	_ Enforcer = Multi(nil)
)

// each joins what do returns for every backend.
func (m Multi) each(do func(Backend) error) error {
	var errs []error
	for _, b := range m {
		if err := do(b); err != nil {
			errs = append(errs, fmt.Errorf("%T: %w", b, err))
		}
	}
	return errors.Join(errs...)
}

// Ban implements Backend. An entry that fails in one backend is in force in the
// others, and is reported once for each in which it failed.
func (m Multi) Ban(ctx context.Context, entries ...Entry) error {
	return m.each(func(b Backend) error { return b.Ban(ctx, entries...) })
}

// Unban implements Backend. A prefix that is not banned in some of the backends
// is lifted in the others, without error.
func (m Multi) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	absent := make(map[netip.Prefix]int)
	err := m.each(func(b Backend) error {
		return without(b.Unban(ctx, prefixes...), func(e *EntryError) bool {
			if !errors.Is(e, fs.ErrNotExist) {
				return false
			}
			absent[e.Prefix]++
			return true
		})
	})
	errs := []error{err}
	for _, p := range prefixes {
		if n := absent[p]; n > 0 && n%len(m) == 0 {
			errs = append(errs, &EntryError{p, fs.ErrNotExist})
		}
	}
	return errors.Join(errs...)
}

// without returns err without the entries' errors that drop chooses. One that
// holds anything else is returned whole.
func without(err error, drop func(*EntryError) bool) error {
	failed, all := Failed(err)
	if !all {
		return err
	}
	var errs []error
	for _, f := range failed {
		if !drop(f) {
			errs = append(errs, f)
		}
	}
	return errors.Join(errs...)
}

// List implements Backend: every ban that is in force in any of the backends.
// Where they differ in its end, it is the latest.
func (m Multi) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		latest := make(map[netip.Prefix]Entry)
		for _, b := range m {
			for e, err := range b.List(ctx) {
				if err != nil {
					yield(Entry{}, fmt.Errorf("%T: %w", b, err))
					return
				}
				if have, ok := latest[e.Prefix]; !ok || e.Until.later(have.Until) {
					latest[e.Prefix] = e
				}
			}
		}
		for _, e := range latest {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Check implements Checker, as far as the backends do.
func (m Multi) Check(ctx context.Context, entries ...Entry) error {
	return m.each(func(b Backend) error { return check(ctx, b, entries) })
}

// check asks a backend that is a Checker, and looks at the entries alone for
// any other.
func check(ctx context.Context, b Backend, entries []Entry) error {
	if c, ok := b.(Checker); ok {
		return c.Check(ctx, entries...)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, e.Check())
	}
	return errors.Join(errs...)
}

// Enforcing implements Enforcer, as far as the backends do.
func (m Multi) Enforcing(ctx context.Context) error {
	return m.each(func(b Backend) error { return enforcing(ctx, b) })
}

func enforcing(ctx context.Context, b Backend) error {
	if e, ok := b.(Enforcer); ok {
		return e.Enforcing(ctx)
	}
	return nil
}

// Close closes all.
func (m Multi) Close() error { return m.each(Backend.Close) }
