package bouncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// backends open what bans, by name.
var backends = map[string]func(context.Context, *Flags) (ban.Backend, error){
	"memory": func(context.Context, *Flags) (ban.Backend, error) { return new(ban.Memory), nil },
}

// Backends are the names that -backend takes.
func Backends() []string { return slices.Sorted(maps.Keys(backends)) }

// Bouncer bans by a backend, and cuts.
type Bouncer struct {
	Conntrack *conntrack.Conn // nil where it cannot be had and nothing is to be done
	Sockets   *sockdiag.Conn
	Proc      fs.FS

	flags   Flags
	backend ban.Backend
	cutter  cut.Cutter
	tell    teller
}

// Open opens what the flags ask for. What is done is told to w. Without -apply
// nothing is opened that could change anything: bans are kept in memory.
func Open(ctx context.Context, flags Flags, w io.Writer) (_ *Bouncer, err error) {
	b := &Bouncer{flags: flags, Proc: os.DirFS("/proc"), tell: teller{w: w, json: flags.JSON}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.Sockets, err = sockdiag.Dial(&sockdiag.Config{NetNS: flags.NetNS}); err != nil {
		return nil, err
	}
	if b.Conntrack, err = conntrack.Dial(&conntrack.Config{NetNS: flags.NetNS}); err != nil && flags.Apply {
		return nil, err
	}
	b.cutter = cut.Cutter{Conntrack: b.Conntrack, Sockets: b.Sockets, Proc: b.Proc}
	open, ok := backends[flags.Backend]
	switch {
	case !ok:
		return nil, fmt.Errorf("-backend %q: want one of %v", flags.Backend, Backends())
	case !flags.Apply:
		open = backends["memory"]
	}
	next, err := open(ctx, &flags)
	if err != nil {
		return nil, err
	}
	system := ban.Systems(
		ban.SystemOf(b.Proc, os.DirFS("/etc"), os.Getenv("SSH_CONNECTION")),
		cut.Sessions(b.Sockets, flags.Sessions...))
	b.backend = ban.Guard{Allow: flags.Allow, System: system}.Protect(next)
	if flags.Journal == "" || !flags.Apply {
		return b, nil
	}
	j, err := ban.OpenJournal(flags.Journal, b.backend)
	if err != nil {
		return nil, err
	}
	b.backend = j
	return b, j.Restore(ctx)
}

// Close lets go of everything. The bans stay.
func (b *Bouncer) Close() error {
	var errs []error
	if b.backend != nil {
		errs = append(errs, b.backend.Close())
	}
	if b.Conntrack != nil {
		errs = append(errs, b.Conntrack.Close())
	}
	if b.Sockets != nil {
		errs = append(errs, b.Sockets.Close())
	}
	return errors.Join(errs...)
}

// Adopt makes the bans that are in force known to a Jail.
func (b *Bouncer) Adopt(ctx context.Context, now time.Time, jail *ban.Jail) error {
	for e, err := range b.backend.List(ctx) {
		if err != nil {
			return err
		}
		jail.Adopt(now, e)
	}
	return nil
}

// Every calls look at once and then every so often, until ctx ends or there were
// as many rounds as wanted. An error of look ends it; that ctx ended is none.
func (b *Bouncer) Every(ctx context.Context, look func(context.Context, time.Time) error) error {
	tick := time.NewTicker(max(b.flags.Every, time.Millisecond))
	defer tick.Stop()
	for n := 1; ; n++ {
		err := look(ctx, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || n == b.flags.Rounds {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ban bans the entries, or says that it would, and cuts what they have open. An
// entry that is refused is told; the error is that of what broke.
func (b *Bouncer) Ban(ctx context.Context, entries []ban.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	err := b.backend.Ban(ctx, entries...)
	failed, all := ban.Failed(err)
	refused := make(map[netip.Prefix]error)
	for _, f := range failed {
		refused[f.Prefix] = f.Err
	}
	var banned []netip.Prefix
	for _, e := range entries {
		switch why, no := refused[e.Prefix]; {
		case no:
			b.tell.refused(e, why)
		case all && !b.flags.Apply:
			p, err := b.cutter.Preview(ctx, e.Prefix)
			b.tell.would(e, p, err)
		case all:
			b.tell.banned(e)
			banned = append(banned, e.Prefix)
		}
	}
	if !all {
		return err
	}
	if len(banned) == 0 {
		return nil
	}
	report, err := b.cutter.Sources(ctx, nil, banned...)
	b.tell.cut(banned, report)
	return err
}
