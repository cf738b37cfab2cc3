package nft_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
	rules "github.com/connsleuth/connsleuth/internal/nft"
)

// generation is how many transactions there were on a host.
func generation(t *testing.T, h *lab.Host) uint32 {
	t.Helper()
	c, err := rules.Dial(h.NetNS())
	ok(t, err)
	defer c.Close() //nolint:errcheck // nothing under way
	gen, err := c.Generation(t.Context())
	ok(t, err)
	return gen
}

var some = []ban.Entry{
	{Prefix: netip.MustParsePrefix("203.0.113.7/32"), Until: ban.Forever, Reason: "one"},
	{Prefix: netip.MustParsePrefix("203.0.112.0/23"), Until: ban.Forever},
	{Prefix: netip.MustParsePrefix("2001:db8::/33"), Until: ban.Forever},
}

// wantSome wants those bans, and that they are enforced.
func wantSome(t *testing.T, b *nft.Backend) {
	t.Helper()
	ok(t, b.Enforcing(t.Context()))
	n := 0
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		for _, w := range some {
			if e == w {
				n++
			}
		}
	}
	if n != len(some) {
		t.Errorf("%d of %d bans are listed", n, len(some))
	}
}

// TestAdopt: a table that is there is taken over as it is.
func TestAdopt(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	cfg := nft.Config{Ports: []nft.Port{{6, 80}, {17, 53}}, Log: &nft.Log{Group: 1, Prefix: "it's é: "}, Counters: true, Priority: -15}
	ok(t, open(t, h, cfg).Ban(t.Context(), some...))
	before := generation(t, h)
	wantSome(t, open(t, h, cfg))
	if after := generation(t, h); after != before {
		t.Errorf("Open of a table that is there made %d transactions", after-before)
	}
}

// TestMend: what is not as the Config wants is made anew, and the bans stay.
func TestMend(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg    nft.Config
		damage []string
		says   string
	}{
		"another Config": {cfg: nft.Config{Priority: 5, Ports: []nft.Port{{6, 22}}, Log: &nft.Log{Group: 7}}},
		"a rule more": {damage: []string{"insert rule inet connsleuth input ip saddr 203.0.113.7 accept"},
			says: `chain input has the rules ["ip saddr 203.0.113.7 accept"`},
		"no rules":            {damage: []string{"flush chain inet connsleuth banned"}, says: "chain banned has the rules []"},
		"no jump":             {damage: []string{"flush chain inet connsleuth forward"}, says: "chain forward has the rules []"},
		"no chain":            {damage: []string{"delete chain inet connsleuth input"}, says: "chain input is gone"},
		"a set less":          {damage: []string{"flush chain inet connsleuth banned", "delete set inet connsleuth ipv6_64"}, says: "set ipv6_64 is gone"},
		"a chain of no hook":  {damage: []string{"delete chain inet connsleuth input", "add chain inet connsleuth input"}, says: "chain input is not at hook input"},
		"a table that sleeps": {damage: []string{"add table inet connsleuth { flags dormant; }"}, says: "it is dormant"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			h := lab.New(t).MustHost(t, "host")
			b := open(t, h, nft.Config{})
			ok(t, b.Ban(t.Context(), some...))
			for _, line := range tt.damage {
				nftTool(t, h, line)
			}
			if err := b.Enforcing(t.Context()); tt.says != "" && (!errors.Is(err, ban.ErrNotEnforcing) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("Enforcing: %v; want %q", err, tt.says)
			}
			wantSome(t, open(t, h, tt.cfg))
		})
	}
}

// TestLost: bans that somebody else lifted are missed, until they are banned
// anew or unbanned.
func TestLost(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b := open(t, h, nft.Config{})
	ok(t, b.Ban(t.Context(), some...))
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Until: ban.For(time.Now(), 30*time.Millisecond)}))
	ok(t, open(t, h, nft.Config{}).Unban(t.Context(), some[0].Prefix, some[2].Prefix))
	err := b.Enforcing(t.Context())
	if !errors.Is(err, ban.ErrNotEnforcing) || !strings.Contains(err.Error(), "2 of ") {
		t.Errorf("Enforcing without two bans: %v", err)
	}
	ok(t, b.Ban(t.Context(), some[0]))
	if err := b.Unban(t.Context(), some[2].Prefix); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	ok(t, b.Enforcing(t.Context()))
}

// TestForeign: what somebody else made is left alone.
func TestForeign(t *testing.T) {
	t.Parallel()
	for _, what := range []string{
		"chain inet connsleuth other", "set inet connsleuth allowed { type ipv4_addr; }", "set inet connsleuth ipv4_32 { type ipv4_addr; }",
		"set inet connsleuth ipv4_24 { type ipv4_addr; flags interval, timeout; }", "set inet connsleuth ipv4_24 { type ipv4_addr; timeout 1h; }",
	} {
		h := lab.New(t).MustHost(t, "host")
		nftTool(t, h, "add table inet connsleuth")
		nftTool(t, h, "add "+what)
		before := nftTool(t, h, "list", "ruleset")
		_, err := nft.Open(t.Context(), &nft.Config{NetNS: h.NetNS()})
		words := strings.Fields(what)
		name := words[0] + " " + words[3]
		if err == nil || !strings.Contains(err.Error(), "it has "+name) {
			t.Errorf("Open of a table with %s: %v", what, err)
		}
		if after := nftTool(t, h, "list", "ruleset"); after != before {
			t.Errorf("Open of a table with %s left\n%s", what, after)
		}
	}
}

