package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
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
	if !slices.EqualFunc(got, want, func(x, y ban.Entry) bool {
		at, timed := x.Until.Time()
		and, both := y.Until.Time()
		return x.Prefix == y.Prefix && x.Reason == y.Reason && timed == both && at.Sub(and).Abs() < slack
	}) {
		t.Fatalf("asked for: %d bans; dumped: %d", len(got), len(want))
	}
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

	// One more than is known.
	foreign := netip.MustParsePrefix("192.0.2.77/32")
	ok(other.Ban(t.Context(), ban.Entry{Prefix: foreign, Until: ban.Forever}))
	for range 2 {
		if _, is := listing(t, b)[foreign]; !is || b.gen != 0 {
			t.Errorf("banned by another: listed %v, known at %d", is, b.gen)
		}
	}
	ok(b.Unban(t.Context(), foreign))
	listing(t, b)
	wantKnown(t, b)
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

// TestForgotten: what the mirror lost without the kernel's word may be there.
func TestForgotten(t *testing.T) {
	now := time.Now()
	full := func() *Backend {
		b := &Backend{cfg: Config{Table: "t"}, mirror: newMirror(nil), gen: 5}
		for i, p := range testHosts(2000) {
			b.mirror.set(p, mark{end: end(now.UnixMilli()+int64(i), true)})
		}
		return b
	}
	b := full()
	if b.prune(now); b.gen != 5 || b.mirror.size() != 2000 {
		t.Errorf("nothing is over: generation %d, %d bans", b.gen, b.mirror.size())
	}
	b = full()
	if b.prune(now.Add(time.Hour)); b.gen != 0 || b.mirror.size() != 0 {
		t.Errorf("all are over: generation %d, %d bans", b.gen, b.mirror.size())
	}
	b = full()
	if b.settle(&part{}, &part{}, nil); b.gen != 5 {
		t.Errorf("nothing refused: generation %d", b.gen)
	}
	one := lifted(testHosts(1)[0])
	if b.settle(&part{out: []change{one}}, &part{}, nil); b.gen != 0 {
		t.Errorf("one refused: generation %d", b.gen)
	}
	if b.committed(); b.gen != 0 {
		t.Errorf("none known and one more: generation %d", b.gen)
	}
}

// TestNotAsked: answers that do not come whole are not taken for all.
func TestNotAsked(t *testing.T) {
	hosts := testHosts(300)
	for name, tt := range map[string]struct {
		answer func(n int, r nfnltest.Request, told []netip.Prefix) [][]byte
		want   error
		pages  int
	}{
		"overrun": {func(int, nfnltest.Request, []netip.Prefix) [][]byte { return [][]byte{nil} }, errNotAsked, 0},
		"silent": {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte {
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}, errNotAsked, 0},
		"empty":   {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte { return refused(r, syscall.ENOENT) }, errNotAsked, 0},
		"refused": {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte { return refused(r, syscall.EPERM) }, syscall.EPERM, 0},
		"all": {func(_ int, r nfnltest.Request, told []netip.Prefix) [][]byte {
			return append(elementMessages(r, told), nfnltest.Acknowledge(r, 0, "", 0))
		}, nil, 3},
		"the second is over": {func(n int, r nfnltest.Request, told []netip.Prefix) [][]byte {
			if n == 0 {
				return append(elementMessages(r, told[:1]), refused(r, syscall.ENOENT)...)
			}
			return append(elementMessages(r, told), nfnltest.Acknowledge(r, 0, "", 0))
		}, nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			conn, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
				list, err := decodeElements(r.Data, kind{false, 32}, time.Now(), nil)
				if err != nil {
					t.Error(err)
				}
				var told []netip.Prefix
				for _, l := range list {
					told = append(told, l.entry.Prefix)
				}
				n++
				return tt.answer(n-1, r, told)
			})
			defer conn.Close() //nolint:errcheck // nothing under way
			b := &Backend{cfg: Config{Table: "t"}, nl: conn, mirror: newMirror(nil)}
			for _, p := range hosts {
				b.mirror.set(p, mark{end: never})
			}
			q := question{b: b}
			err := q.ask(t.Context(), kind{false, 32}, b.mirror.keys()[kind{false, 32}])
			if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || len(q.pages) != tt.pages) {
				t.Fatalf("%d pages, %v; want %d, %v", len(q.pages), err, tt.pages, tt.want)
			}
			if tt.want != nil {
				return
			}
			got := make(map[netip.Prefix]bool)
			for e, err := range b.bans(q.pages) {
				if got[e.Prefix] = true; err != nil {
					t.Error(err)
				}
			}
			for _, p := range q.absent {
				if got[p] {
					t.Errorf("%v is there and not", p)
				}
				got[p] = true
			}
			if len(q.absent) != tt.pages-3 || !maps.Equal(got, set(hosts)) {
				t.Errorf("%d told, %d absent", len(got), len(q.absent))
			}
		})
	}
}

// TestShare: each key is in one share.
func TestShare(t *testing.T) {
	for _, size := range []int{4, 16} {
		for all := range 20 {
			keys := make([]byte, all*size)
			for i := range keys {
				keys[i] = byte(i)
			}
			for n := 1; n <= 4; n++ {
				var got []byte
				for i := range n {
					got = append(got, share(keys, size, i, n)...)
				}
				if !slices.Equal(got, keys) {
					t.Errorf("%d keys in %d shares: %d bytes", all, n, len(got))
				}
			}
		}
	}
}

func set(list []netip.Prefix) map[netip.Prefix]bool {
	m := make(map[netip.Prefix]bool)
	for _, p := range list {
		m[p] = true
	}
	return m
}

func refused(r nfnltest.Request, errno syscall.Errno) [][]byte {
	return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
}

// elementMessages answers with a message for each host.
func elementMessages(r nfnltest.Request, hosts []netip.Prefix) (answers [][]byte) {
	for _, p := range hosts {
		m := elementsOf(newSetElem, time.Now(), ban.Entry{Prefix: p, Until: ban.Forever})[0]
		answers = append(answers, nfnltest.Message(subsystem<<8|newSetElem, 0, r.Seq, m.Data))
	}
	return answers
}
