package ipset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Sets is a ban.Backend of up to four sets. It is safe for concurrent use, and
// keeps nothing in memory: what others do to the sets is seen.
type Sets struct {
	conn *nfnl.Conn
	sets []*set
}

var (
	_ ban.Backend  = (*Sets)(nil)
	_ ban.Enforcer = (*Sets)(nil)
	_ ban.Counter  = (*Sets)(nil)
)

// Open makes the sets that are not there, and takes those that are as they are.
// A nil config is the zero Config.
//
// Errors: fs.ErrPermission without CAP_NET_ADMIN; errors.ErrUnsupported where
// the kernel has no ip_set; a set that exists and cannot keep bans.
func Open(ctx context.Context, cfg *Config) (*Sets, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	c, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("ipset: config: %w", err)
	}
	conn, err := nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: c.NetNS})
	if err != nil {
		return nil, fmt.Errorf("ipset: open: %w", err)
	}
	s := &Sets{conn: conn, sets: c.sets()}
	for _, set := range s.sets {
		if err := s.prepare(ctx, &c, set); err != nil {
			return nil, errors.Join(fmt.Errorf("ipset: open: %w", err), conn.Close())
		}
	}
	return s, nil
}

// prepare finds or makes a set.
func (s *Sets) prepare(ctx context.Context, c *Config, set *set) error {
	h, err := s.header(ctx, set)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.create(ctx, c, set); err != nil {
			return err
		}
		h, err = s.header(ctx, set)
	}
	if err != nil {
		return err
	}
	return set.adopt(h)
}

// create makes a set of the lowest revision of its type with which bans can be
// kept as asked: those that came later are of no use here, and an older ipset(8)
// lists it.
func (s *Sets) create(ctx context.Context, c *Config, set *set) error {
	most, err := s.revision(ctx, set)
	if err != nil {
		return err
	}
	revision := min(most, commented[set.typ])
	seconds := uint32((c.Timeout + time.Second - 1) / time.Second)
	return set.explain("create", s.conn.Do(ctx, set.create(c, revision, seconds), nil))
}

// revision asks for the highest that the kernel has of the set's type.
func (s *Sets) revision(ctx context.Context, set *set) (revision uint8, err error) {
	b := nfnl.NewNetfilter(subsystem, cmdType, 0, set.proto())
	b.U8(attrProtocol, protocol)
	b.String(attrTypeName, set.typ)
	b.U8(attrFamily, set.proto())
	err = s.conn.Do(ctx, b.Message(), func(m nfnl.Message) error {
		data, err := skipGeneric(m.Data)
		if err != nil {
			return err
		}
		a := nfnl.Walk(data)
		for a.Next() {
			if a.Type == attrRevision {
				revision = a.U8()
			}
		}
		return a.Err()
	})
	return revision, set.explain("type", err)
}

// header asks what a set is like, without its entries.
func (s *Sets) header(ctx context.Context, set *set) (h header, err error) {
	for m, err := range s.conn.Dump(ctx, set.list(listHeader)) {
		if err != nil {
			return header{}, set.explain("list", err)
		}
		more, err := decodeHeader(m.Data)
		if err != nil {
			return header{}, set.explain("list", err)
		}
		if more.typ != "" {
			h = more
		}
	}
	if h.typ == "" {
		return header{}, set.explain("list", errors.New("the kernel did not say what it is"))
	}
	return h, nil
}

func (s *set) list(flags uint32) nfnl.Message {
	var b nfnl.Builder
	s.begin(&b, cmdList, 0)
	if flags != 0 {
		b.U32(attrFlags|netOrder, flags)
	}
	return b.Message()
}

// of returns the set for a prefix, or nil.
func (s *Sets) of(p netip.Prefix) *set {
	for _, set := range s.sets {
		if set.takes(p) {
			return set
		}
	}
	return nil
}

// Room returns for how many bans the set for p has room, maxelem; 0 if there is
// no set for it.
func (s *Sets) Room(p netip.Prefix) int {
	if set := s.of(p); set != nil {
		return int(set.maxElem)
	}
	return 0
}

