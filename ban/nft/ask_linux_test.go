package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/lab"
	rules "github.com/connsleuth/connsleuth/internal/nft"
)

// asking opens a backend that does.
func asking(t *testing.T, h *lab.Host) *Backend {
	t.Helper()
	b, err := Open(t.Context(), &Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	Ask(b)
	return b
}

// listing is what is listed, by prefix.
func listing(t *testing.T, b *Backend) map[netip.Prefix]ban.Entry {
	t.Helper()
	list := make(map[netip.Prefix]ban.Entry)
	for e, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, is := list[e.Prefix]; is {
			t.Errorf("%v is listed twice", e.Prefix)
		}
		list[e.Prefix] = e
	}
	return list
}

// wantKnown wants the mirror to be known to lack nothing, the bans to be asked for
// then, and the answers to be those of a dump.
func wantKnown(t *testing.T, b *Backend) {
	t.Helper()
	gen, err := b.rules.Generation(t.Context())
	if err != nil || b.gen != gen {
		t.Fatalf("the mirror is known at generation %d, and it is %d: %v", b.gen, gen, err)
	}
	var got, want []ban.Entry
	for _, read := range []struct {
		by   func(context.Context) ([]page, error)
		into *[]ban.Entry
	}{{b.ask, &got}, {b.dump, &want}} {
		pages, err := read.by(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range b.bans(pages) {
			if err != nil {
				t.Fatal(err)
			}
			*read.into = append(*read.into, e)
		}
		slices.SortFunc(*read.into, func(x, y ban.Entry) int { return x.Prefix.Compare(y.Prefix) })
	}
	if !slices.EqualFunc(got, want, sameBan) {
		t.Fatalf("asked for: %d bans; dumped: %d", len(got), len(want))
	}
}

func sameBan(x, y ban.Entry) bool {
	at, timed := x.Until.Time()
	and, both := y.Until.Time()
	return x.Prefix == y.Prefix && x.Reason == y.Reason && timed == both && at.Sub(and).Abs() < slack
}

// slack is how much later than the kernel a slow machine may look at its clock.
const slack = 5 * time.Second

// crowd is 900 bans of five kinds.
func crowd(left time.Duration) (entries []ban.Entry) {
	for i := range 300 {
		four, six := [4]byte{10, 1, byte(i >> 8), byte(i)}, [16]byte{0x20, 1, 0xd, 0xb8, 4: byte(i >> 8), 5: byte(i), 15: 1}
		for _, p := range []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4(four), 32), netip.PrefixFrom(netip.AddrFrom16(six), []int{64, 128, 60}[i%3]).Masked(),
			netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i)}), 24),
		} {
			e := ban.Entry{Prefix: p, Until: ban.Forever}
			if i%2 == 0 {
				e.Until = ban.For(time.Now(), left)
			}
			if i%5 == 0 {
				e.Reason = fmt.Sprint("because of ", i)
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// TestAsk: what this backend does is followed, transaction by transaction, so that it
// can ask for the bans that it knows of.
func TestAsk(t *testing.T) {
	t.Parallel()
	b := asking(t, lab.New(t).MustHost(t, "host"))
	entries := crowd(time.Hour)
	prefixes := make([]netip.Prefix, len(entries))
	for i, e := range entries {
		prefixes[i] = e.Prefix
	}
	absent := netip.MustParsePrefix("192.0.2.1/32")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(b.Ban(t.Context(), entries...))
	listing(t, b) // by a dump, after which all are known
	wantKnown(t, b)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"renew", func() error { return b.Ban(t.Context(), entries[:500]...) }},
		{"check", func() error { return b.Check(t.Context(), append(crowd(time.Minute), entries...)...) }},
		{"ban, of the same and others", func() error {
			return b.Ban(t.Context(), append([]ban.Entry{{Prefix: absent, Until: ban.Forever}, {Prefix: absent, Until: ban.Forever}}, entries...)...)
		}},
		{"unban", func() error { return b.Unban(t.Context(), append(prefixes[:100:100], absent)...) }},
		{"unban what is not there", func() error {
			if failed, _ := ban.Failed(b.Unban(t.Context(), prefixes[90], absent, prefixes[101])); len(failed) != 2 {
				return fmt.Errorf("%d of 3 were not banned, want 2", len(failed))
			}
			return nil
		}},
		{"ban what is over", func() error {
			return b.Ban(t.Context(), ban.Entry{Prefix: prefixes[200], Until: ban.For(time.Now(), -time.Minute)})
		}},
		{"a set more", func() error {
			return b.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("30.0.0.0/9"), Until: ban.Forever})
		}},
	} {
		ok(step.do())
		if t.Run(step.name, func(t *testing.T) { wantKnown(t, b) }); t.Failed() {
			return
		}
	}
	if n, size := len(listing(t, b)), b.mirror.size(); n != 799 || size != n { // 900 - 100 - 1 - 1 + 1
		t.Errorf("%d bans are listed, want 799; the mirror has %d", n, size)
	}
	b.gen += 7 // as if somebody else had been at it
	listing(t, b)
	wantKnown(t, b)
}

