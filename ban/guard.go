package ban

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Guard keeps bans from locking out those who must not be, and from growing
// beyond measure. It stands in front of a Backend: see Protect. The zero Guard
// protects what Reserved and System tell.
type Guard struct {
	// Allow are never banned: the database peer, the monitoring, the office.
	Allow []netip.Prefix
	// System tells who else is not. It is asked before every change, so that
	// addresses, routes and sessions count as they are then; an error of it
	// refuses all bans. Nil is SystemOf(os.DirFS("/proc"), os.DirFS("/etc"), SSH_CONNECTION).
	System System

	// MinBits4 and MinBits6 are the shortest prefixes that may be banned; 0 is
	// 24 and 48.
	MinBits4, MinBits6 int
	// PerMinute is how many new bans may be made within a minute, and Total
	// how many may be in force; 0 is 600 and 100,000, negative is no limit. A
	// ban that is renewed is not new.
	PerMinute, Total int
}

// System tells who must not be banned at the moment.
type System func(context.Context) ([]Protected, error)

// Systems joins what several tell.
func Systems(systems ...System) System {
	return func(ctx context.Context) (all []Protected, err error) {
		for _, s := range systems {
			more, err := s(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		return all, nil
	}
}

// SystemOf returns the System that reads Own and Gateways of a /proc, Resolvers
// of an /etc file system, and Session.
func SystemOf(proc, etc fs.FS, sshConnection string) System {
	return func(context.Context) ([]Protected, error) {
		own, err1 := Own(proc)
		gateways, err2 := Gateways(proc)
		resolvers, err3 := Resolvers(etc)
		session, err4 := Session(sshConnection)
		all := append(append(append(own, gateways...), resolvers...), session...)
		return all, errors.Join(err1, err2, err3, err4)
	}
}

func (g Guard) withDefaults() Guard {
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	set(&g.MinBits4, 24)
	set(&g.MinBits6, 48)
	set(&g.PerMinute, 600)
	set(&g.Total, 100_000)
	if g.System == nil {
		g.System = SystemOf(os.DirFS("/proc"), os.DirFS("/etc"), os.Getenv("SSH_CONNECTION"))
	}
	return g
}

// protected returns all who are not to be banned now.
func (g *Guard) protected(ctx context.Context) (*protection, error) {
	all, err := g.System(ctx)
	if err != nil {
		return nil, fmt.Errorf("ban: nobody is banned while it is not known who must not be: %w", err)
	}
	for _, p := range g.Allow {
		all = append(all, Protected{unmapped(p), "allowed"})
	}
	return protect(append(all, Reserved()...)), nil
}

// unmapped is a prefix as packets have it.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// Refuse returns why the Guard would not let a source be banned, as an
// *EntryError that wraps ErrGuarded, or nil. Caps are not looked at.
func (g Guard) Refuse(ctx context.Context, prefix netip.Prefix) error {
	g = g.withDefaults()
	all, err := g.protected(ctx)
	if err != nil {
		return err
	}
	return g.refuse(prefix, all)
}

func (g *Guard) refuse(prefix netip.Prefix, all *protection) error {
	if p, ok := all.overlapping(prefix); ok {
		how := "is within"
		if p.Prefix.Bits() > prefix.Bits() {
			how = "contains"
		}
		return &EntryError{prefix, fmt.Errorf("%w: it %s %v (%s)", ErrGuarded, how, p.Prefix, p.Why)}
	}
	least := g.MinBits6
	if prefix.Addr().Is4() {
		least = g.MinBits4
	}
	if prefix.Bits() < least {
		return &EntryError{prefix, fmt.Errorf("%w: wider than a /%d", ErrGuarded, least)}
	}
	return nil
}

// protection is a set of prefixes that are found by what they contain and by
// what contains them.
type protection struct {
	by     map[netip.Prefix]Protected
	bits   []int // lengths in by
	sorted []netip.Prefix
}

func protect(all []Protected) *protection {
	s := &protection{by: make(map[netip.Prefix]Protected, len(all))}
	for _, p := range all {
		p.Prefix = unmapped(p.Prefix)
		if _, have := s.by[p.Prefix]; have || !p.Prefix.IsValid() {
			continue
		}
		s.by[p.Prefix] = p
		s.sorted = append(s.sorted, p.Prefix)
		if !slices.Contains(s.bits, p.Prefix.Bits()) {
			s.bits = append(s.bits, p.Prefix.Bits())
		}
	}
	slices.SortFunc(s.sorted, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return s
}

// overlapping finds a prefix of the set that contains p or is within it.
func (s *protection) overlapping(p netip.Prefix) (Protected, bool) {
	for _, bits := range s.bits {
		if bits > p.Bits() {
			continue
		}
		if found, ok := s.by[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return found, true
		}
	}
	i, _ := slices.BinarySearchFunc(s.sorted, p.Addr(), func(q netip.Prefix, a netip.Addr) int { return q.Addr().Compare(a) })
	if i < len(s.sorted) && p.Contains(s.sorted[i].Addr()) {
		return s.by[s.sorted[i]], true
	}
	return Protected{}, false
}

// Protect returns a Backend that bans by b what the Guard lets pass, and refuses
// the other entries with ErrGuarded or ErrLimit. Unban is never refused. Its
// Close closes b.
func (g Guard) Protect(b Backend) *Guarded {
	return &Guarded{guard: g.withDefaults(), next: b, now: time.Now}
}

// Guarded is a Backend behind a Guard.
type Guarded struct {
	guard Guard
	next  Backend
	now   func() time.Time

	mu     sync.Mutex
	made   []time.Time            // of the new bans in the last minute
	active map[netip.Prefix]Until // nil until b was asked
	swept  time.Time              // when active was rid of what is over
}

var (
	_ Backend  = (*Guarded)(nil)
	_ Checker  = (*Guarded)(nil)
	_ Enforcer = (*Guarded)(nil)
)

// Ban implements Backend.
func (g *Guarded) Ban(ctx context.Context, entries ...Entry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	pass, err := g.pass(ctx, entries, true)
	if len(pass) == 0 && err != nil {
		return err
	}
	banErr := g.next.Ban(ctx, pass...)
	failed, all := Failed(banErr)
	if !all {
		g.active = nil // not known any more
	}
	for _, f := range failed {
		delete(g.active, f.Prefix)
	}
	return errors.Join(err, banErr)
}

// Check implements Checker.
func (g *Guarded) Check(ctx context.Context, entries ...Entry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	pass, err := g.pass(ctx, entries, false)
	if len(pass) == 0 && err != nil {
		return err
	}
	return errors.Join(err, check(ctx, g.next, pass))
}

// pass returns the entries that may be banned, and counts them if they will be.
func (g *Guarded) pass(ctx context.Context, entries []Entry, count bool) ([]Entry, error) {
	all, err := g.guard.protected(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.adopt(ctx); err != nil {
		return nil, err
	}
	now := g.now()
	g.forget(now, len(entries))
	limits := limits{made: len(g.made), active: len(g.active)}
	var (
		pass []Entry
		errs []error
		seen = make(map[netip.Prefix]bool)
	)
	for _, e := range entries {
		err := e.Check()
		if err == nil && !e.Until.Over(now) {
			err = g.guard.refuse(e.Prefix, all)
			if _, have := g.active[e.Prefix]; err == nil && !have && !seen[e.Prefix] {
				err = limits.take(&g.guard, e.Prefix)
				seen[e.Prefix] = err == nil
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pass = append(pass, e)
	}
	if count {
		g.count(now, pass)
	}
	return pass, errors.Join(errs...)
}

// limits counts what a call adds.
type limits struct{ made, active int }

func (l *limits) take(g *Guard, p netip.Prefix) error {
	switch {
	case g.PerMinute > 0 && l.made >= g.PerMinute:
		return &EntryError{p, fmt.Errorf("%w: %d within a minute (Guard.PerMinute)", ErrLimit, g.PerMinute)}
	case g.Total > 0 && l.active >= g.Total:
		return &EntryError{p, fmt.Errorf("%w: %d are in force (Guard.Total)", ErrLimit, g.Total)}
	}
	l.made++
	l.active++
	return nil
}

func (g *Guarded) count(now time.Time, pass []Entry) {
	for _, e := range pass {
		_, have := g.active[e.Prefix]
		switch {
		case e.Until.Over(now):
			delete(g.active, e.Prefix)
			continue
		case !have:
			g.made = append(g.made, now)
		}
		g.active[e.Prefix] = e.Until
	}
}

// adopt learns what is in force.
func (g *Guarded) adopt(ctx context.Context) error {
	if g.active != nil {
		return nil
	}
	active := make(map[netip.Prefix]Until)
	for e, err := range g.next.List(ctx) {
		if err != nil {
			return err
		}
		active[e.Prefix] = e.Until
	}
	g.active = active
	return nil
}

// forget drops what is over: new bans a minute old, and bans that have ended,
// once a second or if they would be in the way of n others.
func (g *Guarded) forget(now time.Time, n int) {
	since := now.Sub(g.swept)
	if since < 0 || since >= time.Second || g.guard.Total > 0 && len(g.active)+n > g.guard.Total {
		g.swept = now
		maps.DeleteFunc(g.active, func(_ netip.Prefix, u Until) bool { return u.Over(now) })
	}
	g.made = slices.DeleteFunc(g.made, func(at time.Time) bool {
		return now.Sub(at) >= time.Minute || now.Before(at)
	})
}

// Unban implements Backend.
func (g *Guarded) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.next.Unban(ctx, prefixes...)
	if _, all := Failed(err); !all {
		g.active = nil // not known any more
	}
	for _, p := range prefixes {
		delete(g.active, p)
	}
	return err
}

// List implements Backend.
func (g *Guarded) List(ctx context.Context) iter.Seq2[Entry, error] { return g.next.List(ctx) }

// Enforcing implements Enforcer, if the Backend does.
func (g *Guarded) Enforcing(ctx context.Context) error { return enforcing(ctx, g.next) }

// Close closes the Backend.
func (g *Guarded) Close() error { return g.next.Close() }
