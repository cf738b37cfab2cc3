package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// flagExpr is that a set has expressions (NFT_SET_EXPR): userspace's own notice.
const flagExpr = 0x100

// listedSet is a set as the kernel has it.
type listedSet struct {
	name    string
	flags   uint32
	keyLen  int
	timeout uint64 // ms
}

// page is elements as they were read, which takes less than half the memory of the
// bans in it.
type page struct {
	kind kind
	read time.Time
	data []byte
}

// reading is what was read of the sets.
type reading struct {
	gen   uint32 // of the ruleset before
	pages []page
}

// size is that of the pages, in bytes.
func (r *reading) size() (n int) {
	for _, p := range r.pages {
		n += len(p.data)
	}
	return n
}

// bans yields those in force when the pages were read.
func (b *Backend) bans(pages []page) iter.Seq2[ban.Entry, error] {
	return func(yield func(ban.Entry, error) bool) {
		var list []listed
		for _, p := range pages {
			var err error
			if list, err = decodeElements(p.data, p.kind, p.read, list[:0]); err != nil {
				yield(ban.Entry{}, b.explain("", err))
				return
			}
			for i := range list {
				if !yield(list[i].entry, nil) {
					return
				}
			}
		}
	}
}

// read reads the sets. While it does, no call on this Backend changes them.
func (b *Backend) read(ctx context.Context) (reading, error) {
	if ctx.Err() != nil {
		return reading{}, nfnl.Ended(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readLocked(ctx)
}

func (b *Backend) readLocked(ctx context.Context) (r reading, err error) {
	for range attempts {
		if r, err = b.readOnce(ctx); !errors.Is(err, nfnl.ErrInterrupted) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return reading{}, fmt.Errorf("nft: %s is gone: %w: open the backend anew to make it again", b.object(""), ban.ErrNotEnforcing)
	}
	if err != nil {
		return reading{}, b.explain("", err)
	}
	return r, nil
}

func (b *Backend) readOnce(ctx context.Context) (r reading, err error) {
	if r.gen, err = b.rules.Generation(ctx); err != nil {
		return r, err
	}
	if b.gen != 0 && b.gen == r.gen && b.mirror.size() >= b.many {
		if r.pages, err = b.ask(ctx); !errors.Is(err, errNotAsked) {
			return r, err
		}
	}
	if r.pages, err = b.dump(ctx); err != nil {
		return r, err
	}
	b.know(ctx, r)
	return r, nil
}

// dump reads all sets as a whole.
func (b *Backend) dump(ctx context.Context) (pages []page, err error) {
	sets, err := b.readSets(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		k, ok := parseKind(s.name)
		if !ok {
			continue
		}
		before := len(pages)
		req := request(getSetElem, 0)
		req.String(listTable, b.cfg.Table)
		req.String(listSet, s.name)
		for m, err := range b.nl.Dump(ctx, req.Message()) {
			if err != nil {
				return nil, err
			}
			pages = append(pages, page{k, time.Now(), bytes.Clone(m.Data)})
		}
		if err := b.whole(pages[before:]); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// whole reports nfnl.ErrInterrupted if a ban is in the pages of a set twice: as many
// others are then in none. The kernel begins each message where it counts as many
// elements as it has told, and says nothing if the hash table grew since
// (nft_rhash_walk, in Linux 6.18 too), as it does for a while after many were added.
func (b *Backend) whole(pages []page) error {
	if len(pages) < 2 {
		return nil
	}
	seen, n := b.mirror.empty(), 0
	for e, err := range b.bans(pages) {
		if err != nil {
			return err
		}
		seen.set(e.Prefix, mark{})
		n++
	}
	if seen.size() < n {
		return nfnl.ErrInterrupted
	}
	return nil
}

// readSets reads what sets there are. Without the table it is fs.ErrNotExist.
func (b *Backend) readSets(ctx context.Context) (sets []listedSet, err error) {
	req := request(getSet, 0)
	req.String(setTable, b.cfg.Table)
	for m, err := range b.nl.Dump(ctx, req.Message()) {
		var s listedSet
		if err == nil {
			s, err = decodeSet(m.Data)
		}
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// decodeSet reads an NFT_MSG_NEWSET.
func decodeSet(b []byte) (s listedSet, err error) {
	if len(b) < genLen {
		return listedSet{}, nfnl.ErrTruncated
	}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		switch a.Type {
		case setName:
			s.name = a.String()
		case setFlags:
			s.flags = a.U32()
		case setKeyLen:
			s.keyLen = int(a.U32())
		case setTimeout:
			s.timeout = a.U64()
		}
	}
	if err := a.Err(); err != nil {
		return listedSet{}, err
	}
	return s, nil
}
