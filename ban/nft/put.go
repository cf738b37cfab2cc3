package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// rounds is how often a transaction is sent without the one entry that the
// kernel refused; then the others are given up too.
const rounds = 16

// transact puts changes in force in one transaction. The kernel takes all or
// none: what it refuses is noted and left out of the next. The error returned is
// that of the whole. The mirror is not for it to read or write: the next part is
// planned meanwhile.
func (b *Backend) transact(ctx context.Context, p *part, changes []change) error {
	order(changes)
	for round := 0; len(changes) > 0; round++ {
		t, made := b.encode(changes)
		err := b.nl.Transaction(ctx, t.end(p.trial))
		if err == nil {
			if !p.trial {
				b.made(made)
				b.committed()
			}
			return nil
		}
		r := t.refusal(err)
		switch {
		case r.gone():
			return fmt.Errorf("nft: %s: %w: open the backend anew to make it again", b.object(r.what()), ban.ErrNotEnforcing)
		case r.whole && !r.large:
			return b.explain(r.what(), r.err)
		case r.expired() && round < rounds:
		case errors.Is(r.err, fs.ErrExist) && !allKnown(changes):
			for i := range changes {
				changes[i].known = true
			}
			order(changes)
		case r.item < 0 && len(changes) > 1:
			half := len(changes) / 2
			return errors.Join(b.transact(ctx, p, changes[:half:half]), b.transact(ctx, p, changes[half:]))
		default:
			changes = b.leaveOut(p, changes, max(r.item, 0), r.err, round == rounds)
		}
	}
	return nil
}

// order puts changes of one set side by side, with those first that need no room.
func order(changes []change) {
	compare := func(a, b change) int {
		switch {
		case a.kind != b.kind:
			return a.kind.before(b.kind)
		case a.known == b.known:
			return 0
		case a.known:
			return -1
		}
		return 1
	}
	if !slices.IsSortedFunc(changes, compare) {
		slices.SortStableFunc(changes, compare)
	}
}

func allKnown(changes []change) bool {
	return !slices.ContainsFunc(changes, func(c change) bool { return !c.known })
}

// encode writes the transaction, and the sets that it makes.
//
// What is in force already is added, deleted and added again. That renews it on
// every kernel: to add an element again is ignored before Linux 6.12, keeps the
// expiry from then on if the timeout is the same, and never changes the comment.
// The first add is for one that just ended, which could not be deleted; it has no
// timeout, so that it cannot end before the delete either.
func (b *Backend) encode(changes []change) (t *batch, made []kind) {
	t = b.begin()
	now := time.Now().UnixMilli()
	for first := 0; first < len(changes); {
		k, known := changes[first].kind, changes[first].known
		last := first + 1
		for last < len(changes) && changes[last].kind == k && changes[last].known == known {
			last++
		}
		if !b.sets[k] && !slices.Contains(made, k) {
			made = append(made, k)
			t.makeSet(&b.cfg, k)
			t.makeRule(banned, b.cfg.lookup(k))
		}
		if run := changes[first:last]; known {
			t.elements(newSetElem, nfnl.Create, run, first, 0)
			t.elements(delSetElem, 0, run, first, 0)
			t.elements(newSetElem, nfnl.Create, run, first, now)
		} else {
			t.elements(newSetElem, nfnl.Create|nfnl.Exclude, run, first, now)
		}
		first = last
	}
	return t, made
}

// begin begins a transaction, in the memory of the last one.
func (b *Backend) begin() *batch {
	if b.draft == nil {
		b.draft = newBatch(b.cfg.Table)
	}
	b.draft.reset()
	return b.draft
}

// made notes sets that are there now.
func (b *Backend) made(kinds []kind) {
	for _, k := range kinds {
		b.sets[k] = true
	}
}

// leaveOut notes why the change at i is not put in force, and with it those that
// have no chance either, and returns the others.
func (b *Backend) leaveOut(p *part, changes []change, i int, err error, all bool) (left []change) {
	full := errors.Is(err, syscall.ENFILE)
	if full {
		err = fmt.Errorf("%w: %w", ban.ErrFull, err)
	}
	first := changes[i]
	for j, c := range changes {
		// Those before it in the same set had room.
		hopeless := full && !first.known && !c.known && c.kind == first.kind && j >= i
		if j != i && !hopeless && !all {
			left = append(left, c)
			continue
		}
		p.refuse(int(c.at), &ban.EntryError{Prefix: c.entry.Prefix, Err: fmt.Errorf("nft: %s: %w", b.object("set "+c.kind.String()), err)})
		p.out = append(p.out, c)
	}
	return left
}

