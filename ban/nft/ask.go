package nft

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	// many bans are read as fast one by one as in a dump, each message of which counts
	// the elements from the first one (nf_tables_dump_set).
	many = 70_000

	// mostAsked are asked for at once: each is answered by a message, which is charged
	// up to 1.25 KiB to the receive buffer of 208 KiB.
	mostAsked = 128

	// mostAtOnce are asked at the same time.
	mostAtOnce = 4

	// leastElement is how many bytes of a dump an element takes: an IPv4 address
	// without an end.
	leastElement = 16
)

// errNotAsked is that the bans are to be read in a dump: too many of the mirror are
// not there, or an answer had no room.
var errNotAsked = errors.New("nft: the answers are not whole")

// committed notes that a transaction of ours changed something. Where the kernel
// leaves out 0, after 4 billion of them, the mirror is known to lack nothing at none.
func (b *Backend) committed() {
	if b.gen != 0 {
		b.gen++
	}
}

// know has the mirror know of all bans of a dump, and forget those that are over. It
// is of use for many only, and what fails leaves it not known that the mirror lacks
// none.
//
// The table must be as we make it: a rule of somebody else could add elements without
// a transaction.
func (b *Backend) know(ctx context.Context, r reading) {
	if b.gen = 0; r.size() < b.many*leastElement {
		return
	}
	there := b.mirror.empty()
	for e, err := range b.bans(r.pages) {
		if err != nil {
			return
		}
		there.set(e.Prefix, mark{})
		if _, is := b.mirror.get(e.Prefix); !is {
			t, timed := e.Until.Time()
			b.mirror.set(e.Prefix, mark{end: end(t.UnixMilli(), timed), at: foreign})
		}
	}
	soon := time.Now().Add(lag)
	for p, m := range b.mirror.all() {
		if _, is := there.get(p); !is && (m.at == foreign || m.over(soon)) {
			b.mirror.remove(p)
		}
	}
	have, err := b.state(ctx)
	if err != nil || b.amiss(have) != "" {
		return
	}
	if gen, err := b.rules.Generation(ctx); err == nil && gen == r.gen {
		b.gen = gen
	}
}

// ask reads the bans that the mirror has. Several questions are asked at the same
// time: the kernel, which does nearly all of the work, needs no lock for them.
func (b *Backend) ask(ctx context.Context) (pages []page, err error) {
	keys := b.mirror.keys()
	kinds := slices.SortedFunc(maps.Keys(keys), kind.before)
	questions := make([]question, min(runtime.GOMAXPROCS(0), mostAtOnce))
	errs := make([]error, len(questions))
	var wg sync.WaitGroup
	for i := range questions {
		wg.Go(func() {
			questions[i].b = b
			for _, k := range kinds {
				if errs[i] == nil {
					errs[i] = questions[i].ask(ctx, k, share(keys[k], k.size(), i, len(questions)))
				}
			}
		})
	}
	wg.Wait()
	if err = errors.Join(errs...); err != nil {
		return nil, err
	}
	switch gen, err := b.rules.Generation(ctx); {
	case err != nil:
		return nil, err
	case gen != b.gen:
		return nil, nfnl.ErrInterrupted
	}
	soon := time.Now().Add(lag)
	for _, q := range questions {
		pages = append(pages, q.pages...)
		for _, p := range q.absent {
			if m, _ := b.mirror.get(p); m.over(soon) {
				b.mirror.remove(p)
			}
		}
	}
	return pages, nil
}

// share is the i-th of n parts of keys of a size.
func share(keys []byte, size, i, n int) []byte {
	all := len(keys) / size
	return keys[all*i/n*size : all*(i+1)/n*size]
}

// question asks for elements by their keys.
type question struct {
	b      *Backend
	asked  int
	pages  []page
	absent []netip.Prefix

	req, answer nfnl.Builder // memory of the last part
}

// ask asks for those of one set. The kernel tells them in order, and stops at the
// first that is not there.
func (q *question) ask(ctx context.Context, k kind, keys []byte) error {
	for len(keys) > 0 {
		part := keys[:min(len(keys), mostAsked*k.size())]
		told, err := q.part(ctx, k, part)
		q.asked += told
		switch {
		case errors.Is(err, fs.ErrNotExist) && told*k.size() < len(part):
			p, _ := k.prefix(part[told*k.size():][:k.size()])
			if q.absent = append(q.absent, p); len(q.absent) > mostAsked+q.asked/16 {
				return errNotAsked
			}
			told++
		case errors.Is(err, nfnl.ErrOverrun), errors.Is(err, nfnl.ErrTruncated), err == nil && told*k.size() != len(part):
			return errNotAsked
		case err != nil:
			return err
		}
		keys = keys[told*k.size():]
	}
	return nil
}

// part asks for up to mostAsked elements, which become a page, and returns how many
// were told.
func (q *question) part(ctx context.Context, k kind, keys []byte) (told int, err error) {
	req, answer := &q.req, &q.answer
	req.Netfilter(subsystem, getSetElem, 0, inet)
	req.String(listTable, q.b.cfg.Table)
	req.String(listSet, k.String())
	list := req.Begin(listElements)
	for key := range slices.Chunk(keys, k.size()) {
		elem := req.Begin(listElem)
		elementKey(req, key)
		req.End(elem)
	}
	req.End(list)
	answer.Netfilter(subsystem, newSetElem, 0, inet)
	err = q.b.nl.DoMany(ctx, req.Message(), func(m nfnl.Message) error {
		if len(m.Data) < genLen {
			return nfnl.ErrTruncated
		}
		a := nfnl.Walk(m.Data[genLen:])
		for a.Next() {
			if a.Type == listElements {
				told++
				answer.Bytes(listElements, a.Value)
			}
		}
		return a.Err()
	})
	q.pages = append(q.pages, page{k, time.Now(), bytes.Clone(answer.Message().Data)})
	return told, err
}
