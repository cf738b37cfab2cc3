package fail2ban

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// Ban implements ban.Backend. One that no jail bans for as long is
// errors.ErrUnsupported, or ban.ErrTooLong if it is longer than all; one that
// the jail ignores is ban.ErrGuarded.
func (j *Jails) Ban(ctx context.Context, entries ...ban.Entry) error {
	s, err := j.again(ctx)
	if err != nil {
		return fmt.Errorf("fail2ban: ban: %w", err)
	}
	defer s.close()
	b := batch{session: s, now: time.Now(), errs: make([]error, len(entries)), last: make(map[netip.Prefix]sentence)}
	for i := range entries {
		b.errs[i] = b.judge(i, &entries[i])
	}
	if err := b.carryOut(); err != nil {
		return fmt.Errorf("fail2ban: ban: %w", errors.Join(append(b.errs, err)...))
	}
	return errors.Join(b.errs...)
}

// batch is one call of Ban.
type batch struct {
	*session
	now  time.Time
	errs []error // of each entry
	last map[netip.Prefix]sentence
}

// sentence is what is to be done about a source.
type sentence struct {
	at     int   // index of the entry
	jail   *jail // nil if its ban is over
	until  ban.Until
	reason string
}

func (b *batch) judge(at int, e *ban.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	sent := sentence{at: at, until: e.Until, reason: plain(e.Reason)}
	if !e.Until.Over(b.now) {
		var err error
		if sent.jail, err = b.find(e); err != nil {
			return &ban.EntryError{Prefix: e.Prefix, Err: err}
		}
	}
	b.last[e.Prefix] = sent
	return nil
}

// find returns the jail for an entry: the one that bans the least longer.
func (b *batch) find(e *ban.Entry) (*jail, error) {
	if !b.cfg.Prefixes && !e.Prefix.IsSingleIP() {
		return nil, fmt.Errorf("a prefix, which the jails' actions may not take (Config.Prefixes): %w", errors.ErrUnsupported)
	}
	left, timed := e.Until.Left(b.now)
	var best *jail
	longest := time.Duration(0)
	for _, j := range b.jails {
		if timed == j.forever() {
			continue
		}
		longest = max(longest, j.banTime)
		if !timed || j.banTime+exact > left && (best == nil || j.banTime < best.banTime) {
			best = j
		}
	}
	switch {
	case best == nil && !timed:
		return nil, fmt.Errorf("no jail of %v bans for ever (bantime = -1): %w", b.cfg.Jails, errors.ErrUnsupported)
	case best == nil && longest > 0:
		return nil, fmt.Errorf("%w: no jail of %v bans for %v, the longest for %v", ban.ErrTooLong, b.cfg.Jails, left.Round(time.Second), longest)
	case best == nil || timed && best.banTime > left+b.cfg.Slack:
		return nil, fmt.Errorf("no jail of %v has bantime = %.0f (Config.Jails, Config.Slack): %w", b.cfg.Jails, left.Seconds(), errors.ErrUnsupported)
	}
	if ignored, ok := best.ignores(e.Prefix); ok {
		return nil, fmt.Errorf("%w: ignoreip of jail %s has %s", ban.ErrGuarded, best.name, name(ignored))
	}
	return best, nil
}

// carryOut bans first and lifts then what is held in other jails.
func (b *batch) carryOut() error {
	for _, j := range b.jails {
		if err := b.fill(j); err != nil {
			return err
		}
	}
	for _, j := range b.jails {
		err := b.lift(j, func(yield func(netip.Prefix) bool) {
			for p, sent := range b.last {
				if sent.jail != j && b.errs[sent.at] == nil && !yield(p) {
					return
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fill bans what is for a jail and is not banned there as asked for already:
// nothing would show when the server is done with an attempt that changes
// nothing, and one that it is not done with would ban again what is lifted next.
func (b *batch) fill(j *jail) error {
	mine := maps.Clone(b.last)
	maps.DeleteFunc(mine, func(p netip.Prefix, sent sentence) bool {
		return sent.jail != j || sent.held(j.held[p]) && !b.tooLong(j, p)
	})
	if len(mine) == 0 {
		return nil
	}
	err := b.lift(j, func(yield func(netip.Prefix) bool) {
		for p := range mine {
			if b.tooLong(j, p) && !yield(p) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if b.cfg.BanIP {
		err = b.banIP(j, mine)
	} else {
		err = b.attempt(j, mine)
	}
	if err != nil {
		return unknown(err)
	}
	return b.await(j, mine)
}

// tooLong reports a ban that must be lifted before it is made anew: the server
// prolongs bans, and shortens none. There are some when the jail's bantime was
// longer once.
func (b *batch) tooLong(j *jail, p netip.Prefix) bool {
	until, held := j.held[p]
	t, timed := until.Time()
	return held && (j.forever() == timed || timed && t.After(b.now.Add(j.banTime+exact)))
}

func (b *batch) banIP(j *jail, mine map[netip.Prefix]sentence) error {
	for some := range slices.Chunk(slices.Collect(maps.Keys(mine)), perCommand) {
		words := []string{"set", j.name, "banip"}
		for _, p := range some {
			words = append(words, name(p))
		}
		if _, err := b.number(words...); err != nil {
			return err
		}
	}
	return nil
}

// attempt counts as many failures as the jail wants, with the reason for each.
// The answer is 0 for what the server ignores by a name or a command.
func (b *batch) attempt(j *jail, mine map[netip.Prefix]sentence) error {
	for p, sent := range mine {
		words := []string{"set", j.name, "attempt", name(p)}
		for range max(j.maxRetry, 1) {
			words = append(words, sent.reason)
		}
		n, err := b.number(words...)
		switch {
		case err != nil:
			return err
		case n == 0:
			b.errs[sent.at] = &ban.EntryError{Prefix: p, Err: fmt.Errorf("%w: jail %s ignores it", ban.ErrGuarded, j.name)}
			delete(mine, p)
		}
	}
	return nil
}

// await reads back until all are banned, or over.
func (b *batch) await(j *jail, mine map[netip.Prefix]sentence) error {
	for deadline := time.Now().Add(patience); ; {
		if err := b.list(j); err != nil {
			return err
		}
		now := time.Now()
		maps.DeleteFunc(mine, func(p netip.Prefix, sent sentence) bool { return sent.until.Over(now) || sent.held(j.held[p]) })
		switch {
		case len(mine) == 0:
			return nil
		case now.After(deadline):
			for p, sent := range mine {
				b.errs[sent.at] = &ban.EntryError{Prefix: p, Err: fmt.Errorf("jail %s took it and does not ban it: see fail2ban's log", j.name)}
			}
			return nil
		}
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// held reports that a ban that was read back is the one asked for.
func (sent *sentence) held(got ban.Until) bool {
	want, timed := sent.until.Time()
	t, gotTimed := got.Time()
	if !timed {
		return got.Forever()
	}
	return gotTimed && t.Add(exact).After(want)
}
