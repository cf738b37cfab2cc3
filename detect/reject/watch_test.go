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
	for _, cfg := range []Config{{}, {Wait: -1, Repeat: -1, Flows: -1, SourceFlows: -1, Lookups: -1}} {
		d := cfg.withDefaults()
		if d.Wait != 250*time.Millisecond || d.Repeat != 10*time.Second || d.Flows != 16384 ||
			d.SourceFlows != 128 || d.Lookups != 2000 || d.Proc == nil {
			t.Errorf("%+v became %+v", cfg, d)
		}
	}
	proc := fstest.MapFS{"x": nil}
	cfg := Config{NetNS: "/run/netns/blue", Wait: 1, Repeat: 2, Flows: 3, SourceFlows: 4, Lookups: 5}
	if d := cfg.withDefaults(); d.Wait != 1 || d.Repeat != 2 || d.Flows != 3 || d.SourceFlows != 4 || d.Lookups != 5 || d.Proc != nil {
		t.Errorf("got %+v", d)
	}
	cfg.Proc = proc
	if d := cfg.withDefaults(); d.Proc == nil {
		t.Error("Proc is lost")
	}
}

// Losses are told, and reading goes on after them; all else is the end.
func TestGoesOn(t *testing.T) {
	for _, tt := range []struct {
		err   error
		count uint64
		goes  bool
	}{
		{&nflog.Lost{Count: 3, Group: 7}, 3, true},
		{&nflog.Lost{Overrun: true}, 0, true},
		{fmt.Errorf("group 50: %w", &nflog.Lost{Count: 1}), 1, true},
		{errNotIP, 1, true},
		{&conntrack.OpError{Op: "events", Err: conntrack.ErrOverrun}, 0, true},
		{net.ErrClosed, 0, false}, {fs.ErrPermission, 0, false}, {errors.New("another"), 0, false},
	} {
		w := newWatch(Config{}.withDefaults())
		if got := w.goesOn(t.Context(), Packets, 7, tt.err); got != tt.goes {
			t.Errorf("%v: %t", tt.err, got)
		}
		if tt.goes != (len(w.losses) == 1) || tt.goes == (w.err != nil) {
			t.Errorf("%v: %v, %v", tt.err, w.losses, w.err)
		}
		if tt.goes && (w.losses[0].Count != tt.count || !errors.Is(&w.losses[0], tt.err)) {
			t.Errorf("%v: %+v", tt.err, w.losses[0])
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if w := newWatch(Config{}.withDefaults()); w.goesOn(over, Ends, 0, over.Err()) || w.err != nil {
		t.Errorf("a source that the context ended: %v", w.err)
	}
}

// A slow caller gets one Lost of each source, with the sum.
func TestLostAddsUp(t *testing.T) {
	w := newWatch(Config{}.withDefaults())
	for range 1000 {
		for _, l := range []Lost{
			{Source: Packets, Group: 50, Count: 2, Err: &nflog.Lost{Count: 2}},
			{Source: Packets, Group: 51, Count: 1, Err: errNotIP},
			{Source: Reasons, Count: 3, Err: &nflog.Lost{Count: 3}},
			{Source: Ends, Err: conntrack.ErrOverrun},
			{Source: Traces, Err: conntrack.ErrOverrun},
		} {
			w.lost(l)
		}
	}
	_, losses, _, _ := w.take(now)
	var got []string
	for i := range losses {
		got = append(got, losses[i].Error())
	}
	overrun := " were missed: " + conntrack.ErrOverrun.Error()
	want := []string{
		"2000 logged packets of group 50 were missed: nflog: group 0: 2 packets were lost",
		"1000 logged packets of group 51 were missed: " + errNotIP.Error(),
		"3000 reasons for INVALID packets were missed: nflog: group 0: 3 packets were lost",
		"ends of entries" + overrun, "traces of packets" + overrun,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, again, _, _ := w.take(now); len(again) > 0 {
		t.Errorf("told twice: %v", again)
	}
}

// TestRunErrors gives run what its sources tell: it yields losses and goes on,
// says that all is listened to, tells what is left, and ends with the error.
func TestRunErrors(t *testing.T) {
	calls := 0
	w := newWatch(Config{Ready: func() { calls++ }}.withDefaults())
	last := errors.New("the last")
	ready := make(chan struct{})
	close(ready)
	w.lost(Lost{Err: &nflog.Lost{Count: 3}})
	w.lost(Lost{Source: Ends, Err: conntrack.ErrOverrun})
	var got []error
	told := 0
	w.run(t.Context(), ready, func(v Verdict, err error) bool {
		if err == nil {
			told += v.Count
			return true
		}
		if got = append(got, err); len(got) == 2 {
			w.mu.Lock()
			for range 5 {
				w.refused(sighted(newScene(t, 1).syn(1)), now)
			}
			w.mu.Unlock()
			w.fail(last)
			w.fail(errors.New("one too many"))
		}
		return true
	})
	if len(got) != 3 || !errors.Is(got[0], nflog.ErrLost) || !errors.Is(got[1], conntrack.ErrOverrun) || got[2] != last { //nolint:errorlint // as it is
		t.Errorf("got %v", got)
	}
	if told != 5 {
		t.Errorf("%d packets were told before the end, want 5", told)
	}
	if calls > 1 {
		t.Errorf("Ready was called %d times", calls)
	}
}

// Breaking off at a loss, or at a verdict, ends run.
func TestRunBreak(t *testing.T) {
	w := newWatch(Config{}.withDefaults())
	w.lost(Lost{Source: Ends})
	w.lost(Lost{Source: Packets})
	n := 0
	w.run(t.Context(), nil, func(Verdict, error) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d calls", n)
	}
}
