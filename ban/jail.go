package ban

import (
	"container/list"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Hit is something a source did: a connection in TIME_WAIT, a line in a log, a
// finding of a detector.
type Hit struct {
	Source netip.Addr
	// Count is how many times; 0 is once.
	Count int
	// Reason and Evidence go into the ban that this hit is the last straw of.
	Reason, Evidence string
}

// Jail turns hits into bans, with the words and the meaning of fail2ban's
// jail.conf(5): a source that hits MaxRetry times within FindTime is banned for
// BanTime. It is not safe for concurrent use, and knows no clock: time goes in
// with every call.
type Jail struct {
	// MaxRetry is how many hits earn a ban; 0 is 5. FindTime is how long they
	// are counted together, from the first on; 0 is 10 minutes.
	MaxRetry int
	FindTime time.Duration
	// BanTime is how long a ban lasts; 0 is 10 minutes. With Forever it has no
	// end.
	BanTime time.Duration
	Forever bool

	// Factor makes each further ban of the same source that much longer than
	// the one before, up to MaxTime: 2 doubles it (bantime.increment). 0 and 1
	// do not. MaxTime 0 is 5 weeks. A source is remembered for as long as its
	// last ban lasted, after the end of it, and a day at least.
	Factor  float64
	MaxTime time.Duration

	// Bits4 and Bits6 are what one source is: 0 is 32 and 64, as a host of
	// IPv6 has a /64 to choose addresses from.
	Bits4, Bits6 int
	// Wider4 and Wider6 are the prefixes to ban as a whole, once WiderAt sources
	// within them are banned; 0 is 24 and 48. WiderAt 0 is never.
	Wider4, Wider6, WiderAt int

	// Sources is how many sources are remembered; 0 is 65,536. Beyond it the
	// one that hit longest ago is forgotten, a banned one only if all are.
	Sources int

	// Ignore are never banned, and not counted (ignoreip). It saves work; it
	// is no Guard.
	Ignore []netip.Prefix

	by        map[netip.Prefix]*list.Element // of *inmate
	order     *list.List                     // by last hit, the oldest first
	forgotten uint64
}

// inmate is what is remembered of a source.
type inmate struct {
	prefix netip.Prefix
	first  time.Time // of the hits counted
	last   time.Time
	hits   int
	bans   int // so far
	until  Until
	within int // banned sources within a wider prefix
}

// Check reports settings that make no sense.
func (j *Jail) Check() error {
	d := j.withDefaults()
	switch {
	case j.MaxRetry < 0, j.FindTime < 0, j.BanTime < 0, j.MaxTime < 0, j.Sources < 0, j.WiderAt < 0:
		return errors.New("ban: jail: a negative number")
	case d.Forever && j.BanTime != 0:
		return errors.New("ban: jail: BanTime and Forever exclude each other")
	case d.Factor != 0 && (d.Factor < 1 || math.IsInf(d.Factor, 0) || math.IsNaN(d.Factor)):
		return fmt.Errorf("ban: jail: Factor %v is below 1", d.Factor)
	case d.Bits4 < 1 || d.Bits4 > 32 || d.Wider4 < 1 || d.Wider4 > d.Bits4:
		return fmt.Errorf("ban: jail: IPv4 prefixes of %d and %d bits", d.Bits4, d.Wider4)
	case d.Bits6 < 1 || d.Bits6 > 128 || d.Wider6 < 1 || d.Wider6 > d.Bits6:
		return fmt.Errorf("ban: jail: IPv6 prefixes of %d and %d bits", d.Bits6, d.Wider6)
	}
	return nil
}

func (j *Jail) withDefaults() Jail {
	d := *j
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	long := func(n *time.Duration, to time.Duration) {
		if *n == 0 {
			*n = to
		}
	}
	set(&d.MaxRetry, 5)
	set(&d.Bits4, 32)
	set(&d.Bits6, 64)
	set(&d.Wider4, 24)
	set(&d.Wider6, 48)
	set(&d.Sources, 65_536)
	long(&d.FindTime, 10*time.Minute)
	long(&d.BanTime, 10*time.Minute)
	long(&d.MaxTime, 5*7*24*time.Hour)
	return d
}

// Add counts hits and returns the bans that are due. A source that is banned
// already and hits on is not banned again before that ban is over: whether it
// gets through is the Backend's business. Time that goes backwards counts as
// standing still.
func (j *Jail) Add(now time.Time, hits ...Hit) []Entry {
	d := j.withDefaults()
	var due []Entry
	for _, h := range hits {
		source, ok := d.source(h.Source)
		if !ok {
			continue
		}
		if e, ok := j.hit(&d, now, source, h); ok {
			due = append(due, e)
			if wider, ok := j.widen(&d, now, source, h); ok {
				due = append(due, wider)
			}
		}
	}
	return due
}

// source is the prefix that an address is counted under.
func (j *Jail) source(a netip.Addr) (netip.Prefix, bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return netip.Prefix{}, false
	}
	for _, p := range j.Ignore {
		if unmapped(p).Contains(a) {
			return netip.Prefix{}, false
		}
	}
	bits := j.Bits6
	if a.Is4() {
		bits = j.Bits4
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

func (j *Jail) hit(d *Jail, now time.Time, source netip.Prefix, h Hit) (Entry, bool) {
	m := j.inmate(d, now, source)
	now = latest(now, m.last)
	if now.Sub(m.first) > d.FindTime {
		m.first, m.hits = now, 0
	}
	m.last = now
	m.hits = add(m.hits, max(h.Count, 1))
	switch {
	case m.hits < d.MaxRetry:
		return Entry{}, false
	case m.banned(now), j.within(d, now, source):
		m.hits, m.first = 0, now
		return Entry{}, false
	}
	return j.ban(d, now, m, h), true
}

// within reports that the prefix around a source is banned.
func (j *Jail) within(d *Jail, now time.Time, source netip.Prefix) bool {
	el, ok := j.by[d.wider(source)]
	return ok && el.Value.(*inmate).banned(now)
}

// wider is the prefix that is banned as a whole.
func (j *Jail) wider(source netip.Prefix) netip.Prefix {
	bits := j.Wider6
	if source.Addr().Is4() {
		bits = j.Wider4
	}
	return netip.PrefixFrom(source.Addr(), bits).Masked()
}

// ban makes the entry, and begins to count anew.
func (j *Jail) ban(d *Jail, now time.Time, m *inmate, h Hit) Entry {
	m.until = Forever
	if !d.Forever {
		m.until = For(now, d.term(m.bans))
	}
	e := Entry{Prefix: m.prefix, Until: m.until, Reason: h.Reason, Evidence: h.Evidence}
	if e.Reason == "" {
		e.Reason = fmt.Sprintf("%d hits in %v", m.hits, now.Sub(m.first).Round(time.Second))
	}
	m.bans++
	m.hits, m.first = 0, now
	return e
}

// term is how long the ban after so many others lasts.
func (j *Jail) term(bans int) time.Duration {
	if j.Factor <= 1 {
		return j.BanTime
	}
	t := float64(j.BanTime) * math.Pow(j.Factor, float64(bans))
	return time.Duration(min(t, float64(max(j.MaxTime, j.BanTime))))
}

// widen bans the prefix around a banned source once there are enough in it.
func (j *Jail) widen(d *Jail, now time.Time, source netip.Prefix, h Hit) (Entry, bool) {
	wider := d.wider(source)
	if d.WiderAt == 0 || wider.Bits() >= source.Bits() {
		return Entry{}, false
	}
	m := j.inmate(d, now, wider)
	m.within++
	m.last = latest(now, m.last)
	if m.within < d.WiderAt || m.banned(now) {
		return Entry{}, false
	}
	h.Reason = fmt.Sprintf("%d sources in it were banned", m.within)
	m.within = 0
	return j.ban(d, now, m, h), true
}

// Banned returns the end of the ban that the Jail gave a source; ok is false if
// there is none, or it is over.
func (j *Jail) Banned(now time.Time, source netip.Addr) (until Until, ok bool) {
	d := j.withDefaults()
	p, ok := d.source(source)
	if !ok {
		return Until{}, false
	}
	for _, p := range []netip.Prefix{p, d.wider(p)} {
		if el, ok := j.by[p]; ok && el.Value.(*inmate).banned(now) {
			return el.Value.(*inmate).until, true
		}
	}
	return Until{}, false
}

// Adopt makes known a ban that is in force, as after a restart: its source is
// not banned again before it is over.
func (j *Jail) Adopt(now time.Time, entries ...Entry) {
	d := j.withDefaults()
	for _, e := range entries {
		if e.Check() == nil && !e.Until.Over(now) {
			m := j.inmate(&d, now, e.Prefix)
			m.until, m.bans = e.Until, max(m.bans, 1)
		}
	}
}

// Pardon forgets a source, as when it was unbanned by hand.
func (j *Jail) Pardon(prefix netip.Prefix) {
	if el, ok := j.by[prefix]; ok {
		j.drop(el)
	}
}

// Forgotten is how many sources were forgotten for want of room while their
// hits still counted.
func (j *Jail) Forgotten() uint64 { return j.forgotten }

func (m *inmate) banned(now time.Time) bool { return !m.until.IsZero() && !m.until.Over(now) }

// stale reports that nothing of an inmate matters any more.
func (m *inmate) stale(d *Jail, now time.Time) bool {
	if m.banned(now) || now.Sub(m.last) <= d.FindTime {
		return false
	}
	end, ok := m.until.Time()
	return !ok || now.Sub(end) > max(d.term(max(m.bans-1, 0)), 24*time.Hour)
}

// inmate returns what is known of a source, and makes room for a new one.
func (j *Jail) inmate(d *Jail, now time.Time, p netip.Prefix) *inmate {
	if j.by == nil {
		j.by, j.order = make(map[netip.Prefix]*list.Element), list.New()
	}
	el, ok := j.by[p]
	if ok {
		m := el.Value.(*inmate)
		j.order.MoveToBack(el)
		if m.stale(d, now) {
			*m = inmate{prefix: p, first: now, last: now}
		}
		return m
	}
	if len(j.by) >= d.Sources {
		j.evict(d, now)
	}
	m := &inmate{prefix: p, first: now, last: now}
	j.by[p] = j.order.PushBack(m)
	return m
}

// evict forgets the source that hit longest ago of those that are not banned,
// among the oldest.
func (j *Jail) evict(d *Jail, now time.Time) {
	victim := j.order.Front()
	for el, n := victim, 0; el != nil && n < 64; el, n = el.Next(), n+1 {
		if !el.Value.(*inmate).banned(now) {
			victim = el
			break
		}
	}
	if !victim.Value.(*inmate).stale(d, now) {
		j.forgotten++
	}
	j.drop(victim)
}

func (j *Jail) drop(el *list.Element) {
	delete(j.by, el.Value.(*inmate).prefix)
	j.order.Remove(el)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// add adds without overflow.
func add(a, b int) int {
	if a > math.MaxInt-b {
		return math.MaxInt
	}
	return a + b
}
