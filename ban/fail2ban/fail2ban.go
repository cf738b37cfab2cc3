package fail2ban

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// Config is which server and which jails.
type Config struct {
	// Socket is the path of the server's socket; empty is
	// /var/run/fail2ban/fail2ban.sock.
	Socket string
	// Jails are the names of jails that ban for different times; none is the
	// jail "connsleuth".
	Jails []string
	// Slack is how much longer than asked for a ban may last, for want of a jail
	// that bans as long; 0 is 10 s.
	Slack time.Duration
	// BanIP bans with banip, whose actions are done when the call returns, and takes
	// many at once, but leaves no evidence; otherwise by attempt, about a second
	// later, which is waited for. Then the server lists the ban before it runs the
	// actions: a packet or two may pass yet.
	BanIP bool
	// Prefixes says that the jails' actions take them. Those of iptables and
	// pf do; those of nftables and ipset only where their sets are made with
	// flags interval and hash:net. Otherwise only hosts are banned.
	Prefixes bool
}

// Jails is a ban.Backend of a fail2ban server's jails. It is safe for concurrent
// use, and keeps nothing in memory, a connection neither: the server may be
// started again.
type Jails struct {
	cfg    Config
	busy   chan struct{} // one call at a time: the server does no more either
	closed atomic.Bool
}

var (
	_ ban.Backend  = (*Jails)(nil)
	_ ban.Enforcer = (*Jails)(nil)
)

const (
	defaultSocket = "/var/run/fail2ban/fail2ban.sock"
	defaultJail   = "connsleuth"
	defaultSlack  = 10 * time.Second
	// exact is what bans may be shorter than asked for: fail2ban counts seconds.
	exact = 2 * time.Second
	// patience is how long an attempt may take to become a ban: jails look for
	// them every second.
	patience = 20 * time.Second
	// perCommand is how many addresses go into one.
	perCommand = 500
)

// Open checks that the server is there and has the jails. A nil config is the
// zero Config.
//
// Errors: fs.ErrNotExist if there is no socket, fs.ErrPermission if it may not be
// used, ban.ErrNotEnforcing if there is no such jail.
func Open(ctx context.Context, cfg *Config) (*Jails, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	j := &Jails{cfg: *cfg, busy: make(chan struct{}, 1)}
	j.cfg.Socket = cmp.Or(cfg.Socket, defaultSocket)
	j.cfg.Slack = cmp.Or(cfg.Slack, defaultSlack)
	if j.cfg.Jails = slices.Clone(cfg.Jails); len(cfg.Jails) == 0 {
		j.cfg.Jails = []string{defaultJail}
	}
	if cfg.Slack < 0 {
		return nil, fmt.Errorf("fail2ban: config: slack %v: want 0 or more", cfg.Slack)
	}
	for _, name := range j.cfg.Jails {
		if name == "" || name == "--all" || plain(name) != name {
			return nil, fmt.Errorf("fail2ban: config: jail %q is no name", name)
		}
	}
	session, err := j.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("fail2ban: open: %w", err)
	}
	session.close()
	return j, nil
}

// session is one call of a backend.
type session struct {
	*client
	cfg   *Config
	jails []*jail
	busy  chan struct{}
}

func (s *session) close() {
	s.client.close()
	<-s.busy
}

// again opens a session with a server that was there once: now that it is not, no
// ban is enforced. That is not fs.ErrNotExist, which a caller could take for
// that of a ban.
func (j *Jails) again(ctx context.Context) (*session, error) {
	s, err := j.open(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %s", ban.ErrNotEnforcing, err) //nolint:errorlint // see above
	}
	return s, err
}

func (j *Jails) open(ctx context.Context) (*session, error) {
	if j.closed.Load() {
		return nil, net.ErrClosed
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case j.busy <- struct{}{}:
	}
	c, err := dial(ctx, j.cfg.Socket)
	if err != nil {
		<-j.busy
		return nil, err
	}
	s := &session{client: c, cfg: &j.cfg, busy: j.busy}
	if err := s.ask(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// ask reads what the jails are like, and what they hold.
func (s *session) ask() error {
	for _, name := range s.cfg.Jails {
		jail, err := s.client.ask(name)
		if err != nil {
			return err
		}
		if jail.maxRetry > maxMatches && !s.cfg.BanIP {
			return fmt.Errorf("jail %s has maxretry %d: it counts, and one attempt is no ban (set maxretry = 1, or Config.BanIP)", name, jail.maxRetry)
		}
		s.jails = append(s.jails, jail)
	}
	return nil
}

// Enforcing implements ban.Enforcer: the server answers, and has the jails. What
// their actions do it cannot tell.
func (j *Jails) Enforcing(ctx context.Context) error {
	s, err := j.again(ctx)
	if err != nil {
		return fmt.Errorf("fail2ban: %w", err)
	}
	s.close()
	return nil
}

// Unban implements ban.Backend.
func (j *Jails) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	s, err := j.again(ctx)
	if err != nil {
		return fmt.Errorf("fail2ban: unban: %w", err)
	}
	defer s.close()
	var errs []error
	lift := make(map[netip.Prefix]bool)
	for _, p := range prefixes {
		held := slices.ContainsFunc(s.jails, func(j *jail) bool {
			until, ok := j.held[p]
			return ok && !until.Over(time.Now())
		})
		if !held || lift[p] {
			errs = append(errs, &ban.EntryError{Prefix: p, Err: fs.ErrNotExist})
		}
		lift[p] = true
	}
	for _, jail := range s.jails {
		if err := s.lift(jail, maps.Keys(lift)); err != nil {
			return fmt.Errorf("fail2ban: unban: %w", errors.Join(append(errs, err)...))
		}
	}
	return errors.Join(errs...)
}

// lift ends what of the prefixes a jail holds. Others must not be named: of a
// prefix that is not banned itself, the server lifts all hosts.
func (s *session) lift(j *jail, prefixes iter.Seq[netip.Prefix]) error {
	var names []string
	for p := range prefixes {
		if _, held := j.held[p]; held {
			names = append(names, name(p))
		}
	}
	for some := range slices.Chunk(names, perCommand) {
		if _, err := s.call(append([]string{"set", j.name, "unbanip"}, some...)...); err != nil {
			return err
		}
	}
	return nil
}

// List implements ban.Backend. Ends are of whole seconds, read as this
// process's local time, which must be the server's. Of a source in several jails
// the last end counts. There are no reasons.
func (j *Jails) List(ctx context.Context) iter.Seq2[ban.Entry, error] {
	return func(yield func(ban.Entry, error) bool) {
		s, err := j.again(ctx)
		if err != nil {
			yield(ban.Entry{}, fmt.Errorf("fail2ban: list: %w", err))
			return
		}
		s.close()
		now := time.Now()
		held := make(map[netip.Prefix]ban.Until)
		for _, jail := range s.jails {
			for p, until := range jail.held {
				if before, ok := held[p]; !until.Over(now) && (!ok || later(until, before)) {
					held[p] = until
				}
			}
		}
		for p, until := range held {
			if !yield(ban.Entry{Prefix: p, Until: until}, nil) {
				return
			}
		}
	}
}

// later reports an end after another.
func later(u, v ban.Until) bool {
	t, timed := u.Time()
	w, wTimed := v.Time()
	return wTimed && (!timed || t.After(w))
}

// Close implements ban.Backend: the bans stay.
func (j *Jails) Close() error {
	if j.closed.Swap(true) {
		return net.ErrClosed
	}
	return nil
}
