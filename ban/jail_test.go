package ban

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 12, 22, 20, 30, 1, 0, time.UTC)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestJailTimeWait is S4: TIME_WAIT connections of each source, counted every
// 10 minutes; maxretry 40, findtime 750, bantime -1.
func TestJailTimeWait(t *testing.T) {
	j := Jail{MaxRetry: 40, FindTime: 750 * time.Second, Forever: true}
	look := func(at time.Duration, counts map[string]int) []Entry {
		var hits []Hit
		for source, n := range counts {
			hits = append(hits, Hit{Source: addr(source), Count: n})
		}
		return j.Add(start.Add(at), hits...)
	}
	// 25 and 25 within 750 s are 50; a tcp6 line has an IPv4-mapped source.
	if due := look(0, map[string]int{"89.95.200.5": 25, "90.0.28.227": 25, "::ffff:197.203.26.142": 39}); len(due) != 0 {
		t.Errorf("too early: %v", due)
	}
	due := look(10*time.Minute, map[string]int{"89.95.200.5": 25, "197.203.26.142": 1})
	slices.SortFunc(due, func(a, b Entry) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	want := []Entry{
		{prefix("89.95.200.5/32"), Forever, "50 hits in 10m0s", ""},
		{prefix("197.203.26.142/32"), Forever, "40 hits in 10m0s", ""},
	}
	if !slices.Equal(due, want) {
		t.Errorf("due %v, want %v", due, want)
	}
	// 25 more after 20 minutes: those of the beginning do not count any more.
	if due := look(20*time.Minute, map[string]int{"90.0.28.227": 25, "89.95.200.5": 500}); len(due) != 0 {
		t.Errorf("due %v: a window is over, a ban is for ever", due)
	}
}

// TestJailConnections is S5: more than 60 connections, seen once, for 270 s,
// every 5 minutes; the database is ignored.
func TestJailConnections(t *testing.T) {
	j := Jail{MaxRetry: 1, FindTime: time.Minute, BanTime: 270 * time.Second, Ignore: []netip.Prefix{prefix("203.0.113.43/32")}}
	hits := []Hit{
		{Source: addr("203.0.113.42"), Reason: "Conn Cnt: 684 is greater than limit:60", Evidence: "{}"},
		{Source: addr("203.0.113.43"), Reason: "database"},
	}
	want := Entry{prefix("203.0.113.42/32"), For(start, 270*time.Second), hits[0].Reason, "{}"}
	if due := j.Add(start, hits...); len(due) != 1 || due[0] != want {
		t.Errorf("due %v, want %v", due, want)
	}
	if due := j.Add(start.Add(269*time.Second), hits...); len(due) != 0 {
		t.Errorf("banned again while the ban lasts: %v", due)
	}
	if until, ok := j.Banned(start.Add(269*time.Second), addr("203.0.113.42")); !ok || until != want.Until {
		t.Errorf("Banned %v, %v", until, ok)
	}
	again := start.Add(300 * time.Second)
	if _, ok := j.Banned(again, addr("203.0.113.42")); ok {
		t.Error("the ban is over, and Banned says it is not")
	}
	if due := j.Add(again, hits...); len(due) != 1 || due[0].Until != For(again, 270*time.Second) {
		t.Errorf("due %v", due)
	}
}

// TestJailWindow: the window begins with the first hit, as in fail2ban, which
// counts 4 hits at 0, 599, 601 and 602 s of a findtime of 600 s as 2 and 2.
func TestJailWindow(t *testing.T) {
	j := Jail{MaxRetry: 3}
	at := func(s int) int {
		return len(j.Add(start.Add(time.Duration(s)*time.Second), Hit{Source: addr("2001:db8::1")}))
	}
	if got := []int{at(0), at(599), at(601), at(602), at(603)}; !slices.Equal(got, []int{0, 0, 0, 0, 1}) {
		t.Errorf("bans %v", got)
	}
	j = Jail{MaxRetry: 3}
	if got := []int{at(0), at(1), at(600)}; !slices.Equal(got, []int{0, 0, 1}) {
		t.Errorf("bans %v", got)
	}
}

// TestJailRepeaters: each ban is longer than the one before, up to MaxTime, and
// a source that stays away is new again.
func TestJailRepeaters(t *testing.T) {
	j := Jail{MaxRetry: 1, BanTime: 10 * time.Minute, Factor: 2, MaxTime: time.Hour}
	now := start
	var got []time.Duration
	for range 6 {
		due := j.Add(now, Hit{Source: addr("203.0.113.1")})
		if len(due) != 1 {
			t.Fatalf("due %v", due)
		}
		left, _ := due[0].Until.Left(now)
		got = append(got, left/time.Minute)
		now = now.Add(left + time.Second)
	}
	if want := []time.Duration{10, 20, 40, 60, 60, 60}; !slices.Equal(got, want) {
		t.Errorf("minutes %v, want %v", got, want)
	}
	now = now.Add(24*time.Hour + time.Minute)
	if left, _ := j.Add(now, Hit{Source: addr("203.0.113.1")})[0].Until.Left(now); left != 10*time.Minute {
		t.Errorf("after a day away: %v", left)
	}
}

// TestJailWider: IPv6 is counted by /64, and three banned sources of a /48 or a
// /24 take it with them.
func TestJailWider(t *testing.T) {
	j := Jail{MaxRetry: 2, WiderAt: 3}
	var due []Entry
	for _, a := range []string{
		"2001:db8:1:1::1", "2001:db8:1:1::2", // one /64
		"2001:db8:1:2::1", "2001:db8:1:2::2",
		"2001:db8:2:3::1", "2001:db8:2:3::2", // another /48
		"203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2", "203.0.112.1", "203.0.112.1",
		"2001:db8:1:3::1", "2001:db8:1:3::2",
		"203.0.113.3", "203.0.113.3",
	} {
		due = append(due, j.Add(start, Hit{Source: addr(a), Reason: "r"})...)
	}
	var got []string
	for _, e := range due {
		got = append(got, e.Prefix.String())
	}
	want := []string{
		"2001:db8:1:1::/64", "2001:db8:1:2::/64", "2001:db8:2:3::/64", "203.0.113.1/32", "203.0.113.2/32", "203.0.112.1/32",
		"2001:db8:1:3::/64", "2001:db8:1::/48", "203.0.113.3/32", "203.0.113.0/24",
	}
	if !slices.Equal(got, want) {
		t.Errorf("banned %v, want %v", got, want)
	}
	if due[7].Reason != "3 sources in it were banned" {
		t.Errorf("reason %q", due[7].Reason)
	}
	if _, ok := j.Banned(start, addr("2001:db8:1:ffff::1")); !ok {
		t.Error("an address of the banned /48 is not banned")
	}
	if more := j.Add(start, Hit{Source: addr("203.0.113.99"), Count: 5}); len(more) != 0 {
		t.Errorf("banned within a banned prefix: %v", more)
	}
}

// TestJailBounded: sources beyond the bound are forgotten, the oldest first, and
// counted; banned ones stay.
func TestJailBounded(t *testing.T) {
	j := Jail{MaxRetry: 2, Sources: 100}
	banned := addr("203.0.113.1")
	if len(j.Add(start, Hit{Source: banned, Count: 2})) != 1 {
		t.Fatal("not banned")
	}
	for i := range 1000 {
		j.Add(start, Hit{Source: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})})
	}
	if len(j.by) != 100 || j.order.Len() != 100 {
		t.Errorf("%d and %d are remembered", len(j.by), j.order.Len())
	}
	if j.Forgotten() != 901 {
		t.Errorf("Forgotten %d, want 901", j.Forgotten())
	}
	if _, ok := j.Banned(start, banned); !ok {
		t.Error("the banned one is forgotten")
	}
	if due := j.Add(start, Hit{Source: netip.AddrFrom4([4]byte{198, 18, 3, 231})}); len(due) != 1 {
		t.Error("the one before is forgotten")
	}
	j.Pardon(Host(banned))
	if _, ok := j.Banned(start, banned); ok {
		t.Error("pardoned, and banned")
	}
}