// refusal is what the kernel found wrong in a transaction.
type refusal struct {
	err   error
	about about
	item  int  // index of the change; -1 is not known
	whole bool // it is not about an element
	large bool // it was not sent: there is no buffer for so much
}

func (b *batch) refusal(err error) refusal {
	r := refusal{err: err, item: -1, whole: true}
	be, ok := errors.AsType[*nfnl.BatchError](err)
	if !ok {
		r.large = errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
		return r
	}
	r.err, r.about = be.Err, b.about[be.Index]
	e, ok := errors.AsType[*nfnl.Error](be.Err)
	if !ok || r.about.op == 0 {
		return r
	}
	switch e.Errno { //nolint:exhaustive // of all errnos
	case syscall.EPERM, syscall.ENOMEM, syscall.EINTR, syscall.EAGAIN:
		return r
	}
	r.whole = false
	if i := elementAt(b.msgs[be.Index].Data, e.Offset); i >= 0 {
		r.item = r.about.first + i
	} else if r.about.last == r.about.first+1 {
		r.item = r.about.first
	}
	return r
}

// gone reports that the table or the set is not there: to add an element can
// lack nothing else.
func (r refusal) gone() bool {
	return errors.Is(r.err, fs.ErrNotExist) && (r.about.object != "" || r.about.op == newSetElem)
}

// expired reports that an element ended between its add and its delete.
func (r refusal) expired() bool {
	return errors.Is(r.err, fs.ErrNotExist) && r.about.op == delSetElem
}

// what names the object.
func (r refusal) what() string {
	if r.about.op != 0 {
		return "set " + r.about.set.String()
	}
	return r.about.object
}

// lift takes bans back, and tells which were not in force.
func (b *Backend) lift(ctx context.Context, prefixes []netip.Prefix) (absent map[netip.Prefix]bool, err error) {
	absent = make(map[netip.Prefix]bool)
	changes := make([]change, len(prefixes))
	for i, p := range prefixes {
		changes[i] = lifted(p)
	}
	order(changes)
	for part := range slices.Chunk(changes, most) {
		if err := b.delete(ctx, part, absent); err != nil {
			return nil, err
		}
	}
	return absent, nil
}

// delete takes bans back in one transaction, if all are there.
func (b *Backend) delete(ctx context.Context, changes []change, absent map[netip.Prefix]bool) error {
	for range rounds {
		if len(changes) == 0 {
			return nil
		}
		t := b.begin()
		for first, last := 0, 0; first < len(changes); first = last {
			k := changes[first].kind
			for last < len(changes) && changes[last].kind == k {
				last++
			}
			t.elements(delSetElem, 0, changes[first:last], first, 0)
		}
		err := b.nl.Transaction(ctx, t.end(false))
		if err == nil {
			b.committed()
			for _, c := range changes {
				b.mirror.remove(c.entry.Prefix)
			}
			return nil
		}
		r := t.refusal(err)
		switch {
		case r.large && len(changes) > 1:
			half := len(changes) / 2
			return errors.Join(b.delete(ctx, changes[:half:half], absent), b.delete(ctx, changes[half:], absent))
		case r.whole || !errors.Is(r.err, fs.ErrNotExist):
			return b.explain(r.what(), r.err)
		}
		if changes, err = b.present(ctx, changes, absent); err != nil {
			return err
		}
	}
	return fmt.Errorf("nft: %s: the bans changed each time they were to be lifted", b.object("sets"))
}

// present leaves out the changes whose prefix is not banned, and notes them.
func (b *Backend) present(ctx context.Context, changes []change, absent map[netip.Prefix]bool) ([]change, error) {
	reqs := make([]nfnl.Message, len(changes))
	for i, c := range changes {
		reqs[i] = b.get(c)
	}
	var left []change
	var broken error
	err := b.nl.Batch(ctx, reqs, func(i int, err error) {
		switch {
		case err == nil:
			left = append(left, changes[i])
		case errors.Is(err, fs.ErrNotExist):
			absent[changes[i].entry.Prefix] = true
			b.mirror.remove(changes[i].entry.Prefix)
		default:
			broken = err
		}
	})
	if err = errors.Join(err, broken); err != nil {
		return nil, b.explain("", err)
	}
	return left, nil
}

// get asks for one element.
func (b *Backend) get(c change) nfnl.Message {
	m := request(getSetElem, 0)
	m.String(listTable, b.cfg.Table)
	m.String(listSet, c.kind.String())
	m.Nested(listElements, func() { c.element(m, 0) })
	return m.Message()
}
