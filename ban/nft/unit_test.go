package nft

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

func TestKind(t *testing.T) {
	for _, s := range []string{"ipv4_1", "ipv4_32", "ipv6_1", "ipv6_33", "ipv6_64", "ipv6_128"} {
		if k, ok := parseKind(s); !ok || k.String() != s {
			t.Errorf("%s is %v, %v", s, k, ok)
		}
	}
	for _, s := range []string{"", "ipv4", "ipv4_", "ipv4_0", "ipv4_33", "ipv6_129", "ipv6_-1", "ipv4_032", "ipv5_1", "ipv4_+3", "ipv4_3_2"} {
		if k, ok := parseKind(s); ok {
			t.Errorf("%q is %v", s, k)
		}
	}
}

func TestTimeout(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 999, time.UTC)
	for _, tt := range []struct {
		left time.Duration
		want uint64
	}{
		{-time.Hour, 20}, {0, 20}, {time.Millisecond, 20}, {20 * time.Millisecond, 20}, {21 * time.Millisecond, 21},
		{time.Second, 1000}, {time.Hour, 3600000},
	} {
		// The end is at a whole millisecond, after now.
		end, _ := ban.At(now.Truncate(time.Millisecond).Add(tt.left)).Time()
		if got := timeout(end.UnixMilli() - now.UnixMilli()); got != tt.want {
			t.Errorf("%v left: %d ms, want %d", tt.left, got, tt.want)
		}
	}
}

func TestCounts(t *testing.T) {
	for release, want := range map[string]bool{
		"": true, "6.18.5\n": true, "5.17.0-rc1": true, "5.16.20-generic": false, "4.19.0": false, "10.0": true, "nonsense": true,
	} {
		if got := counts(release); got != want {
			t.Errorf("counts(%q) = %v", release, got)
		}
	}
}

// elementsOf encodes entries and returns the messages.
func elementsOf(op uint8, now time.Time, entries ...ban.Entry) []nfnl.Message {
	b := newBatch("t")
	var changes []change
	for i := range entries {
		c := change{entry: &entries[i], kind: kindOf(entries[i].Prefix)}
		if end, timed := entries[i].Until.Time(); timed {
			c.end, c.timed = end.UnixMilli(), true
		}
		changes = append(changes, c)
	}
	var ms int64 // the keys alone
	if !now.IsZero() {
		ms = now.UnixMilli()
	}
	b.elements(op, 0, changes, 0, ms)
	return b.msgs[1:]
}

// TestMessages: each message is within its limits, and each byte of an element
// is known to be of it.
func TestMessages(t *testing.T) {
	var entries []ban.Entry
	for i := range 4000 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})
		entries = append(entries, ban.Entry{Prefix: ban.Host(a), Until: ban.For(time.Now(), time.Hour), Reason: strings.Repeat("a", i%200)})
	}
	n := 0
	for _, m := range elementsOf(newSetElem, time.Now(), entries...) {
		if len(m.Data) > 65535 {
			t.Errorf("a message of %d bytes", len(m.Data))
		}
		list, err := decodeElements(m.Data, kind{true, 128}, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range list {
			e := entries[n+i]
			if l.entry.Prefix != e.Prefix || l.entry.Reason != comment(e.Reason) {
				t.Fatalf("%v is written as %v", e, l.entry)
			}
			key := e.Prefix.Addr().AsSlice()
			if at := elementAt(m.Data, headerLen+bytes.Index(m.Data, key)); at != i {
				t.Fatalf("element %d is found as %d", i, at)
			}
		}
		n += len(list)
	}
	if n != len(entries) {
		t.Errorf("%d elements are written, want %d", n, len(entries))
	}
}

