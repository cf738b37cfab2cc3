package bantest

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// Suite is a kind of backend, and what it can do.
type Suite struct {
	// Open makes a place without bans. It is called for each test.
	Open func(t *testing.T) Place
	// Resolution is how far the end of a ban that is read back may be from
	// that asked for, apart from the time that the calls take; 0 is exact.
	Resolution time.Duration
	// Longest is how long a ban can last that is not Forever; 0 is any time.
	Longest time.Duration
	// Many is how many bans are made at once in the test of many; 0 is 100,000.
	Many int
	// No lists what the backend cannot do.
	No Lack
}

// Place is where bans are kept: a table, a set, a jail.
type Place interface {
	// Backend opens the place, as a program does at its start. Open backends
	// are closed by the suite.
	Backend(t *testing.T) ban.Backend
	// Small opens a place of its own with room for n bans of hosts, or returns
	// nil if room is not limited.
	Small(t *testing.T, n int) ban.Backend
	// Wipe lifts all bans behind the backend's back, and Remove takes the whole
	// place away.
	Wipe(t *testing.T)
	Remove(t *testing.T)
}

// Lack is a set of what a backend cannot do.
type Lack uint

// The things that a backend may lack.
const (
	NoIPv4     Lack = 1 << iota // IPv4 is errors.ErrUnsupported
	NoIPv6                      // IPv6 is errors.ErrUnsupported
	NoPrefixes                  // only hosts are banned, others are errors.ErrUnsupported
	NoReason                    // List has no Reason
	NoWipe                      // nobody else can change the place
	NoEnd                       // List has no end of timed bans that can be compared
)

func (l Lack) has(what Lack) bool { return l&what != 0 }

// Run tests a backend.
func Run(t *testing.T, s Suite) {
	if s.Many == 0 {
		s.Many = 100_000
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *run)
	}{
		{"Ban", testBan}, {"Families", testFamilies}, {"Prefixes", testPrefixes},
		{"Again", testAgain}, {"Duplicates", testDuplicates}, {"Over", testOver}, {"Expiry", testExpiry},
		{"Unban", testUnban}, {"Refused", testRefused}, {"Longest", testLongest}, {"Reason", testReason},
		{"Restart", testRestart}, {"Full", testFull}, {"Wiped", testWiped}, {"Removed", testRemoved},
		{"Journal", testJournal},
		{"Cancelled", testCancelled}, {"Closed", testClosed}, {"Concurrent", testConcurrent},
		{"Check", testCheck}, {"Many", testMany}, {"Model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := &run{Suite: s, place: s.Open(t)}
			r.Backend = r.open(t)
			test.run(t, r)
		})
	}
}

// run is one test of a backend.
type run struct {
	Suite
	place Place
	ban.Backend
	took time.Duration // by the longest call of ban: an end may be off by that
}

func (r *run) open(t *testing.T) ban.Backend {
	t.Helper()
	b := r.place.Backend(t)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// hosts are addresses of the documentation ranges, of a family that the backend
// has.
func (r *run) hosts(n int) []netip.Prefix {
	if r.No.has(NoIPv4) {
		return hosts6(n)
	}
	return hosts4(n)
}

// hosts4 counts up from 198.18.0.0 (RFC 2544), which has 131072 addresses.
func hosts4(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = ban.Host(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}))
	}
	return out
}

// hosts6 are each in a /64 of their own.
func hosts6(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i), 15: 1}
		out[i] = ban.Host(netip.AddrFrom16(a))
	}
	return out
}

func bans(until ban.Until, prefixes ...netip.Prefix) []ban.Entry {
	out := make([]ban.Entry, len(prefixes))
	for i, p := range prefixes {
		out[i] = ban.Entry{Prefix: p, Until: until}
	}
	return out
}

// list reads what is in force.
func list(t *testing.T, b ban.Backend) map[netip.Prefix]ban.Entry {
	t.Helper()
	got := make(map[netip.Prefix]ban.Entry)
	for e, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if _, twice := got[e.Prefix]; twice {
			t.Errorf("List has %v twice", e.Prefix)
		}
		if err := e.Check(); err != nil {
			t.Errorf("List has an entry that cannot be: %v", err)
		}
		got[e.Prefix] = e
	}
	return got
}

// want compares what is in force with what was asked for.
func (r *run) want(t *testing.T, entries ...ban.Entry) {
	t.Helper()
	r.wantIn(t, r.Backend, entries...)
}

func (r *run) wantIn(t *testing.T, b ban.Backend, entries ...ban.Entry) {
	t.Helper()
	before := time.Now()
	got := list(t, b)
	want := make(map[netip.Prefix]ban.Entry)
	for _, e := range entries {
		want[e.Prefix] = e
	}
	wrong := 0
	for p, w := range want {
		g, ok := got[p]
		switch {
		case !ok && w.Until.Over(time.Now().Add(r.Resolution)):
			// It ended while it was read.
		case !ok:
			t.Errorf("%v is not in force", w)
			wrong++
		case !r.same(g.Until, w.Until, time.Since(before)):
			t.Errorf("%v is in force until %v", w, g.Until)
			wrong++
		}
		if wrong > 10 {
			t.Fatal("and more")
		}
	}
	for _, p := range slices.Collect(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			t.Fatalf("%v is in force, and was not asked for", got[p])
		}
	}
}

// same reports whether an end that was read while so much time passed is the one
// that was asked for. A ban for ever and one that ends are never the same.
func (r *run) same(got, want ban.Until, passed time.Duration) bool {
	g, timed := got.Time()
	w, wantTimed := want.Time()
	if timed != wantTimed || !timed {
		return got.Forever() == want.Forever()
	}
	if r.No.has(NoEnd) {
		return true
	}
	return g.Sub(w).Abs() <= r.Resolution+passed+r.took
}

func (r *run) ban(t *testing.T, entries ...ban.Entry) {
	t.Helper()
	start := time.Now()
	if err := r.Ban(t.Context(), entries...); err != nil {
		t.Fatalf("Ban: %v", err)
	}
	r.took = max(r.took, time.Since(start))
}

func in(d time.Duration) ban.Until { return ban.For(time.Now(), d) }