func TestJailOdd(t *testing.T) {
	var j Jail
	if due := j.Add(start, Hit{}, Hit{Source: addr("203.0.113.1"), Count: -7}); len(due) != 0 {
		t.Errorf("due %v", due)
	}
	if due := j.Add(start, Hit{Source: addr("203.0.113.2"), Count: math.MaxInt}, Hit{Source: addr("203.0.113.2"), Count: math.MaxInt}); len(due) != 1 {
		t.Errorf("due %v", due)
	}
	// A clock that goes back neither ends a window nor begins one.
	for _, at := range []time.Duration{0, -time.Hour, 0, time.Minute} {
		j.Add(start.Add(at), Hit{Source: addr("203.0.113.3")})
	}
	if due := j.Add(start.Add(-24*time.Hour), Hit{Source: addr("203.0.113.3")}); len(due) != 1 {
		t.Errorf("five hits by a clock that goes back: %v", due)
	}
	e := Entry{prefix("203.0.113.9/32"), For(start, time.Hour), "", ""}
	j.Adopt(start, e, Entry{}, Entry{Prefix: prefix("203.0.113.10/32"), Until: For(start, -time.Hour)})
	if due := j.Add(start, Hit{Source: addr("203.0.113.9"), Count: 100}, Hit{Source: addr("203.0.113.10"), Count: 100}); len(due) != 1 {
		t.Errorf("due %v: one is banned already", due)
	}
	for _, bad := range []Jail{
		{MaxRetry: -1}, {Forever: true, BanTime: time.Hour}, {Factor: 0.5}, {Factor: math.NaN()}, {Bits4: 33}, {Bits6: 129},
		{Wider4: 25, Bits4: 24}, {Wider6: 65}, {FindTime: -1}, {WiderAt: -1},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := new(Jail).Check(); err != nil {
		t.Error(err)
	}
}

// TestJailModel compares with a model that keeps every hit.
func TestJailModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		j := Jail{MaxRetry: 2 + r.IntN(4), FindTime: 100 * time.Second, BanTime: 50 * time.Second}
		type source struct {
			begin time.Time
			hits  int
			until time.Time
		}
		model := make(map[netip.Addr]*source)
		now := start
		for range 2000 {
			now = now.Add(time.Duration(r.IntN(8)) * time.Second)
			a, n := netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(5))}), 1+r.IntN(2)
			m := model[a]
			if m == nil {
				m = &source{begin: now}
				model[a] = m
			}
			if now.Sub(m.begin) > j.FindTime {
				m.begin, m.hits = now, 0
			}
			m.hits += n
			want := false
			if m.hits >= j.MaxRetry {
				want = !now.Before(m.until)
				m.begin, m.hits = now, 0
			}
			if want {
				m.until = now.Add(j.BanTime)
			}
			if due := j.Add(now, Hit{Source: a, Count: n}); (len(due) == 1) != want {
				t.Fatalf("seed %d: at %v %v: due %v, want %v", seed, now.Sub(start), a, due, want)
			}
		}
	}
}

// TestJailAllocs: a hit of a known source allocates nothing.
func TestJailAllocs(t *testing.T) {
	j := Jail{MaxRetry: math.MaxInt}
	h := Hit{Source: addr("2001:db8::1")}
	if n := testing.AllocsPerRun(1000, func() { j.Add(start, h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJail(b *testing.B) {
	j := Jail{MaxRetry: 100, FindTime: time.Hour}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		j.Add(start, Hit{Source: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
		i++
	}
}
