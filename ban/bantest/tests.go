package bantest

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

func testBan(t *testing.T, r *run) {
	r.want(t)
	h := r.hosts(3)
	entries := append(bans(in(time.Hour), h[0], h[1]), bans(ban.Forever, h[2])...)
	r.ban(t, entries...)
	r.want(t, entries...)
	r.ban(t) // nothing
	r.want(t, entries...)
}

func testFamilies(t *testing.T, r *run) {
	four, six := bans(in(time.Hour), hosts4(2)...), bans(in(time.Hour), hosts6(2)...)
	var good []ban.Entry
	bad := 0
	for lack, entries := range map[Lack][]ban.Entry{NoIPv4: four, NoIPv6: six} {
		if r.No.has(lack) {
			bad += len(entries)
		} else {
			good = append(good, entries...)
		}
	}
	err := r.Ban(t.Context(), append(four, six...)...)
	failed, only := ban.Failed(err)
	if len(failed) != bad || !only {
		t.Fatalf("Ban of both families: %v; want %d entries refused", err, bad)
	}
	for _, f := range failed {
		if !errors.Is(f, errors.ErrUnsupported) {
			t.Errorf("%v: want errors.ErrUnsupported", f)
		}
	}
	r.want(t, good...)
}

func testPrefixes(t *testing.T, r *run) {
	wide := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.128/25")}
	if r.No.has(NoIPv4) {
		wide = nil
	}
	if !r.No.has(NoIPv6) {
		wide = append(wide, netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/48"))
	}
	entries := bans(in(time.Hour), wide...)
	began := time.Now()
	err := r.Ban(t.Context(), entries...)
	r.took = max(r.took, time.Since(began))
	if r.No.has(NoPrefixes) {
		failed, only := ban.Failed(err)
		if len(failed) != len(wide) || !only || !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("Ban of prefixes: %v; want each refused with errors.ErrUnsupported", err)
		}
		r.want(t)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	r.want(t, entries...)
	// A host within, a prefix around, and neighbours, each with an end of its own.
	more := bans(in(2*time.Hour), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("198.51.101.0/24"))
	if r.No.has(NoIPv4) {
		more = bans(in(2*time.Hour), netip.MustParsePrefix("2001:db8:1::7/128"), netip.MustParsePrefix("2001:db8::/32"))
	}
	r.ban(t, more...)
	r.want(t, append(entries, more...)...)
	// The one around goes, those within stay.
	if err := r.Unban(t.Context(), more[1].Prefix); err != nil {
		t.Fatal(err)
	}
	r.want(t, append(entries, append(more[:1:1], more[2:]...)...)...)
}

// testAgain bans the same host again: renewed, prolonged, shortened, for ever
// and back.
func testAgain(t *testing.T, r *run) {
	h := r.hosts(2)
	other := bans(in(3*time.Hour), h[1])
	r.ban(t, other...)
	for _, until := range []func() ban.Until{
		func() ban.Until { return in(time.Minute) },
		func() ban.Until { return in(time.Minute) },
		func() ban.Until { return in(time.Hour) },
		func() ban.Until { return in(30 * time.Second) },
		func() ban.Until { return ban.Forever },
		func() ban.Until { return ban.Forever },
		func() ban.Until { return in(time.Minute) },
	} {
		entry := bans(until(), h[0])
		r.ban(t, entry...)
		r.want(t, append(entry, other...)...)
	}
	// Renewed after time has passed: the end moves on.
	r.ban(t, bans(in(20*time.Second), h[0])...)
	time.Sleep(2*r.Resolution + 300*time.Millisecond)
	entry := bans(in(20*time.Second), h[0])
	r.ban(t, entry...)
	r.want(t, append(entry, other...)...)
}

func testDuplicates(t *testing.T, r *run) {
	h := r.hosts(3)
	entries := append(bans(in(time.Minute), h...), bans(ban.Forever, h[0])...)
	entries = append(entries, bans(in(time.Hour), h[1])...)
	r.ban(t, entries...)
	r.want(t, entries[2:]...)
	entries = append(bans(ban.Forever, h...), bans(in(time.Minute), h...)...)
	r.ban(t, entries...)
	r.want(t, entries[3:]...)
}

func testOver(t *testing.T, r *run) {
	h := r.hosts(3)
	r.ban(t, bans(ban.Forever, h[0])...)
	r.ban(t, append(bans(in(-time.Second), h[0], h[1]), bans(in(time.Hour), h[2])...)...)
	r.want(t, bans(in(time.Hour), h[2])...)
}

func testExpiry(t *testing.T, r *run) {
	h := r.hosts(3)
	stay := append(bans(in(time.Hour), h[1]), bans(ban.Forever, h[2])...)
	r.ban(t, append(bans(in(1500*time.Millisecond), h[0]), stay...)...)
	if _, ok := list(t, r)[h[0]]; !ok {
		t.Error("the short ban never was in force")
	}
	deadline := time.Now().Add(20 * time.Second)
	for len(list(t, r)) > 2 {
		if time.Now().After(deadline) {
			t.Fatal("the short ban does not end")
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.want(t, stay...)
	again := bans(in(time.Hour), h[0]) // after its end
	r.ban(t, again...)
	r.want(t, append(again, stay...)...)
}

func testUnban(t *testing.T, r *run) {
	h := r.hosts(4)
	entries := append(bans(in(time.Hour), h[:2]...), bans(ban.Forever, h[2])...)
	r.ban(t, entries...)
	if err := r.Unban(t.Context(), h[0], h[2]); err != nil {
		t.Fatal(err)
	}
	r.want(t, entries[1])
	err := r.Unban(t.Context(), h[0], h[1], h[3])
	failed, only := ban.Failed(err)
	if !only || len(failed) != 2 || failed[0].Prefix != h[0] || failed[1].Prefix != h[3] || !errors.Is(failed[0], fs.ErrNotExist) ||
		!errors.Is(failed[1], fs.ErrNotExist) {
		t.Fatalf("Unban of two that are not banned: %v", err)
	}
	r.want(t)
	r.ban(t, entries[0])
	r.want(t, entries[0])
}

// testRefused: entries that cannot be, among good ones.
func testRefused(t *testing.T, r *run) {
	h := r.hosts(2)
	good := bans(in(time.Hour), h...)
	bad := []ban.Entry{
		{},
		{Prefix: h[0]},
		{Until: ban.Forever},
		{Prefix: netip.PrefixFrom(h[0].Addr(), 8), Until: ban.Forever},
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Until: ban.Forever},
		{Prefix: netip.MustParsePrefix("::/0"), Until: in(time.Hour)},
		{Prefix: netip.MustParsePrefix("::ffff:198.51.100.1/128"), Until: in(time.Hour)},
	}
	err := r.Ban(t.Context(), append([]ban.Entry{good[0]}, append(bad, good[1])...)...)
	failed, only := ban.Failed(err)
	if !only || len(failed) != len(bad) {
		t.Fatalf("Ban of %d that cannot be: %v", len(bad), err)
	}
	for i, f := range failed {
		if f.Prefix != bad[i].Prefix {
			t.Errorf("error %d is of %v, want %v", i, f.Prefix, bad[i].Prefix)
		}
	}
	r.want(t, good...)
}

func testLongest(t *testing.T, r *run) {
	h := r.hosts(2)
	long := 30 * 365 * 24 * time.Hour
	entries := bans(in(long), h[0])
	if r.Longest == 0 {
		r.ban(t, entries...)
		r.want(t, entries...)
		return
	}
	other := bans(in(r.Longest-time.Minute), h[1])
	err := r.Ban(t.Context(), append(entries, other...)...)
	if failed, only := ban.Failed(err); !only || len(failed) != 1 || !errors.Is(failed[0], ban.ErrTooLong) {
		t.Fatalf("Ban of 30 years: %v; want ErrTooLong", err)
	}
	r.want(t, other...)
}

func testReason(t *testing.T, r *run) {
	e := bans(in(time.Hour), r.hosts(1)...)[0]
	e.Reason = "Conn Cnt: 684 is greater than limit:60"
	e.Evidence = "{}"
	r.ban(t, e)
	got := list(t, r)[e.Prefix]
	if !r.No.has(NoReason) && got.Reason != e.Reason {
		t.Errorf("Reason is %q, want %q", got.Reason, e.Reason)
	}
	e.Reason = "another\nline \"quoted\" \x00 and very long: " + string(make([]byte, 2000))
	r.ban(t, e)
	r.want(t, e)
}

// testCheck: a trial says what Ban would, and changes nothing.
func testCheck(t *testing.T, r *run) {
	c, ok := r.Backend.(ban.Checker)
	if !ok {
		t.Skip("not a Checker")
	}
	h := r.hosts(3)
	first := bans(in(time.Hour), h[0])
	r.ban(t, first...)
	if err := c.Check(t.Context(), bans(ban.Forever, h...)...); err != nil {
		t.Errorf("Check of good entries: %v", err)
	}
	if failed, _ := ban.Failed(c.Check(t.Context(), ban.Entry{Prefix: h[1]}, bans(ban.Forever, h[2])[0])); len(failed) != 1 {
		t.Errorf("Check of an entry without end: %v", failed)
	}
	r.want(t, first...)
}

func testMany(t *testing.T, r *run) {
	n := r.Many
	if testing.Short() {
		n = min(n, 2000)
	}
	h := r.hosts(n)
	entries := bans(in(time.Hour), h...)
	for i := range entries {
		if i%3 == 0 {
			entries[i].Until = ban.Forever
		}
	}
	r.ban(t, entries...)
	r.want(t, entries...)
	for i := range entries { // those for ever get an end, and the reverse
		if i%3 == 0 {
			entries[i].Until = in(2 * time.Hour)
		} else {
			entries[i].Until = ban.Forever
		}
	}
	r.ban(t, entries...)
	r.want(t, entries...)
	if err := r.Unban(t.Context(), h[:n-5]...); err != nil {
		t.Fatal(err)
	}
	r.want(t, entries[n-5:]...)
}
