package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
)

func TestWatchConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg  *Config
		want string
	}{
		{nil, "Config.Groups is empty"},
		{&Config{}, "Config.Groups is empty"},
		{&Config{Groups: []uint16{5, 6, 5}}, "group 5 twice"},
		{&Config{Groups: []uint16{5, 0}, Reasons: true}, "group 0, where the kernel writes its reasons"},
	} {
		var errs []error
		for v, err := range Watch(t.Context(), tt.cfg) {
			if v.Cause != "" {
				t.Errorf("%+v: a verdict with the error: %v", tt.cfg, v)
			}
			errs = append(errs, err)
		}
		if len(errs) != 1 || errs[0] == nil || !strings.HasPrefix(errs[0].Error(), "reject: ") || !strings.Contains(errs[0].Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cfg, errs, tt.want)
		}
	}
	if err := (&Config{Groups: []uint16{0, 1}}).check(); err != nil {
		t.Errorf("group 0 without Reasons: %v", err)
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, cfg := range []Config{{}, {Wait: -1, Repeat: -1, Flows: -1}} {
		d := cfg.withDefaults()
		if d.Wait != 250*time.Millisecond || d.Repeat != 10*time.Second || d.Flows != 4096 || d.Proc == nil {
			t.Errorf("%+v became %+v", cfg, d)
		}
	}
	proc := fstest.MapFS{"x": nil}
	cfg := Config{NetNS: "/run/netns/blue", Wait: 1, Repeat: 2, Flows: 3}
	if d := cfg.withDefaults(); d.Wait != 1 || d.Repeat != 2 || d.Flows != 3 || d.Proc != nil {
		t.Errorf("got %+v", d)
	}
	cfg.Proc = proc
	if d := cfg.withDefaults(); d.Proc == nil {
		t.Error("Proc is lost")
	}
}

// Losses are told, and ranging goes on after them; all else is the end.
func TestGoesOn(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&nflog.Lost{Count: 3}, true},
		{&nflog.Lost{Overrun: true}, true},
		{fmt.Errorf("group 50: %w", &nflog.Lost{}), true},
		{&conntrack.OpError{Op: "events", Err: conntrack.ErrOverrun}, true},
		{net.ErrClosed, false}, {fs.ErrPermission, false}, {context.Canceled, false}, {errors.New("another"), false},
	} {
		if got := goesOn(tt.err); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}

// TestRunErrors feeds run with what its readers tell: it yields losses and goes
// on, says that all is listened to, and ends with the first other error.
func TestRunErrors(t *testing.T) {
	calls := 0
	w := &watch{cfg: Config{Ready: func() { calls++ }}.withDefaults(), signals: make(chan signal, 9), flows: newFlows(1, false)}
	last := errors.New("the last")
	ready := make(chan struct{})
	close(ready)
	for _, err := range []error{&nflog.Lost{Count: 3}, conntrack.ErrOverrun} {
		w.signals <- signal{err: err}
	}
	var got []error
	w.run(t.Context(), ready, func(_ Verdict, err error) bool {
		got = append(got, err)
		if len(got) == 2 {
			w.signals <- signal{err: last}
		}
		return true
	})
	if len(got) != 3 || !errors.Is(got[0], nflog.ErrLost) || !errors.Is(got[1], conntrack.ErrOverrun) || !errors.Is(got[2], last) {
		t.Errorf("got %v", got)
	}
	if slices.ContainsFunc(got, func(err error) bool { return !strings.HasPrefix(err.Error(), "reject: ") }) {
		t.Errorf("got %q", got)
	}
	if calls > 1 {
		t.Errorf("Ready was called %d times", calls)
	}
}

// Breaking off at a loss ends run.
func TestRunBreak(t *testing.T) {
	w := &watch{cfg: Config{}.withDefaults(), signals: make(chan signal, 9), flows: newFlows(1, false)}
	w.signals <- signal{err: &nflog.Lost{}}
	w.signals <- signal{err: &nflog.Lost{}}
	n := 0
	w.run(t.Context(), nil, func(Verdict, error) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d calls", n)
	}
}
