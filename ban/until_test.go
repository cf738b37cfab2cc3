package ban

import (
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"
)

func nativeLittle() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

func TestUntil(t *testing.T) {
	now := time.Date(2026, 12, 22, 20, 30, 1, 0, time.UTC)
	for _, test := range []struct {
		until   Until
		text    string
		left    time.Duration
		timed   bool
		forever bool
	}{
		{Until{}, "unset", 0, false, false},
		{Forever, "forever", 0, false, true},
		{For(now, 270*time.Second), "2026-12-22T20:34:31Z", 270 * time.Second, true, false},
		{For(now, time.Nanosecond), "2026-12-22T20:30:01.001Z", time.Millisecond, true, false},
		{For(now, -time.Hour), "2026-12-22T19:30:01Z", 0, true, false},
		{At(time.Time{}), "1970-01-01T00:00:00.001Z", 0, true, false},
		{At(time.Unix(0, 0)), "1970-01-01T00:00:00.001Z", 0, true, false},
	} {
		if got := test.until.String(); got != test.text {
			t.Errorf("String %q, want %q", got, test.text)
		}
		left, timed := test.until.Left(now)
		if left != test.left || timed != test.timed || test.until.Forever() != test.forever {
			t.Errorf("%v: left %v, %v, forever %v", test.until, left, timed, test.until.Forever())
		}
		if over := test.until.Over(now); over != (test.timed && test.left == 0) {
			t.Errorf("%v: over %v", test.until, over)
		}
		b, err := json.Marshal(test.until)
		if (err != nil) != test.until.IsZero() {
			t.Errorf("%v: %v", test.until, err)
		}
		var back Until
		if err == nil && (json.Unmarshal(b, &back) != nil || back != test.until) {
			t.Errorf("%v comes back as %v", test.until, back)
		}
	}
	for _, bad := range []string{"", "never", "0", "2026-12-22", "forever "} {
		var u Until
		if err := u.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, u)
		}
	}
}

// FuzzUntil: no instant turns into forever or nothing, and none is moved ahead.
func FuzzUntil(f *testing.F) {
	f.Add(int64(0), int64(0))
	f.Add(int64(-1), int64(999_999_999))
	f.Add(int64(1<<62), int64(1))
	f.Fuzz(func(t *testing.T, sec, ns int64) {
		at := time.Unix(sec, ns)
		u := At(at)
		got, ok := u.Time()
		if !ok || u.Forever() || u.IsZero() {
			t.Fatalf("%v is %v", at, u)
		}
		if now := time.Unix(1, 0); at.After(now) && u.Over(now) {
			t.Fatalf("%v is over at %v", at, now)
		}
		if year := at.Year(); year >= 1970 && year < 9999 && (got.Before(at) || got.Sub(at) > time.Millisecond) {
			t.Fatalf("%v is %v", at, got)
		}
	})
}
