package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	nftables "github.com/connsleuth/connsleuth/internal/nft"
)

// Backend bans in a table of nftables. It is safe for concurrent use, also by
// several processes with the same Config.
type Backend struct {
	cfg   Config
	nl    *nfnl.Conn
	rules *nftables.Conn

	mu     sync.Mutex
	sets   map[kind]bool // that are there, with their rule
	mirror mirror
	draft  *batch // the transaction under way
	pruned int    // how many bans there were after the last look for those that are over
	gen    uint32 // generation of the ruleset at which the mirror lacks no ban; 0 is none
	many   int    // bans from which on List asks for each
}

var (
	_ ban.Backend  = (*Backend)(nil)
	_ ban.Checker  = (*Backend)(nil)
	_ ban.Enforcer = (*Backend)(nil)
	_ ban.Counter  = (*Backend)(nil)
)

// Ban implements ban.Backend. Up to 1,000 entries are one transaction, unless
// some of them cannot be put in force or there is no buffer for all.
func (b *Backend) Ban(ctx context.Context, entries ...ban.Entry) error {
	return b.apply(ctx, entries, false)
}

// Check implements ban.Checker: the kernel looks at the transaction that Ban
// would make, and forgets it.
func (b *Backend) Check(ctx context.Context, entries ...ban.Entry) error {
	return b.apply(ctx, entries, true)
}

func (b *Backend) apply(ctx context.Context, entries []ban.Entry, trial bool) error {
	if ctx.Err() != nil {
		return nfnl.Ended(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mirror.size() == 0 && !trial {
		b.mirror = newMirror(entries)
	}
	err := b.applyParts(ctx, slices.Collect(slices.Chunk(entries, most)), trial)
	b.prune(time.Now())
	return err
}

// Unban implements ban.Backend. Up to 1,000 prefixes are one transaction, unless
// some of them are not banned or there is no buffer for all.
func (b *Backend) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	if ctx.Err() != nil {
		return nfnl.Ended(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := make(map[netip.Prefix]bool, len(prefixes))
	once := make([]netip.Prefix, 0, len(prefixes))
	again := make([]bool, len(prefixes)) // given twice, or cannot be banned
	for i, p := range prefixes {
		again[i] = asked[p] || ban.Entry{Prefix: p, Until: ban.Forever}.Check() != nil
		if asked[p] = true; !again[i] {
			once = append(once, p)
		}
	}
	absent, err := b.lift(ctx, once)
	if err != nil {
		return err
	}
	var errs []error
	for i, p := range prefixes {
		if again[i] || absent[p] {
			errs = append(errs, &ban.EntryError{Prefix: p, Err: fs.ErrNotExist})
		}
	}
	return errors.Join(errs...)
}

// List implements ban.Backend. It reads all before it yields the first, and
// again if they change meanwhile.
//
// A dump takes time that grows with the square of the bans, such as 0.3 s for 100,000
// and 7 s for 400,000. Each of many bans is therefore asked for by its key, in 2 us of
// one processor, or up to 4 at the same time, unless anybody else changed the ruleset
// of the namespace since the last List.
func (b *Backend) List(ctx context.Context) iter.Seq2[ban.Entry, error] {
	return func(yield func(ban.Entry, error) bool) {
		have, err := b.read(ctx)
		if err != nil {
			yield(ban.Entry{}, err)
			return
		}
		b.bans(have.pages)(yield)
	}
}

// Dropped implements ban.Counter: since the prefix was last banned, renewed or
// changed. Without counters, or with another prefix length banned around it, the
// error is errors.ErrUnsupported or fs.ErrNotExist.
func (b *Backend) Dropped(ctx context.Context, prefix netip.Prefix) (packets, bytes uint64, err error) {
	if (ban.Entry{Prefix: prefix, Until: ban.Forever}).Check() != nil {
		return 0, 0, &ban.EntryError{Prefix: prefix, Err: fs.ErrNotExist}
	}
	var list []listed
	err = b.nl.Do(ctx, b.get(lifted(prefix)), func(m nfnl.Message) error {
		list, err = decodeElements(m.Data, kindOf(prefix), time.Now(), list)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(list) == 0:
		return 0, 0, &ban.EntryError{Prefix: prefix, Err: fs.ErrNotExist}
	case err != nil:
		return 0, 0, b.explain("", err)
	case !list[0].counted:
		return 0, 0, fmt.Errorf("nft: %s: %w: it has no counters", b.object("set "+kindOf(prefix).String()), errors.ErrUnsupported)
	}
	return list[0].packets, list[0].bytes, nil
}

// Close implements ban.Backend: what is under way ends, the table stays.
func (b *Backend) Close() error { return errors.Join(b.nl.Close(), b.rules.Close()) }

// Purge removes the table with all bans. One that is not there is fs.ErrNotExist.
// To go on banning after it takes another Open.
func (b *Backend) Purge(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.rules.Delete(ctx, nftables.INet, b.cfg.Table); err != nil {
		return err
	}
	b.mirror, b.gen = newMirror(nil), 0
	return nil
}

// prune forgets what is over, each time that there is twice as much. The kernel may
// have it yet: its clock is not the wall's.
func (b *Backend) prune(now time.Time) {
	const few = 1024
	size := b.mirror.size()
	if size < 2*b.pruned+few {
		return
	}
	b.mirror.prune(now)
	if b.pruned = b.mirror.size(); b.pruned < size {
		b.gen = 0
	}
}

// object names a part of the table.
func (b *Backend) object(part string) string {
	table := "table inet " + b.cfg.Table
	if part == "" || part == "table" {
		return table
	}
	return part + " of " + table
}

// explain says what was refused, and which privilege it takes.
func (b *Backend) explain(part string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: needs CAP_NET_ADMIN in the user namespace that owns the network namespace (setcap cap_net_admin=ep PROGRAM), and a table that no other process owns", err)
	}
	return fmt.Errorf("nft: %s: %w", b.object(part), err)
}
