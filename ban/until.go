package ban

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Until is when a ban ends: At an instant, or Forever. It is comparable. The
// zero Until is neither, and no Backend takes it.
type Until struct{ ms int64 } // milliseconds since 1970

// Forever is the end of a ban that is taken back only by Unban.
var Forever = Until{ms: forever}

const forever = -1

// last is the last instant there is.
var last = time.UnixMilli(math.MaxInt64 - 1)

// At returns the end of a ban at t, rounded up to a millisecond. A t before
// 1970 is in 1970: over.
func At(t time.Time) Until {
	if t.After(last) {
		t = last
	}
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return Until{max(ms, 1)}
}

// For returns the end of a ban that begins now and lasts d, rounded up to a
// millisecond.
func For(now time.Time, d time.Duration) Until { return At(now.Add(d)) }

// IsZero reports that the end was not set.
func (u Until) IsZero() bool { return u.ms == 0 }

// Forever reports a ban without end.
func (u Until) Forever() bool { return u.ms == forever }

// Time returns the instant; ok is false for Forever and for the zero Until.
func (u Until) Time() (t time.Time, ok bool) {
	if u.ms <= 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(u.ms), true
}

// Left is how long the ban lasts yet: at least 0, and 0 once it is over. ok is
// false for Forever and for the zero Until.
func (u Until) Left(now time.Time) (left time.Duration, ok bool) {
	t, ok := u.Time()
	return max(t.Sub(now), 0), ok
}

// Over reports that the ban has ended. The zero Until is not over: it never
// began.
func (u Until) Over(now time.Time) bool {
	left, ok := u.Left(now)
	return ok && left == 0
}

// String is the instant in RFC 3339, "forever", or "unset".
func (u Until) String() string {
	text, err := u.MarshalText()
	if err != nil {
		return "unset"
	}
	return string(text)
}

// MarshalText writes "forever" or the instant in RFC 3339, in UTC. The zero
// Until has no text.
func (u Until) MarshalText() ([]byte, error) {
	switch t, ok := u.Time(); {
	case ok:
		return t.UTC().AppendFormat(nil, "2006-01-02T15:04:05.999Z07:00"), nil
	case u.Forever():
		return []byte("forever"), nil
	}
	return nil, errors.New("ban: the end of the ban is not set")
}

// UnmarshalText reads what MarshalText writes.
func (u *Until) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*u = Forever
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return fmt.Errorf("ban: end of the ban %q: neither \"forever\" nor a time such as 2006-01-02T15:04:05Z", text)
	}
	*u = At(t)
	return nil
}

// later reports an end after v's. None is later than Forever.
func (u Until) later(v Until) bool {
	return !v.Forever() && (u.Forever() || u.ms > v.ms)
}
