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
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// backends open what bans, by name.
var backends = map[string]func(context.Context, *Flags) (ban.Backend, error){
	"memory": func(context.Context, *Flags) (ban.Backend, error) { return new(ban.Memory), nil },
	"nft": func(ctx context.Context, f *Flags) (ban.Backend, error) {
		return backend(nft.Open(ctx, &nft.Config{Table: f.Set, Counters: true}))
	},
	"fail2ban": func(ctx context.Context, f *Flags) (ban.Backend, error) {
		// An attempt may take effect after what the source has open was cut.
		cfg := fail2ban.Config{Socket: f.Socket, Prefixes: f.Wide, BanIP: true}
		if f.Set != "" {
			cfg.Jails = strings.Split(f.Set, ",")
		}
		return backend(fail2ban.Open(ctx, &cfg))
	},
	"ipset": func(ctx context.Context, f *Flags) (ban.Backend, error) {
		// What others add by hand goes away by itself.
		return backend(ipset.Open(ctx, &ipset.Config{Name: f.Set, Timeout: 300 * time.Second}))
	},
}

// backend keeps a nil pointer out of the interface.
func backend[B ban.Backend](b B, err error) (ban.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Backends are the names that -backend takes.
func Backends() []string { return slices.Sorted(maps.Keys(backends)) }

// Bouncer bans by a backend, and cuts.
type Bouncer struct {
	// Conntrack is nil in a dry run that may not use it: Blind says why.
	Conntrack *conntrack.Conn
	Blind     error
	Sockets   *sockdiag.Conn
	Proc      fs.FS

	flags   Flags
	backend ban.Backend
	cutter  cut.Cutter
	tell    teller
}

// Open opens what the flags ask for. What is done is told to w. Without -apply
// nothing is opened that could change anything: bans are kept in memory, and the
// journal is left alone.
func Open(ctx context.Context, flags Flags, w io.Writer) (_ *Bouncer, err error) {
	if flags.BanTime < 0 {
		return nil, Usagef("-bantime %v: want 0 or more", flags.BanTime)
	}
	b := &Bouncer{flags: flags, Proc: os.DirFS("/proc"), tell: teller{w: w, json: flags.JSON, now: time.Now}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.Sockets, err = sockdiag.Dial(nil); err != nil {
		return nil, err
	}
	if err := b.track(ctx); err != nil {
		if b.Blind = err; flags.Apply {
			return nil, err
		}
		b.tell.note("no flows, but sockets only, are in what a ban would cut", err)
	}
	b.cutter = cut.Cutter{Conntrack: b.Conntrack, Sockets: b.Sockets, Proc: b.Proc}
	open := backends["memory"]
	if flags.Apply {
		open = backends[flags.Backend]
	}
	next, err := open(ctx, &flags)
	if err != nil {
		return nil, err
	}
	b.guard(next)
	if !flags.Apply {
		return b, b.tell.err
	}
	if err := b.restore(ctx); err != nil {
		return nil, err
	}
	b.enforcing(ctx)
	return b, b.tell.err
}

// track opens the tracker, and finds out whether it may be asked.
func (b *Bouncer) track(ctx context.Context) error {
	ct, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	if _, err := ct.Usage(ctx); err != nil {
		return errors.Join(err, ct.Close())
	}
	b.Conntrack = ct
	return nil
}

// guard puts a guard in front of a backend.
func (b *Bouncer) guard(next ban.Backend) {
	system := ban.Systems(
		ban.SystemOf(b.Proc, os.DirFS("/etc"), os.Getenv("SSH_CONNECTION")),
		cut.Sessions(b.Sockets, b.flags.Sessions...))
	b.backend = ban.Guard{Allow: b.flags.Allow, System: system}.Protect(next)
}

// restore bans again what the journal says, if there is one.
func (b *Bouncer) restore(ctx context.Context) error {
	if b.flags.Journal == "" {
		return nil
	}
	j, err := ban.OpenJournal(b.flags.Journal, b.backend)
	if err != nil {
		return err
	}
	b.backend = j
	if n := j.Damaged(); n > 0 {
		b.tell.note("the journal is damaged", fmt.Errorf("%s: %d records could not be read, and were passed over", b.flags.Journal, n))
	}
	entries := j.Entries()
	err = j.Restore(ctx)
	failed, all := ban.Failed(err)
	if !all {
		return err
	}
	refused := byPrefix(failed)
	for _, e := range entries {
		if why, no := refused[e.Prefix]; no {
			b.tell.refused(e, why)
		} else {
			b.tell.entry("restored", e)
		}
	}
	return nil
}

// enforcing tells when bans have no effect.
func (b *Bouncer) enforcing(ctx context.Context) {
	e, ok := b.backend.(ban.Enforcer)
	if !ok {
		return
	}
	if err := e.Enforcing(ctx); err != nil && ctx.Err() == nil {
		b.tell.note("bans have no effect", err)
	}
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

// Note tells of something that is not as it should be.
func (b *Bouncer) Note(what string, err error) { b.tell.note(what, err) }

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

// Ban bans the entries, or says that it would, and cuts what they have open.
// Those that are refused are told and returned; the error is that of what broke.
func (b *Bouncer) Ban(ctx context.Context, entries ...ban.Entry) (refused []netip.Prefix, err error) {
	if len(entries) == 0 {
		return nil, nil
	}
	err = b.backend.Ban(ctx, entries...)
	failed, all := ban.Failed(err)
	why := byPrefix(failed)
	var banned []netip.Prefix
	for _, e := range entries {
		switch err, no := why[e.Prefix]; {
		case no:
			b.tell.refused(e, err)
			refused = append(refused, e.Prefix)
		case all && !b.flags.Apply:
			b.preview(ctx, e)
		case all:
			b.tell.entry("banned", e)
			banned = append(banned, e.Prefix)
		}
	}
	if !all {
		return refused, err
	}
	return refused, errors.Join(b.cut(ctx, banned), b.tell.err)
}

func byPrefix(failed []*ban.EntryError) map[netip.Prefix]error {
	by := make(map[netip.Prefix]error, len(failed))
	for _, f := range failed {
		by[f.Prefix] = f.Err
	}
	return by
}

func (b *Bouncer) preview(ctx context.Context, e ban.Entry) {
	p, err := b.cutter.Preview(ctx, e.Prefix)
	b.tell.would(e, p, err)
}

// cut ends what banned sources have open.
func (b *Bouncer) cut(ctx context.Context, banned []netip.Prefix) error {
	if len(banned) == 0 {
		return nil
	}
	b.enforcing(ctx)
	report, err := b.cutter.Sources(ctx, nil, banned...)
	b.tell.cut(banned, report)
	return err
}
