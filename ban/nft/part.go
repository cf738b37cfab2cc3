package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// most entries of a call are a part: planned together, and one transaction. By
// entry, transactions of 250 to 4,000 take the same time, and one of 100,000 half as
// much again, as the table that is being filled grows behind its back (rhashtable);
// and they block other programs that change rules meanwhile.
const most = 1_000

// part is what is put in force together.
type part struct {
	trial   bool
	entries int
	changes []change
	over    []netip.Prefix // bans that have ended already
	errs    []error        // none, or one of each entry: why it is not in force
	out     []change       // what the kernel refused
}

// refuse notes why the entry at an index is not in force.
func (p *part) refuse(at int, err error) {
	if p.errs == nil {
		p.errs = make([]error, p.entries)
	}
	p.errs[at] = err
}

// applyParts puts one part after the other in force. While the kernel is at one, the
// next is planned: that takes a fifth of the time.
func (b *Backend) applyParts(ctx context.Context, todo [][]ban.Entry, trial bool) error {
	var errs []error
	p, next := new(part), new(part)
	for i, entries := range todo {
		if i == 0 {
			b.plan(p, entries, trial)
		}
		err := b.liftOver(ctx, p)
		if more := todo[i+1:]; err == nil && len(more) > 0 {
			put := make(chan error, 1)
			go func() { put <- b.transact(ctx, p, p.changes) }()
			b.plan(next, more[0], trial)
			err = <-put
		} else if err == nil {
			err = b.transact(ctx, p, p.changes)
		}
		b.settle(p, next, err)
		if errs = append(errs, p.errs...); err != nil {
			errs = append(errs, err)
			break
		}
		p, next = next, &part{changes: p.changes[:0]}
	}
	return errors.Join(errs...)
}

// liftOver takes back what has ended by what the part says of it.
func (b *Backend) liftOver(ctx context.Context, p *part) (err error) {
	if len(p.over) > 0 && !p.trial {
		_, err = b.lift(ctx, p.over)
	}
	return err
}

// settle takes out of the mirror what is not in force, or, with an error, may not
// be, unless the next part has noted it anew.
func (b *Backend) settle(p, next *part, err error) {
	lost := p.out
	if err != nil {
		lost, next = slices.Concat(p.changes, next.changes), new(part)
	}
	if p.trial {
		return
	}
	if len(lost) > 0 {
		b.gen = 0 // what was not renewed is as it was
	}
	for _, c := range lost {
		if !slices.ContainsFunc(next.changes, func(n change) bool { return n.entry.Prefix == c.entry.Prefix }) {
			b.mirror.remove(c.entry.Prefix)
		}
	}
}

// plan sorts out the entries of a part, whose changes it makes: what is to be put
// in force, what is over already, and what is refused. What is to be put in force is
// noted in the mirror, but for a trial.
func (b *Backend) plan(p *part, entries []ban.Entry, trial bool) {
	p.trial, p.entries = trial, len(entries)
	now := time.Now()
	notes := &b.mirror
	if trial {
		again := newMirror(entries)
		notes = &again
	}
	ended := false // some have
	for i := range entries {
		e := &entries[i]
		if err := e.Check(); err != nil {
			p.refuse(i, err)
			continue
		}
		c := change{entry: e, at: int32(i), kind: kindOf(e.Prefix)}
		t, timed := e.Until.Time()
		if c.timed = timed; timed {
			c.end = t.UnixMilli()
			left := c.end - now.UnixMilli()
			if left > longest {
				p.refuse(i, &ban.EntryError{Prefix: e.Prefix, Err: fmt.Errorf("%w: more than 292 years", ban.ErrTooLong)})
				continue
			}
			ended = ended || left <= 0
		}
		was, known := notes.get(e.Prefix)
		if at := int(was.at); known && at < len(p.changes) && p.changes[at].entry.Prefix == e.Prefix { // the last of the same counts
			c.known = p.changes[at].known
			p.changes[at] = c
		} else {
			was.at = int32(len(p.changes))
			if c.known = known; trial {
				_, c.known = b.mirror.get(e.Prefix)
			}
			p.changes = append(p.changes, c)
		}
		was.end = end(c.end, timed)
		notes.set(e.Prefix, was)
	}
	if ended {
		p.changes = slices.DeleteFunc(p.changes, func(c change) bool {
			gone := c.entry.Until.Over(now)
			if gone {
				p.over = append(p.over, c.entry.Prefix)
			}
			return gone
		})
	}
}