// List implements ban.Backend: the ends are up to a second early. Exceptions,
// entries with nomatch, are no bans.
func (s *Sets) List(ctx context.Context) iter.Seq2[ban.Entry, error] {
	return func(yield func(ban.Entry, error) bool) {
		for _, set := range s.sets {
			more := true
			err := s.walk(ctx, set, func(now time.Time, e element) bool {
				more = yield(e.entry(now), nil)
				return more
			})
			if err != nil {
				yield(ban.Entry{}, fmt.Errorf("ipset: list: %w", gone(err)))
			}
			if err != nil || !more {
				return
			}
		}
	}
}

func (e *element) entry(now time.Time) ban.Entry {
	until := ban.Forever
	if e.timeout > 0 {
		until = ban.For(now, time.Duration(e.timeout)*time.Second)
	}
	return ban.Entry{Prefix: e.prefix, Until: until, Reason: e.comment}
}

// walk dumps a set.
func (s *Sets) walk(ctx context.Context, set *set, yield func(time.Time, element) bool) error {
	for m, err := range s.conn.Dump(ctx, set.list(0)) {
		if err != nil {
			return set.explain("list", err)
		}
		now := time.Now()
		more, err := set.elements(m.Data, func(e element) bool {
			return e.flags&noMatch != 0 || yield(now, e)
		})
		if err != nil {
			return set.explain("list", err)
		}
		if !more {
			break
		}
	}
	return nil
}

// Dropped implements ban.Counter: what the entry matched in all rules that refer
// to the set, so that a rule that logs counts too. It reads the whole set:
// the kernel has no request for one entry. A set without counters is
// errors.ErrUnsupported.
func (s *Sets) Dropped(ctx context.Context, p netip.Prefix) (packets, bytes uint64, err error) {
	var found *element
	if set := s.of(p); set != nil {
		err = s.walk(ctx, set, func(_ time.Time, e element) bool {
			if e.prefix == p {
				found = &e
			}
			return found == nil
		})
	}
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("ipset: counters: %w", gone(err))
	case found == nil:
		return 0, 0, fmt.Errorf("ipset: counters: %v: %w", p, fs.ErrNotExist)
	case !found.counted:
		return 0, 0, fmt.Errorf("ipset: counters: the set was made without: %w", errors.ErrUnsupported)
	}
	return found.packets, found.bytes, nil
}

// Rules returns the commands that add the rules that drop what is banned, one for
// each set and chain: INPUT if none is named, and FORWARD for a router. They must
// stand before rules that accept established connections. They are alike for
// iptables-nft and iptables-legacy; nft(8) has none that refer to such sets.
func (s *Sets) Rules(chains ...string) []string {
	if len(chains) == 0 {
		chains = []string{"INPUT"}
	}
	var rules []string
	for _, chain := range chains {
		for _, set := range s.sets {
			rules = append(rules, set.rule(chain))
		}
	}
	return rules
}

// Enforcing implements ban.Enforcer: each set is there, and is referred to by a
// rule, or by a set of sets. It cannot tell what that rule does, where it stands
// and whether packets reach it; counters can.
func (s *Sets) Enforcing(ctx context.Context) error {
	var errs []error
	for _, set := range s.sets {
		h, err := s.header(ctx, set)
		switch {
		case err != nil:
			errs = append(errs, gone(err))
		case h.references == 0:
			errs = append(errs, fmt.Errorf("%w: no rule refers to set %s: %s", ban.ErrNotEnforcing, set.name, set.rule("INPUT")))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ipset: %w", err)
	}
	return nil
}

// gone makes the loss of a set what it means.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s (open it anew, and add the rules)", ban.ErrNotEnforcing, err) //nolint:errorlint // it is not that a ban does not exist
	}
	return err
}

// Purge removes the sets with all bans. It fails while rules refer to them.
func (s *Sets) Purge(ctx context.Context) error {
	var errs []error
	for _, set := range s.sets {
		var b nfnl.Builder
		set.begin(&b, cmdDestroy, 0)
		if err := set.explain("destroy", s.conn.Do(ctx, b.Message(), nil)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ipset: purge: %w", err)
	}
	return nil
}

// Close implements ban.Backend: sets and bans stay.
func (s *Sets) Close() error { return s.conn.Close() }
