package ban

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// broken is a Backend of which nothing works.
type broken struct{ Memory }

var errBroken = errors.New("broken")

func (*broken) Ban(context.Context, ...Entry) error          { return errBroken }
func (*broken) Unban(context.Context, ...netip.Prefix) error { return errBroken }
func (*broken) Enforcing(context.Context) error              { return ErrNotEnforcing }
func (*broken) Close() error                                 { return errBroken }

func TestMulti(t *testing.T) {
	small, large := &Memory{Max: 1}, new(Memory)
	m := Multi{small, large}
	now := time.Now()
	a, b := Entry{Prefix: prefix("203.0.113.1/32"), Until: For(now, time.Hour)}, Entry{Prefix: prefix("203.0.113.2/32"), Until: Forever}
	if err := m.Check(t.Context(), a, b, Entry{}); err == nil || len(inForce(t, m)) > 0 {
		t.Errorf("Check: %v", err)
	}
	err := m.Ban(t.Context(), a, b)
	failed, only := Failed(err)
	if len(failed) != 1 || !only || failed[0].Prefix != b.Prefix || !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "Memory") {
		t.Errorf("Ban: %v", err)
	}
	if len(inForce(t, small)) != 1 || len(inForce(t, large)) != 2 {
		t.Error("one that fails in one backend is not in force in the other")
	}
	// Where they differ it is the latest end.
	if err := large.Ban(t.Context(), Entry{Prefix: a.Prefix, Until: Forever}); err != nil {
		t.Fatal(err)
	}
	if got := inForce(t, m); len(got) != 2 || !got[a.Prefix].Until.Forever() {
		t.Errorf("List %v", got)
	}
	// b is in one of them, a in both, the third in none.
	err = m.Unban(t.Context(), a.Prefix, b.Prefix, prefix("203.0.113.3/32"))
	if failed, only := Failed(err); len(failed) != 1 || !only || failed[0].Prefix != prefix("203.0.113.3/32") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unban: %v", err)
	}
	if got := inForce(t, m); len(got) != 0 {
		t.Errorf("List %v", got)
	}
	if err := errors.Join(m.Enforcing(t.Context()), m.Close()); err != nil {
		t.Error(err)
	}
}

// TestMultiBroken: one backend that does not work keeps no other from it.
func TestMultiBroken(t *testing.T) {
	works := new(Memory)
	m := Multi{new(broken), works}
	a := Entry{Prefix: prefix("203.0.113.1/32"), Until: Forever}
	if err := m.Ban(t.Context(), a); !errors.Is(err, errBroken) || len(inForce(t, works)) != 1 {
		t.Errorf("Ban: %v, %v", err, inForce(t, works))
	}
	if _, only := Failed(m.Ban(t.Context(), a)); only {
		t.Error("Failed says that only entries failed")
	}
	if err := m.Unban(t.Context(), a.Prefix); !errors.Is(err, errBroken) || len(inForce(t, works)) != 0 {
		t.Errorf("Unban: %v, %v", err, inForce(t, works))
	}
	if err := m.Enforcing(t.Context()); !errors.Is(err, ErrNotEnforcing) {
		t.Errorf("Enforcing: %v", err)
	}
	if err := m.Close(); !errors.Is(err, errBroken) {
		t.Errorf("Close: %v", err)
	}
}

// TestFailed: errors of entries are found however they are wrapped, and others
// are not taken for them.
func TestFailed(t *testing.T) {
	a, b := &EntryError{prefix("203.0.113.1/32"), ErrFull}, &EntryError{prefix("203.0.113.2/32"), fs.ErrNotExist}
	for _, test := range []struct {
		err  error
		n    int
		only bool
	}{
		{nil, 0, true},
		{a, 1, true},
		{errors.Join(a, nil, b), 2, true},
		{errors.Join(errors.Join(a), Multi{}.Close(), errors.Join(b, b)), 3, true},
		{errBroken, 0, false},
		{errors.Join(a, errBroken), 1, false},
	} {
		if got, only := Failed(test.err); len(got) != test.n || only != test.only {
			t.Errorf("Failed(%v): %v, %v", test.err, got, only)
		}
	}
}