// TestAskOthers: what others do is told, whether it is known or not.
func TestAskOthers(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b, other := asking(t, h), asking(t, h)
	entries := crowd(time.Hour)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(b.Ban(t.Context(), entries...))
	listing(t, b)
	wantKnown(t, b)

	// Lifted: not listed, and missed.
	ok(other.Unban(t.Context(), entries[0].Prefix))
	for range 2 { // dumped, asked for
		if _, is := listing(t, b)[entries[0].Prefix]; is {
			t.Errorf("%v was lifted, and is listed", entries[0])
		}
		if err := b.Enforcing(t.Context()); !errors.Is(err, ban.ErrNotEnforcing) {
			t.Errorf("Enforcing: %v", err)
		}
	}
	ok(b.Ban(t.Context(), entries[0]))
	wantKnown(t, b)
	ok(b.Enforcing(t.Context()))

	// A change elsewhere.
	c, err := rules.Dial(h.NetNS())
	ok(err)
	defer c.Close() //nolint:errcheck // nothing under way
	ok(c.Apply(t.Context(), rules.Table{Family: rules.INet, Name: "elsewhere"}))
	if n := len(listing(t, b)); n != len(entries) {
		t.Errorf("%d bans are listed, want %d", n, len(entries))
	}
	wantKnown(t, b)

	// One more than is known, which nobody misses when it is lifted.
	foreign := netip.MustParsePrefix("192.0.2.77/32")
	ok(other.Ban(t.Context(), ban.Entry{Prefix: foreign, Until: ban.Forever}))
	for range 2 {
		if _, is := listing(t, b)[foreign]; !is {
			t.Error("what another banned is not listed")
		}
		wantKnown(t, b)
	}
	ok(other.Unban(t.Context(), foreign))
	for range 2 {
		if _, is := listing(t, b)[foreign]; is {
			t.Error("what another banned and lifted is listed")
		}
		wantKnown(t, b)
		ok(b.Enforcing(t.Context()))
	}
	// Or which is banned here too, and is missed then.
	ok(other.Ban(t.Context(), ban.Entry{Prefix: foreign, Until: ban.Forever}))
	listing(t, b)
	ok(b.Ban(t.Context(), ban.Entry{Prefix: foreign, Until: ban.For(time.Now(), time.Hour)}))
	wantKnown(t, b)
	ok(other.Unban(t.Context(), foreign))
	if err := b.Enforcing(t.Context()); !errors.Is(err, ban.ErrNotEnforcing) {
		t.Errorf("Enforcing: %v", err)
	}
}

// TestAskTogether: whatever two backends and somebody else do, in any order, each
// lists what there is.
func TestAskTogether(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	a, b, witness := asking(t, h), asking(t, h), asking(t, h)
	witness.many = 1 << 30
	c, err := rules.Dial(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing under way
	entries := crowd(time.Hour)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	asked := 0
	for step := range 200 {
		some := entries[random.IntN(len(entries)):]
		some = some[:min(len(some), 1+random.IntN(40))]
		one := []*Backend{a, a, a, b}[random.IntN(4)] // a is often alone
		var err error
		switch random.IntN(12) {
		case 0:
			err = c.Apply(t.Context(), rules.Table{Family: rules.INet, Name: fmt.Sprint("t", step)})
		case 1, 2:
			var prefixes []netip.Prefix
			for _, e := range some {
				prefixes = append(prefixes, e.Prefix)
			}
			if err = one.Unban(t.Context(), prefixes...); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		case 3:
			err = one.Check(t.Context(), some...)
		default:
			err = one.Ban(t.Context(), some...)
		}
		if err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, step, err)
		}
		want := listing(t, witness)
		for _, by := range []*Backend{a, b} {
			if gen, err := by.rules.Generation(t.Context()); err == nil && by.gen == gen && by.mirror.size() > 0 {
				asked++
			}
			if got := listing(t, by); !maps.EqualFunc(got, want, sameBan) {
				t.Fatalf("seed %d, step %d: %d bans are listed, want %d", seed, step, len(got), len(want))
			}
		}
	}
	if asked < 20 {
		t.Errorf("seed %d: in 200 steps bans were asked for %d times", seed, asked)
	}
}

// TestAskOver: bans that end are forgotten, one by one or, when they are many, at the
// next dump.
func TestAskOver(t *testing.T) {
	t.Parallel()
	for name, few := range map[string]int{"few": 100, "all": 900} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := asking(t, lab.New(t).MustHost(t, "host"))
			entries := crowd(time.Hour)
			for i := range entries[:few] {
				entries[i].Until = ban.For(time.Now(), 3*time.Second)
			}
			if err := b.Ban(t.Context(), entries...); err != nil {
				t.Fatal(err)
			}
			if n := len(listing(t, b)); n != len(entries) {
				t.Fatalf("%d bans are listed, want %d", n, len(entries))
			}
			for _, e := range entries[:few] {
				for !e.Until.Over(time.Now().Add(-50 * time.Millisecond)) {
					time.Sleep(10 * time.Millisecond)
				}
			}
			left := len(entries) - few
			for range 2 {
				if n := len(listing(t, b)); n != left || b.mirror.size() != left {
					t.Errorf("%d bans are listed and the mirror has %d, want %d", n, b.mirror.size(), left)
				}
			}
			if left > 0 {
				wantKnown(t, b)
			}
		})
	}
}
