package bantest_test

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
)

// spoiled is a Memory with a defect that a backend could have.
type spoiled struct {
	*ban.Memory
	ban   func(m *ban.Memory, ctx context.Context, entries []ban.Entry) error
	unban func(m *ban.Memory, ctx context.Context, prefixes []netip.Prefix) error
	list  func(m *ban.Memory, ctx context.Context) iter.Seq2[ban.Entry, error]
}

func (s *spoiled) Ban(ctx context.Context, entries ...ban.Entry) error {
	if s.ban != nil {
		return s.ban(s.Memory, ctx, entries)
	}
	return s.Memory.Ban(ctx, entries...)
}

func (s *spoiled) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	if s.unban != nil {
		return s.unban(s.Memory, ctx, prefixes)
	}
	return s.Memory.Unban(ctx, prefixes...)
}

func (s *spoiled) List(ctx context.Context) iter.Seq2[ban.Entry, error] {
	if s.list != nil {
		return s.list(s.Memory, ctx)
	}
	return s.Memory.List(ctx)
}

// each bans entry by entry what change leaves, with what is in force of it.
func each(change func(e ban.Entry, have ban.Entry, is bool) (ban.Entry, bool)) func(*ban.Memory, context.Context, []ban.Entry) error {
	return func(m *ban.Memory, ctx context.Context, entries []ban.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		have := make(map[netip.Prefix]ban.Entry)
		for e, err := range m.List(ctx) {
			if err != nil {
				return err
			}
			have[e.Prefix] = e
		}
		var pass []ban.Entry
		for _, e := range entries {
			was, is := have[e.Prefix]
			if e, ok := change(e, was, is); ok {
				pass = append(pass, e)
				have[e.Prefix] = e
			}
		}
		return m.Ban(ctx, pass...)
	}
}

// defects are what the suite must find, each as some backend has had it.
var defects = map[string]func(*spoiled){
	"loses one of 2340": func(s *spoiled) {
		n := 0
		s.ban = each(func(e, _ ban.Entry, _ bool) (ban.Entry, bool) { n++; return e, n%2340 != 0 })
	},
	"does not renew": func(s *spoiled) {
		s.ban = each(func(e, have ban.Entry, is bool) (ban.Entry, bool) {
			return e, !is || e.Until.Forever() || have.Until.Forever() || e.Until.Over(time.Now())
		})
	},
	"does not shorten": func(s *spoiled) {
		s.ban = each(func(e, have ban.Entry, is bool) (ban.Entry, bool) {
			a, ok := e.Until.Time()
			b, timed := have.Until.Time()
			return e, !is || !ok || !timed || a.After(b) || e.Until.Over(time.Now())
		})
	},
	"keeps forever": func(s *spoiled) {
		s.ban = each(func(e, have ban.Entry, is bool) (ban.Entry, bool) { return e, !is || !have.Until.Forever() })
	},
	"cannot make forever": func(s *spoiled) {
		s.ban = each(func(e, have ban.Entry, is bool) (ban.Entry, bool) {
			if is && e.Until.Forever() {
				e.Until = have.Until
			}
			return e, true
		})
	},
	"clamps": func(s *spoiled) {
		s.ban = each(func(e, _ ban.Entry, _ bool) (ban.Entry, bool) {
			if end, ok := e.Until.Time(); ok && time.Until(end) > 2147482*time.Second {
				e.Until = ban.For(time.Now(), 2147482*time.Second)
			}
			return e, true
		})
	},
	"bans what is over": func(s *spoiled) {
		s.ban = each(func(e, _ ban.Entry, _ bool) (ban.Entry, bool) {
			if e.Until.Over(time.Now()) {
				e.Until = ban.Forever
			}
			return e, true
		})
	},
	"all or nothing": func(s *spoiled) {
		s.ban = func(m *ban.Memory, ctx context.Context, entries []ban.Entry) error {
			for _, e := range entries {
				if err := e.Check(); err != nil {
					return err
				}
			}
			return m.Ban(ctx, entries...)
		}
	},
	"masks prefixes off": func(s *spoiled) {
		s.ban = each(func(e, _ ban.Entry, _ bool) (ban.Entry, bool) {
			if e.Prefix.IsValid() && e.Prefix.Bits() > 0 && e.Prefix == e.Prefix.Masked() {
				e.Prefix = netip.PrefixFrom(e.Prefix.Addr(), e.Prefix.Addr().BitLen())
			}
			return e, true
		})
	},
	"unbans in silence": func(s *spoiled) {
		s.unban = func(m *ban.Memory, ctx context.Context, prefixes []netip.Prefix) error {
			if _, only := ban.Failed(m.Unban(ctx, prefixes...)); !only {
				return errors.Join(ctx.Err(), m.Unban(ctx, prefixes...))
			}
			return nil
		}
	},
	"unbans up to the first that is absent": func(s *spoiled) {
		s.unban = func(m *ban.Memory, ctx context.Context, prefixes []netip.Prefix) error {
			for _, p := range prefixes {
				if err := m.Unban(ctx, p); err != nil {
					return err
				}
			}
			return nil
		}
	},
	"lists twice": func(s *spoiled) {
		s.list = func(m *ban.Memory, ctx context.Context) iter.Seq2[ban.Entry, error] {
			return func(yield func(ban.Entry, error) bool) {
				for e, err := range m.List(ctx) {
					for range 2 {
						if !yield(e, err) {
							return
						}
					}
				}
			}
		}
	},
	"full in silence": func(s *spoiled) {
		s.ban = func(m *ban.Memory, ctx context.Context, entries []ban.Entry) error {
			err := m.Ban(ctx, entries...)
			if errors.Is(err, ban.ErrFull) {
				return nil
			}
			return err
		}
	},
}

const defectEnv = "CONNSLEUTH_DEFECT"

// spoiledPlace is that of a spoiled Memory.
type spoiledPlace struct {
	place
	spoil func(*spoiled)
}

func (p *spoiledPlace) Backend(t *testing.T) ban.Backend {
	p.place.Backend(t)
	s := &spoiled{Memory: p.memory}
	p.spoil(s)
	return s
}

func (p *spoiledPlace) Small(_ *testing.T, n int) ban.Backend {
	s := &spoiled{Memory: &ban.Memory{Max: n}}
	p.spoil(s)
	return s
}

// TestSpoiled is the suite with a defect, in a process of its own.
func TestSpoiled(t *testing.T) {
	spoil, ok := defects[os.Getenv(defectEnv)]
	if !ok {
		t.Skip("run by TestSuiteBites")
	}
	bantest.Run(t, bantest.Suite{
		Open: func(*testing.T) bantest.Place { return &spoiledPlace{place{new(ban.Memory)}, spoil} },
		No:   bantest.NoWipe, Many: 2400,
	})
}

// TestSuiteBites: the suite fails with each of the defects, and passes without.
func TestSuiteBites(t *testing.T) {
	defects["none"] = func(*spoiled) {}
	for name := range defects {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpoiled$", "-test.v")
			cmd.Env = append(os.Environ(), defectEnv+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case name == "none" && err != nil:
				t.Errorf("without a defect: %v\n%s", err, out)
			case name != "none" && (!errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestSpoiled/")):
				t.Errorf("the suite did not see it: %v\n%s", err, out)
			}
		})
	}
}
