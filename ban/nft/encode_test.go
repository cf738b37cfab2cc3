package nft

import (
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// TestElements: bans as linux/netfilter/nf_tables.h wants them, and their keys
// alone.
func TestElements(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	hour := ban.At(now.Add(time.Hour))
	four := []ban.Entry{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Until: hour}, {Prefix: netip.MustParsePrefix("192.0.2.2/32"), Until: ban.Forever, Reason: "why"}}
	six := []ban.Entry{{Prefix: netip.MustParsePrefix("2001:db8::/64"), Until: hour, Reason: "Conn Cnt: 684"}}
	for _, tt := range []struct {
		entries []ban.Entry
		now     time.Time
		want    string
	}{
		{four, now, "01000000" + "0600010074000000" + "0c000200697076345f333200" + "3c000380" +
			"1c000180" + "0c000180" + "08000100c0000201" + "0c000400000000000036ee80" +
			"1c000180" + "0c000180" + "08000100c0000202" + "0a0006000004776879000000"},
		{four, time.Time{}, "01000000" + "0600010074000000" + "0c000200697076345f333200" + "24000380" +
			"10000180" + "0c000180" + "08000100c0000201" + "10000180" + "0c000180" + "08000100c0000202"},
		{six, now, "01000000" + "0600010074000000" + "0c000200697076365f363400" + "40000380" +
			"3c000180" + "18000180" + "1400010020010db8000000000000000000000000" + "0c000400000000000036ee80" +
			"14000600000e436f6e6e20436e743a2036383400"},
		{six, time.Time{}, "01000000" + "0600010074000000" + "0c000200697076365f363400" + "20000380" +
			"1c000180" + "18000180" + "1400010020010db8000000000000000000000000"},
	} {
		if got := hex.EncodeToString(elementsOf(newSetElem, tt.now, tt.entries...)[0].Data); got != tt.want {
			t.Errorf("%v\nis written as %s\nwant          %s", tt.entries, got, tt.want)
		}
	}
}

// TestNoAllocations: a part of many takes no more allocations than a part of one,
// but for its further messages, when its entries are new and when they are renewed.
func TestNoAllocations(t *testing.T) {
	var entries []ban.Entry
	until := ban.For(time.Now(), time.Hour)
	for _, p := range testHosts(most) {
		entries = append(entries, ban.Entry{Prefix: p, Until: until, Reason: "Conn Cnt: 684 is greater than limit:60"})
	}
	b := &Backend{cfg: Config{Table: "t"}, sets: map[kind]bool{{false, 32}: true}, mirror: newMirror(entries)}
	p := part{changes: make([]change, 0, most)}
	prepare := func(n int) {
		p.changes = p.changes[:0]
		b.plan(&p, entries[:n], false)
		order(p.changes)
		if b.encode(p.changes); len(p.changes) != n || p.over != nil {
			t.Fatalf("%d changes and %v of %d entries", len(p.changes), p.over, n)
		}
	}
	for _, known := range []bool{false, true} {
		take := func(n int) float64 {
			return testing.AllocsPerRun(10, func() {
				if !known {
					clear(b.mirror.four)
				}
				prepare(n)
			})
		}
		const further = most / 100
		if many, one := take(most), take(1); many > one+further {
			t.Errorf("known: %v: %.0f allocations for %d, %.0f for one", known, many, most, one)
		}
	}
}

