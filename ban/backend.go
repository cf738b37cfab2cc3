package ban

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
)

// Backend enforces bans. Implementations are safe for concurrent use, and pass
// the suite of package ban/bantest.
type Backend interface {
	// Ban puts the entries in force. An entry whose Prefix is banned already
	// replaces that ban: it is renewed, prolonged, shortened, made to last for
	// ever or no longer so. Of entries with the same Prefix the last counts.
	// One that is over already is as Unban, without error.
	//
	// An entry that cannot be put in force does not keep the others from it:
	// the error holds an *EntryError for each that is not in force as asked;
	// see Failed. Any other error tells that the outcome of the entries is not
	// known, but never that a timed ban lasts for ever or the reverse.
	Ban(ctx context.Context, entries ...Entry) error

	// Unban lifts bans. A Prefix that is not banned, as one whose ban just
	// ended, is an *EntryError that wraps fs.ErrNotExist, and the others are
	// lifted.
	Unban(ctx context.Context, prefixes ...netip.Prefix) error

	// List yields the bans in force, those of others in the same place too, in
	// no order. Evidence is not kept, and of Reason what the backend can. An
	// error ends it.
	List(ctx context.Context) iter.Seq2[Entry, error]

	// Close lets go of the backend. The bans stay in force.
	Close() error
}

// Checker is a Backend that can try bans without putting them in force.
type Checker interface {
	// Check reports as Ban would.
	Check(ctx context.Context, entries ...Entry) error
}

// Enforcer is a Backend that can tell whether its bans have an effect.
type Enforcer interface {
	// Enforcing returns nil if packets of banned sources are dropped, or an
	// error that wraps ErrNotEnforcing and says what is missing: a table, a
	// rule, a set that somebody flushed.
	Enforcing(ctx context.Context) error
}

// Counter is a Backend that counts what it drops.
type Counter interface {
	// Dropped returns how many packets and bytes of a banned prefix were
	// dropped; fs.ErrNotExist if it is not banned.
	Dropped(ctx context.Context, prefix netip.Prefix) (packets, bytes uint64, err error)
}

// The errors that callers look for with errors.Is, besides fs.ErrNotExist,
// fs.ErrPermission, errors.ErrUnsupported and net.ErrClosed.
var (
	// ErrFull: there is no room for another ban.
	ErrFull = errors.New("no room for another ban")
	// ErrTooLong: the backend cannot keep a ban for so long, short of Forever.
	ErrTooLong = errors.New("the ban lasts longer than the backend can keep it")
	// ErrNotEnforcing: bans are kept, and nothing is dropped.
	ErrNotEnforcing = errors.New("bans are not enforced")
	// ErrGuarded: the ban would lock out somebody who must not be.
	ErrGuarded = errors.New("protected")
	// ErrLimit: more bans than allowed in the time, or in total.
	ErrLimit = errors.New("more bans than allowed")
)

// EntryError is why one entry was not banned or unbanned.
type EntryError struct {
	Prefix netip.Prefix
	Err    error
}

func (e *EntryError) Error() string { return fmt.Sprintf("ban: %v: %v", e.Prefix, e.Err) }

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

// Failed returns the errors of single entries that err holds, in their order.
// all is false if err holds anything else too.
func Failed(err error) (failed []*EntryError, all bool) {
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case nil:
		return nil, true
	case *EntryError:
		return []*EntryError{e}, true
	case interface{ Unwrap() []error }:
		all = true
		for _, err := range e.Unwrap() {
			more, only := Failed(err)
			failed, all = append(failed, more...), all && only
		}
		return failed, all
	case interface{ Unwrap() error }:
		if e.Unwrap() != nil {
			return Failed(e.Unwrap())
		}
	}
	return nil, false
}
