package bantest

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

func testRestart(t *testing.T, r *run) {
	h := r.hosts(4)
	entries := append(bans(in(time.Hour), h[0]), bans(ban.Forever, h[1])...)
	r.ban(t, entries...)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	b := r.open(t)
	r.wantIn(t, b, entries...)
	more := append(bans(ban.Forever, h[0]), bans(in(time.Hour), h[1], h[2])...)
	if err := b.Ban(t.Context(), more...); err != nil {
		t.Fatal(err)
	}
	r.wantIn(t, b, more...)
	if err := b.Unban(t.Context(), h[0]); err != nil {
		t.Fatal(err)
	}
	r.wantIn(t, b, more[1:]...)
}

func testFull(t *testing.T, r *run) {
	const room = 8
	b := r.place.Small(t, room)
	if b == nil {
		t.Skip("room is not limited")
	}
	t.Cleanup(func() { _ = b.Close() })
	h := r.hosts(room + 3)
	err := b.Ban(t.Context(), bans(in(time.Hour), h...)...)
	failed, only := ban.Failed(err)
	if !only || len(failed) != 3 || !errors.Is(failed[0], ban.ErrFull) {
		t.Fatalf("Ban of %d where there is room for %d: %v; want 3 times ErrFull", len(h), room, err)
	}
	got := list(t, b)
	if len(got) != room {
		t.Errorf("%d bans are in force, want %d", len(got), room)
	}
	for _, f := range failed {
		if _, ok := got[f.Prefix]; ok {
			t.Errorf("%v is in force and reported as failed", f.Prefix)
		}
	}
	for p := range got { // one that is there is renewed all the same
		if err := b.Ban(t.Context(), bans(ban.Forever, p)...); err != nil {
			t.Errorf("renewing %v where there is no room: %v", p, err)
		}
		break
	}
}

// testWiped: after somebody lifted all bans, new ones work, and old ones can be
// made anew.
func testWiped(t *testing.T, r *run) {
	if r.No.has(NoWipe) {
		t.Skip("nobody else can")
	}
	h := r.hosts(3)
	r.ban(t, bans(in(time.Hour), h[:2]...)...)
	r.place.Wipe(t)
	r.want(t)
	entries := bans(in(time.Hour), h[1:]...)
	r.ban(t, entries...)
	r.want(t, entries...)
	r.place.Wipe(t)
	err := r.Unban(t.Context(), h[1])
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unban of a ban that somebody lifted: %v; want fs.ErrNotExist", err)
	}
}

// testRemoved: a place that is gone is an error or is made anew, but no ban is
// said to be in force that is not.
func testRemoved(t *testing.T, r *run) {
	if r.No.has(NoWipe) {
		t.Skip("nobody else can")
	}
	h := r.hosts(2)
	r.ban(t, bans(in(time.Hour), h[0])...)
	r.place.Remove(t)
	if e, ok := r.Backend.(ban.Enforcer); ok {
		if err := e.Enforcing(t.Context()); !errors.Is(err, ban.ErrNotEnforcing) {
			t.Errorf("Enforcing without the place: %v; want ErrNotEnforcing", err)
		}
	}
	entries := bans(in(time.Hour), h[1])
	switch err := r.Ban(t.Context(), entries...); {
	case err == nil:
		r.want(t, entries...)
	case !errors.Is(err, ban.ErrNotEnforcing):
		t.Errorf("Ban without the place: %v; want it made anew, or ErrNotEnforcing", err)
	}
	again := r.open(t)
	if err := again.Ban(t.Context(), entries...); err != nil {
		t.Fatalf("Ban after opening the place anew: %v", err)
	}
	r.wantIn(t, again, entries...)
}

// testJournal: what is lost with the place comes back from a journal for the time
// that is left, but for what is over, lifted, or protected since.
func testJournal(t *testing.T, r *run) {
	if r.No.has(NoWipe) {
		t.Skip("nothing is lost")
	}
	h := r.hosts(5)
	path := filepath.Join(t.TempDir(), "bans")
	j, err := ban.OpenJournal(path, r.Backend)
	if err != nil {
		t.Fatal(err)
	}
	short := in(1500 * time.Millisecond)
	stay := append(bans(in(time.Hour), h[0]), bans(ban.Forever, h[1])...)
	err = errors.Join(
		j.Ban(t.Context(), append(bans(short, h[2]), append(bans(ban.Forever, h[3], h[4]), stay...)...)...),
		j.Unban(t.Context(), h[4]), j.Close())
	if err != nil {
		t.Fatal(err)
	}
	for !short.Over(time.Now()) {
		time.Sleep(50 * time.Millisecond)
	}
	r.place.Remove(t)
	j, err = ban.OpenJournal(path, ban.Guard{Allow: h[3:4]}.Protect(r.open(t)))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = j.Restore(t.Context())
	if failed, only := ban.Failed(err); !only || len(failed) != 1 || failed[0].Prefix != h[3] || !errors.Is(err, ban.ErrGuarded) {
		t.Errorf("Restore: %v; want %v to be refused", err, h[3])
	}
	r.took = time.Since(began)
	r.wantIn(t, j, stay...)
}

func testCancelled(t *testing.T, r *run) {
	h := r.hosts(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Ban(ctx, bans(ban.Forever, h...)...); !errors.Is(err, context.Canceled) {
		t.Errorf("Ban: %v; want context.Canceled", err)
	}
	if err := r.Unban(ctx, h...); !errors.Is(err, context.Canceled) {
		t.Errorf("Unban: %v; want context.Canceled", err)
	}
	for _, err := range r.List(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v; want context.Canceled", err)
		}
	}
	r.want(t)
	entries := bans(in(time.Hour), h...) // and it still works
	r.ban(t, entries...)
	r.want(t, entries...)
}

func testClosed(t *testing.T, r *run) {
	h := r.hosts(1)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close() // must not panic
	if err := r.Ban(t.Context(), bans(ban.Forever, h...)...); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Ban: %v; want net.ErrClosed", err)
	}
	if err := r.Unban(t.Context(), h...); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Unban: %v; want net.ErrClosed", err)
	}
	for _, err := range r.List(t.Context()) {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("List: %v; want net.ErrClosed", err)
		}
	}
	r.wantIn(t, r.open(t))
}

func testConcurrent(t *testing.T, r *run) {
	const workers, each = 4, 16
	h := r.hosts(workers * each)
	until, began := in(time.Hour), time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := r.Ban(t.Context(), bans(until, h[w*each+i])...); err != nil {
					t.Error(err)
				}
				list(t, r)
				if err := r.Unban(t.Context(), h[w*each+i]); i%2 == 0 && err != nil {
					t.Error(err)
				} else if i%2 != 0 {
					if err := r.Ban(t.Context(), bans(until, h[w*each+i])...); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	r.took = time.Since(began)
	var want []ban.Entry
	for i, p := range h {
		if i%each%2 != 0 {
			want = append(want, bans(until, p)...)
		}
	}
	r.want(t, want...)
}
