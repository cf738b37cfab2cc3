package bouncer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func TestLoop(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name  string
		loop  Loop
		fail  int           // the look that fails
		end   time.Duration // of ctx
		looks int
		took  time.Duration
		err   error
	}{
		{"once", Loop{}, 0, 0, 1, 0, nil},
		{"rounds", Loop{Every: time.Minute, Rounds: 3}, 0, 0, 3, 2 * time.Minute, nil},
		{"one round", Loop{Every: time.Minute, Rounds: 1}, 0, 0, 1, 0, nil},
		{"until the end", Loop{Every: time.Minute}, 0, 150 * time.Second, 3, 150 * time.Second, nil},
		{"an error", Loop{Every: time.Minute}, 2, 0, 2, time.Minute, broken},
		{"an error after the end is none", Loop{Every: time.Minute}, 2, time.Minute, 2, time.Minute, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.end > 0 {
				ctx, cancel = context.WithTimeout(ctx, tt.end)
				defer cancel()
			}
			begin, looks := time.Now(), 0
			err := tt.loop.Run(ctx, func(_ context.Context, now time.Time) error {
				if !now.Equal(time.Now()) {
					t.Errorf("%s: now is %v", tt.name, now)
				}
				if looks++; looks == tt.fail {
					synctest.Wait()
					return broken
				}
				return nil
			})
			if took := time.Since(begin); looks != tt.looks || took != tt.took || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("%s: %d looks in %v: %v; want %d in %v: %v", tt.name, looks, took, err, tt.looks, tt.took, tt.err)
			}
		})
	}
	for _, l := range []Loop{{Every: -1}, {Rounds: -1}} {
		err := l.Run(t.Context(), func(context.Context, time.Time) error { t.Error("looked"); return nil })
		if status(err) != 2 {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestStatus(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("broken"):                             1,
		Usagef("-limit %d", 0):                           2,
		errors.Join(errors.New("x"), Usagef("-limit x")): 2,
	} {
		if got := status(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestAppend(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := errors.Join(Append(log, []byte("a\n")), Append(log, nil), Append(log, []byte("b\n"))); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(log); string(text) != "a\nb\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := Append(t.TempDir(), []byte("a\n")); err == nil {
		t.Error("appended to a directory")
	}
}
