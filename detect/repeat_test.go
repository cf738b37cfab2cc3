package detect

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var offender = netip.MustParsePrefix("197.203.26.142/32")

// oneLook is what one look counted, and when.
type oneLook struct {
	at time.Duration
	n  uint64
}

func TestRepeat(t *testing.T) {
	const s, m = time.Second, time.Minute
	for _, tt := range []struct {
		name  string
		r     Repeat
		looks []oneLook
		want  []int // the looks that take the source over
	}{
		{"at once", Repeat{}, []oneLook{{0, 40}}, []int{0}},
		{"one less", Repeat{}, []oneLook{{0, 39}}, nil},
		{"in two looks, 10 minutes apart", Repeat{}, []oneLook{{0, 20}, {10 * m, 20}}, []int{1}},
		{"one less in two", Repeat{}, []oneLook{{0, 20}, {10 * m, 19}}, nil},
		{"in three", Repeat{}, []oneLook{{0, 20}, {10 * m, 19}, {20 * m, 20}}, nil},
		{"too far apart", Repeat{}, []oneLook{{0, 39}, {750 * s, 39}, {1500 * s, 39}}, nil},
		{"not told again", Repeat{}, []oneLook{{0, 40}, {1 * m, 40}, {2 * m, 40}}, []int{0}},
		{"still over between Release and MaxRetry", Repeat{}, []oneLook{{0, 40}, {10 * m, 25}, {20 * m, 25}, {30 * m, 25}}, []int{0}},
		{"released, and over again", Repeat{}, []oneLook{{0, 40}, {30 * m, 19}, {30*m + 1, 21}}, []int{0, 2}},
		{"another Release", Repeat{Release: 1}, []oneLook{{0, 40}, {10 * m, 1}, {20 * m, 1}, {20*m + 1, 90}}, []int{0}},
		{"another FindTime", Repeat{FindTime: 8 * s}, []oneLook{{0, 39}, {7999 * time.Millisecond, 1}, {16 * s, 39}, {24 * s, 1}}, []int{1}},
		{"another MaxRetry", Repeat{MaxRetry: 3, FindTime: time.Hour}, []oneLook{{0, 1}, {20 * m, 1}, {40 * m, 1}}, []int{2}},
		{"a step back", Repeat{}, []oneLook{{m, 39}, {m - s, 1}}, []int{1}},
		{"a long step back", Repeat{}, []oneLook{{time.Hour, 39}, {0, 39}, {1, 1}}, []int{2}},
		{"a huge count", Repeat{}, []oneLook{{0, 1 << 63}, {1, 1 << 63}}, []int{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			for i, l := range tt.looks {
				if tt.r.Add(now.Add(l.at), offender, l.n) {
					got = append(got, i)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("over at %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRepeatOver(t *testing.T) {
	var r Repeat
	other := netip.MustParsePrefix("2001:db8:7::/64")
	r.Add(now, other, 50)
	r.Add(now, offender, 50)
	r.Add(now, netip.MustParsePrefix("192.0.2.1/32"), 39)
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{0, "[197.203.26.142/32 2001:db8:7::/64]"}, {650 * time.Second, "[197.203.26.142/32 2001:db8:7::/64]"}, {750 * time.Second, "[]"}} {
		if got := r.Over(now.Add(tt.after)); fmt.Sprint(got) != tt.want {
			t.Errorf("after %v: %v, want %s", tt.after, got, tt.want)
		}
	}
}

// A full Repeat goes on with those that it has, and takes others once these are
// forgotten.
func TestRepeatFull(t *testing.T) {
	r := Repeat{Sources: 100}
	source := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 32)
	}
	for i := range 1000 {
		if over := r.Add(now, source(i), 40); over != (i < 100) {
			t.Fatalf("source %d: %v", i, over)
		}
	}
	if r.Refused() != 900 || len(r.counts) != 100 {
		t.Errorf("%d refused, %d kept", r.Refused(), len(r.counts))
	}
	if later := now.Add(time.Hour); !r.Add(later, source(999), 40) || len(r.counts) != 1 {
		t.Errorf("an hour later, %d are kept", len(r.counts))
	}
}

// Findings are passed on when they repeat.
func TestRepeatConfirm(t *testing.T) {
	r := Repeat{MaxRetry: 100}
	f := Finding{Subject: "it", Count: 41, Sources: []netip.Prefix{offender}}
	nobody := Finding{Subject: "nobody's", Count: 1000}
	for i, want := range []int{0, 0, 1, 0} {
		got := r.Confirm(now.Add(time.Duration(i)*time.Minute), []Finding{nobody, f})
		if len(got) != want || want > 0 && got[0].Subject != "it" {
			t.Errorf("look %d: %v", i, got)
		}
	}
}

func TestRepeatAllocs(t *testing.T) {
	var r Repeat
	r.Add(now, offender, 1)
	if n := testing.AllocsPerRun(100, func() { r.Add(now, offender, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