func TestElementAt(t *testing.T) {
	m := elementsOf(delSetElem, time.Time{}, ban.Entry{Prefix: netip.MustParsePrefix("192.0.2.1/32")}, ban.Entry{Prefix: netip.MustParsePrefix("192.0.2.2/32")})[0]
	for offset, want := range map[int]int{-1: -1, 0: -1, headerLen: -1, headerLen + len(m.Data): -1, headerLen + len(m.Data) - 1: 1, 1 << 30: -1} {
		if got := elementAt(m.Data, offset); got != want {
			t.Errorf("offset %d is of element %d, want %d", offset, got, want)
		}
	}
}

func TestComment(t *testing.T) {
	for reason, want := range map[string]string{
		"":                               "",
		"Conn Cnt: 684":                  "Conn Cnt: 684",
		"a\nb\x00\"c\"\xff":              "a b'c'",
		strings.Repeat("x", 300):         strings.Repeat("x", 120),
		"a" + strings.Repeat("é", 100):   "a" + strings.Repeat("é", 59),
		strings.Repeat("\x01", 200) + "": "",
	} {
		if got := comment(reason); got != want {
			t.Errorf("comment(%q) = %q, want %q", reason, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	now := time.Now()
	m := request(newSetElem, 0)
	m.Nested(listElements, func() {
		for _, ms := range []uint64{1500, 0, 1 << 63} {
			m.Nested(listElem, func() {
				m.Nested(elemKey, func() { m.Bytes(dataValue, []byte{203, 0, 113, 7}) })
				m.U64(elemTimeout, 2000)
				m.U64(elemExpiration, ms)
				m.Nested(elemExpr, func() {
					m.String(exprName, "counter")
					m.Nested(exprData, func() { m.U64(1, 84); m.U64(2, 2) })
				})
			})
		}
	})
	list, err := decodeElements(m.Message().Data, kind{false, 32}, now, nil)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v; want 2, as one is over", list, err)
	}
	if l := list[0]; !l.counted || l.bytes != 84 || l.packets != 2 || l.entry.Until != ban.At(now.Add(1500*time.Millisecond)) {
		t.Errorf("decoded as %+v", l)
	}
	if l := list[1]; l.entry.Until.Forever() {
		t.Errorf("a timed ban is decoded as %+v", l)
	}
}

// FuzzDecode: no bytes make it panic, and what comes out is a ban of the set.
func FuzzDecode(f *testing.F) {
	for _, m := range elementsOf(newSetElem, time.Now(), ban.Entry{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Until: ban.Forever, Reason: "why"}) {
		f.Add(m.Data, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, four bool) {
		k := kind{true, 64}
		if four {
			k = kind{false, 32}
		}
		list, _ := decodeElements(b, k, time.Now(), nil)
		for _, l := range list {
			if err := l.entry.Check(); err != nil || kindOf(l.entry.Prefix) != k || !utf8.ValidString(l.entry.Reason) {
				t.Errorf("%v: %v", l.entry, err)
			}
		}
		for offset := range len(b) {
			if elementAt(b, offset) > len(b) {
				t.Error("an element beyond the message")
			}
		}
		if s, err := decodeSet(b); err != nil && s != (listedSet{}) {
			t.Errorf("%v with %v", s, err)
		}
	})
}

func TestOrder(t *testing.T) {
	entry := func(s string) *ban.Entry { return &ban.Entry{Prefix: netip.MustParsePrefix(s)} }
	changes := []change{
		{at: 0, entry: entry("2001:db8::/64")}, {at: 1, entry: entry("192.0.2.1/32")}, {at: 2, entry: entry("192.0.2.0/24")},
		{at: 3, entry: entry("192.0.2.2/32"), known: true}, {at: 4, entry: entry("192.0.2.3/32")}, {at: 5, entry: entry("2001:db8::1/128")},
	}
	for i := range changes {
		changes[i].kind = kindOf(changes[i].entry.Prefix)
	}
	order(changes)
	var got []int32
	for _, c := range changes {
		got = append(got, c.at)
	}
	if want := []int32{3, 1, 4, 2, 5, 0}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}