// TestPlan: of the same prefix the last counts, and a ban is known that was made
// before this part of the call, not in it.
func TestPlan(t *testing.T) {
	h := testHosts(4)
	soon, later := ban.For(time.Now(), time.Hour), ban.For(time.Now(), 2*time.Hour)
	b := &Backend{mirror: newMirror(nil)}
	b.mirror.set(h[0], mark{end: never, at: 1})
	for _, trial := range []bool{true, false} {
		var p part
		b.plan(&p, []ban.Entry{
			{Prefix: h[1], Until: soon}, {Prefix: h[0], Until: soon}, {Prefix: h[1], Until: later}, {Prefix: h[0], Until: ban.Forever},
			{Prefix: h[2], Until: ban.At(time.Unix(1, 0))}, {}, {Prefix: h[3], Until: ban.At(time.Unix(math.MaxInt64/1000, 0))},
		}, trial)
		var got []int32
		for _, c := range p.changes {
			got = append(got, c.at)
		}
		if !slices.Equal(got, []int32{2, 3}) || p.changes[0].known || !p.changes[1].known || !p.changes[0].timed || p.changes[1].timed {
			t.Errorf("trial %v: the changes are %+v", trial, p.changes)
		}
		if len(p.over) != 1 || p.over[0] != h[2] {
			t.Errorf("trial %v: over are %v", trial, p.over)
		}
		for i, err := range p.errs {
			if (err != nil) != (i == 5 || i == 6) || errors.Is(err, ban.ErrTooLong) != (i == 6) {
				t.Errorf("trial %v: %d is refused: %v", trial, i, err)
			}
		}
		if len(p.errs) != 7 {
			t.Errorf("trial %v: refused are %v", trial, p.errs)
		}
		if _, noted := b.mirror.get(h[1]); noted == trial {
			t.Errorf("trial %v: noted: %v", trial, noted)
		}
	}
}

func TestMirror(t *testing.T) {
	now := time.Now()
	m := newMirror(nil)
	ends := map[string]time.Duration{"192.0.2.1/32": 0, "192.0.2.0/24": time.Minute, "192.0.2.0/32": -time.Minute,
		"2001:db8::/64": time.Minute, "2001:db8::/128": -time.Minute, "::c000:201/128": time.Minute, "128.0.0.0/1": time.Minute}
	for s, left := range ends {
		m.set(netip.MustParsePrefix(s), mark{end: end(now.Add(left).UnixMilli(), left != 0)})
	}
	all := func() (list []string) {
		for p, k := range m.all() {
			if got, ok := m.get(p); !ok || got != k {
				t.Errorf("%v: %v, %v; want %v", p, got, ok, k)
			}
			list = append(list, p.String())
		}
		slices.Sort(list)
		return list
	}
	if got := all(); len(got) != len(ends) || m.size() != len(ends) {
		t.Errorf("%d are %v", m.size(), got)
	}
	m.prune(now)
	m.remove(netip.MustParsePrefix("128.0.0.0/1"))
	m.remove(netip.MustParsePrefix("::c000:201/128"))
	if got, want := strings.Join(all(), " "), "192.0.2.0/24 192.0.2.1/32 2001:db8::/64"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

// TestEnd: a mark is over when the ban is, or up to a second after.
func TestEnd(t *testing.T) {
	for _, ms := range []int64{1, 999, 1000, 1001, time.Now().UnixMilli()} {
		at := time.UnixMilli(ms)
		if m := (mark{end: end(ms, true)}); m.over(at.Add(-time.Millisecond)) || !m.over(at.Add(time.Second)) {
			t.Errorf("%v ends at %d s", at, m.end)
		}
	}
	for _, ms := range []int64{never * 1000, math.MaxInt64} {
		if m := (mark{end: end(ms, true)}); m.end != never || m.over(time.UnixMilli(ms).Add(time.Hour)) {
			t.Errorf("%d ms is %d", ms, m.end)
		}
	}
}

// TestWhole: a set is read again if a ban was in two of its messages.
func TestWhole(t *testing.T) {
	h := testHosts(4)
	b := &Backend{mirror: newMirror(nil)}
	message := func(hosts ...netip.Prefix) page {
		var entries []ban.Entry
		for _, p := range hosts {
			entries = append(entries, ban.Entry{Prefix: p, Until: ban.Forever})
		}
		return page{kind{false, 32}, time.Now(), elementsOf(newSetElem, time.Now(), entries...)[0].Data}
	}
	if err := b.whole([]page{message(h[:2]...), message(h[2:]...)}); err != nil {
		t.Errorf("four bans: %v", err)
	}
	if err := b.whole([]page{message(h[:2]...), message(h[1:]...)}); !errors.Is(err, nfnl.ErrInterrupted) {
		t.Errorf("one of four bans twice: %v", err)
	}
}
