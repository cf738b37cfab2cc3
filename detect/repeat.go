package detect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Repeat adds up what repeated looks count for each source, as fail2ban does
// with lines of a log: a source is over when it was counted MaxRetry times
// within FindTime. It stays over, and is not told again, until what counts
// falls below Release.
//
// A count is forgotten when it is FindTime old, at the latest, and 7/8 of that
// at the earliest. When there are Sources, a new one is not counted until
// another is forgotten: see Refused. The zero Repeat is ready to use, and not
// safe for concurrent use.
type Repeat struct {
	// MaxRetry is how many make a source be over; 0 is 40.
	MaxRetry uint64
	// FindTime is for how long a count counts; 0 is 750 s.
	FindTime time.Duration
	// Release is below how many a source is over no longer; 0 is half of
	// MaxRetry.
	Release uint64
	// Sources is how many are kept at a time, at some 110 bytes each; 0 is
	// 65,536.
	Sources int

	begin   time.Time // of part 0
	part    int64     // the present one
	swept   int64     // the part in which the forgotten were last removed
	counts  map[netip.Prefix]*retries
	refused uint64
}

// retries is what a source has in the last parts of FindTime.
type retries struct {
	parts [parts]uint32
	part  int64 // the latest
	over  bool
}

func (r *Repeat) maxRetry() uint64 { return cmp.Or(r.MaxRetry, 40) }
func (r *Repeat) release() uint64  { return cmp.Or(r.Release, (r.maxRetry()+1)/2) }

// Add counts n for a source, and reports whether that takes it over. When the
// clock runs back by a quarter of FindTime, all is forgotten.
func (r *Repeat) Add(now time.Time, source netip.Prefix, n uint64) bool {
	r.turn(now)
	c := r.count(source.Masked())
	if c == nil {
		return false
	}
	r.age(c)
	at := &c.parts[r.part%parts]
	*at = uint32(min(uint64(*at)+n, 1<<32-1))
	was := c.over
	c.over = was || c.sum() >= r.maxRetry()
	return c.over && !was
}

// Confirm adds the Count of findings to each of their Sources, and returns
// those of which a source is over now that was not before.
func (r *Repeat) Confirm(now time.Time, findings []Finding) []Finding {
	var confirmed []Finding
	for _, f := range findings {
		over := false
		for _, s := range f.Sources {
			over = r.Add(now, s, f.Count) || over
		}
		if over {
			confirmed = append(confirmed, f)
		}
	}
	return confirmed
}

// Over returns the sources that are over, in order.
func (r *Repeat) Over(now time.Time) []netip.Prefix {
	r.turn(now)
	var over []netip.Prefix
	for p, c := range r.counts {
		if r.age(c); c.over {
			over = append(over, p)
		}
	}
	slices.SortFunc(over, netip.Prefix.Compare)
	return over
}

// Refused is how often a source was not counted, because there were Sources.
func (r *Repeat) Refused() uint64 { return r.refused }

// count returns the counter of a source, nil if there is no room.
func (r *Repeat) count(source netip.Prefix) *retries {
	if c := r.counts[source]; c != nil {
		return c
	}
	if len(r.counts) >= cmp.Or(r.Sources, 1<<16) {
		r.sweep()
	}
	if len(r.counts) >= cmp.Or(r.Sources, 1<<16) {
		r.refused++
		return nil
	}
	c := &retries{part: r.part}
	r.counts[source] = c
	return c
}

// sweep removes what is forgotten, once in each part of FindTime.
func (r *Repeat) sweep() {
	if r.swept == r.part {
		return
	}
	r.swept = r.part
	for p, c := range r.counts {
		if r.age(c); c.sum() == 0 {
			delete(r.counts, p)
		}
	}
}

// age forgets what is too old.
func (r *Repeat) age(c *retries) {
	for n := min(r.part-c.part, parts); n > 0; n-- {
		c.parts[(r.part-n+1)%parts] = 0
	}
	c.part = r.part
	c.over = c.over && c.sum() >= r.release()
}

func (c *retries) sum() (n uint64) {
	for _, p := range c.parts {
		n += uint64(p)
	}
	return n
}

// turn sets the present part. It does not go back.
func (r *Repeat) turn(now time.Time) {
	length := max(cmp.Or(r.FindTime, 750*time.Second)/parts, 1)
	at := now.Sub(r.begin)
	if r.counts == nil || at < time.Duration(r.part-1)*length {
		r.counts, r.begin, r.part, r.swept = make(map[netip.Prefix]*retries), now, 0, -1
		return
	}
	r.part = max(r.part, int64(at/length))
}