// TestTogether: several programs open the same table at the same time.
func TestTogether(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b, err := nft.Open(t.Context(), &nft.Config{NetNS: h.NetNS()})
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close() //nolint:errcheck // nothing under way
			for j := range 10 {
				e := ban.Entry{Prefix: ban.Host(netip.AddrFrom4([4]byte{203, 0, byte(i), byte(j)})), Until: ban.Forever}
				shared := ban.Entry{Prefix: some[0].Prefix, Until: ban.For(time.Now(), time.Hour)}
				if err := b.Ban(t.Context(), e, shared); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b := open(t, h, nft.Config{})
	ok(t, b.Enforcing(t.Context()))
	n := 0
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		if n++; e.Until.Forever() == (e.Prefix == some[0].Prefix) {
			t.Errorf("%v is in force", e)
		}
	}
	if n != 81 {
		t.Errorf("%d bans are in force, want 81", n)
	}
}

// TestPurge: the table goes, and comes back with Open.
func TestPurge(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b := open(t, h, nft.Config{Table: "mine"})
	ok(t, b.Check(t.Context(), some...)) // makes no sets
	ok(t, b.Enforcing(t.Context()))
	ok(t, b.Ban(t.Context(), some...))
	ok(t, b.Purge(t.Context()))
	if err := b.Ban(t.Context(), some...); !errors.Is(err, ban.ErrNotEnforcing) {
		t.Errorf("Ban without table: %v", err)
	}
	if err := b.Purge(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Purge without table: %v", err)
	}
	for _, err := range b.List(t.Context()) {
		if !errors.Is(err, ban.ErrNotEnforcing) {
			t.Errorf("List without table: %v", err)
		}
	}
	b = open(t, h, nft.Config{Table: "mine"})
	ok(t, b.Ban(t.Context(), some...))
	wantSome(t, b)
}

// TestBad: of many entries, those that the kernel has no room for or that cannot be
// are told, and all others are in force.
func TestBad(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b := open(t, h, nft.Config{Size: 1000})
	var entries []ban.Entry
	for i := range 1500 {
		entries = append(entries, ban.Entry{Prefix: ban.Host(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})), Until: ban.Forever})
	}
	far := ban.Entry{Prefix: some[0].Prefix, Until: ban.At(time.Date(2600, 1, 1, 0, 0, 0, 0, time.UTC))}
	six := ban.Entry{Prefix: some[2].Prefix, Until: ban.Forever}
	failed, only := ban.Failed(b.Ban(t.Context(), append([]ban.Entry{far, six}, entries...)...))
	if !only || len(failed) != 501 || !errors.Is(failed[0], ban.ErrTooLong) || !errors.Is(failed[1], ban.ErrFull) {
		t.Fatalf("%d entries refused, such as %v", len(failed), failed[:min(2, len(failed))])
	}
	out := make(map[netip.Prefix]bool)
	for _, f := range failed {
		out[f.Prefix] = true
	}
	n := 0
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		if n++; out[e.Prefix] {
			t.Errorf("%v is in force and refused", e)
		}
	}
	if n != 1001 {
		t.Errorf("%d bans are in force, want 1001", n)
	}
	ok(t, b.Enforcing(t.Context()))
}

// TestManyLarge reads back more than one transaction of large entries.
func TestManyLarge(t *testing.T) {
	t.Parallel()
	b := open(t, lab.New(t).MustHost(t, "host"), nft.Config{})
	until := ban.For(time.Now(), time.Hour)
	want := make(map[netip.Prefix]ban.Entry)
	var entries []ban.Entry
	for i := range 4_000 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})
		e := ban.Entry{Prefix: ban.Host(a), Until: until, Reason: fmt.Sprintf("%d %0*d", i, i%130, i)}
		entries = append(entries, e)
		want[e.Prefix] = e
	}
	for range 2 { // made, and made anew
		ok(t, b.Ban(t.Context(), entries...))
		n := 0
		for e, err := range b.List(t.Context()) {
			ok(t, err)
			w := want[e.Prefix].Reason
			if n++; e.Reason != w[:min(len(w), 120)] {
				t.Fatalf("%v is in force, want the reason %q", e, w)
			}
		}
		if n != len(want) {
			t.Fatalf("%d bans are in force, want %d", n, len(want))
		}
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []nft.Config{
		{Table: strings.Repeat("a", 256)},
		{Table: "a\x00"},
		{Log: &nft.Log{Prefix: strings.Repeat("a", 128)}},
		{Log: &nft.Log{Prefix: `"`}},
		{Ports: []nft.Port{{1, 80}}},
		{Ports: []nft.Port{{6, 0}}},
		{Ports: []nft.Port{{6, 80}, {6, 80}}},
		{NetNS: "/nowhere"},
	} {
		if _, err := nft.Open(t.Context(), &cfg); err == nil {
			t.Errorf("Open(%+v) went well", cfg)
		}
	}
}

// TestOneTransaction: 1,000 hosts are banned, and unbanned, all or none, also
// without privileges outside.
func TestOneTransaction(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b := open(t, h, nft.Config{})
	var entries []ban.Entry
	var prefixes []netip.Prefix
	for i := range 1_000 {
		p := ban.Host(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
		entries, prefixes = append(entries, ban.Entry{Prefix: p, Until: ban.For(time.Now(), time.Hour), Reason: strings.Repeat("x", 120)}), append(prefixes, p)
	}
	before := generation(t, h)
	ok(t, b.Ban(t.Context(), entries...))
	ok(t, b.Unban(t.Context(), prefixes...))
	if n := generation(t, h) - before; n != 2 {
		t.Errorf("%d transactions, want 2", n)
	}
}
