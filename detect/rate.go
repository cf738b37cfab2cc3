package detect

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// Rate finds sources that open connections to one port too fast, from the
// tracker's events: short connections never show in a snapshot.
//
// A source is counted for each destination port by itself. What is counted is
// never more than there was, so a source within the limit is never named; with
// more sources at a time than Keys, those that come seldom are forgotten, and a
// source is surely named only from the limit plus 1/Keys of all connections of
// the window on. The last connections count in eight parts of the window: none
// older than it, and all younger than 7/8 of it.
//
// When Many sources of one network, at least two, come to more than half of the
// limit within the window, the network is named in place of those that reach
// it later. Of such sources and networks an eighth of Keys is known at a time,
// and others do not count.
type Rate struct {
	Sources
	// Limits are how many connections are normal; none is fewer than 200 in
	// 30 s and fewer than 128 in 600 s.
	Limits []RateLimit
	// Keys is how many sources are counted in each part of a window; 0 is
	// 8192, which takes some 6 MB for each limit, whatever comes.
	Keys int
}

// RateLimit is a number of connections in a time.
type RateLimit struct {
	Count  uint64
	Within time.Duration // at least 8 ns
}

// String returns "200 in 30s".
func (l RateLimit) String() string { return fmt.Sprintf("%d in %v", l.Count, l.Within) }

var usualLimits = []RateLimit{{200, 30 * time.Second}, {128, 10 * time.Minute}}

// Rates is the state of a Rate. It is not safe for concurrent use.
type Rates struct {
	rate   Rate
	own    map[netip.Addr]bool
	speeds []speed
}

// speed is what is counted for one limit.
type speed struct {
	RateLimit
	opened *window // connections, by source
	fast   *window // sources with more than half of the limit, once each
	many   *window // how many of those there are, by network
}

func (d *Rate) speed(l RateLimit) speed {
	keys := cmp.Or(max(d.Keys, 0), 8192)
	few := max(keys/8, 64)
	return speed{l, newWindow(l.Within, keys), newWindow(l.Within, few), newWindow(l.Within, few)}
}

// Start begins to count. Connections from own do not count: they are the
// host's own addresses.
func (d Rate) Start(own ...netip.Addr) *Rates {
	r := &Rates{rate: d, own: make(map[netip.Addr]bool, len(own))}
	for _, a := range own {
		r.own[a.Unmap().WithZone("")] = true
	}
	limits := d.Limits
	if len(limits) == 0 {
		limits = usualLimits
	}
	for _, l := range limits {
		r.speeds = append(r.speeds, d.speed(l))
	}
	return r
}

// Add counts an event, if it is that of a new TCP connection, and returns a
// Finding if it is the one that takes its source to a limit: once, and again
// only after the source was below it for an eighth of the window. now should not run backwards: when it
// does by more than an eighth of a window, what that window counted is
// forgotten.
//
// It allocates only for a Finding.
func (r *Rates) Add(now time.Time, e *conntrack.Event) (Finding, bool) {
	t := &e.Flow.Original
	if e.Type != conntrack.EventNew || t.Proto != conntrack.ProtoTCP || !foreign(t.Src) ||
		r.own[t.Src] || !r.rate.wants(t.DstPort) || r.rate.allows(t.Src) {
		return Finding{}, false
	}
	k := sourceKey{source: r.rate.source(t.Src), port: t.DstPort}
	var found Finding
	for i := range r.speeds {
		if f, ok := r.add(now, k, &r.speeds[i], &e.Flow); ok && found.Detector == "" {
			found = f
		}
	}
	return found, found.Detector != ""
}

// add counts a connection of a source against one limit.
func (r *Rates) add(now time.Time, k sourceKey, s *speed, flow *conntrack.Flow) (Finding, bool) {
	n := s.opened.add(now, k)
	network := sourceKey{source: r.rate.wide(k.source), port: k.port}
	many := uint64(max(r.rate.many(), 2))
	switch {
	case n.reaches((s.Count-1)/2+1) && r.joins(now, k, network, s, many):
		return r.network(now, network, s.RateLimit, many, flow), true
	case n.reaches(s.Count) && (r.rate.many() < 0 || s.many.of(now, network) < many):
		return r.finding(now, r.rate.prefix(k.source), k.port, s.RateLimit, flow), true
	}
	return Finding{}, false
}

// joins counts a source that is fast for its network, and reports whether that
// makes the network one offender.
func (r *Rates) joins(now time.Time, k, network sourceKey, s *speed, many uint64) bool {
	if r.rate.many() < 0 || r.rate.holdsAllowed(r.rate.widePrefix(network.source)) {
		return false
	}
	return s.fast.first(now, k) && s.many.add(now, network).reaches(many)
}

func (r *Rates) finding(now time.Time, p netip.Prefix, port uint16, l RateLimit, flow *conntrack.Flow) Finding {
	return Finding{
		Detector: "Rate", Severity: Warning, Confidence: Likely,
		Subject: fmt.Sprintf("%s, to port %d", bare(p), port), Sources: []netip.Prefix{p},
		Count: l.Count, Limit: l.Count - 1, Since: now.Add(-l.Within),
		Cause: fmt.Sprintf("%s opened %d connections to port %d within %v", bare(p), l.Count, port, l.Within),
		Fix: []string{
			banFix(p),
			fmt.Sprintf("let no source open more: `nft 'add rule inet filter input %s'`", meter(p, port, l)),
			"put a source that may do this, such as a proxy, into Allow",
		},
		Evidence: Evidence{
			Flows:   []conntrack.Flow{*flow},
			Missing: []string{"whether the source is forged: an event of a first packet does not tell"},
		},
	}
}

// network is about a network of many sources, the last of which is that of the
// flow.
func (r *Rates) network(now time.Time, k sourceKey, l RateLimit, many uint64, flow *conntrack.Flow) Finding {
	p := r.rate.widePrefix(k.source)
	f := r.finding(now, p, k.port, l, flow)
	f.Count, f.Limit = many, many-1
	f.Cause = fmt.Sprintf("%d sources of %s opened more than %d connections each to port %d within %v", many, bare(p), (l.Count-1)/2, k.port, l.Within)
	f.Evidence.Missing = append(f.Evidence.Missing, "whether the network is one party")
	return f
}

// meter is a rule of nft that holds each source to the limit.
func meter(p netip.Prefix, port uint16, l RateLimit) string {
	addr := "ip saddr"
	if !p.Addr().Is4() {
		addr = "ip6 saddr"
	}
	if !p.IsSingleIP() {
		addr += " & " + netmask(p).String()
	}
	// Half comes at once, and half over the time: never as many as are found.
	perHour := max(uint64(time.Duration(l.Count/2)*time.Hour/l.Within), 1)
	return fmt.Sprintf("tcp dport %d ct state new meter rate%d { %s limit rate over %d/hour burst %d packets } drop",
		port, port, addr, perHour, max((l.Count-1)/2, 1))
}

// netmask is the mask of a prefix.
func netmask(p netip.Prefix) netip.Addr {
	ones := source(bytes.Repeat([]byte{0xff}, 16))
	if ones.mask(p.Addr().Is4(), p.Bits()); p.Addr().Is4() {
		return netip.AddrFrom4([4]byte(ones[12:]))
	}
	return netip.AddrFrom16(ones)
}

// parts is in how many a window is divided.
const parts = 8

// window counts keys over the last parts of a time.
type window struct {
	part  time.Duration
	begin time.Time // of the part that is counted now
	now   int       // its index
	// parts are those of the window, and the one before them: the next in turn.
	parts [parts + 1]*heavy[sourceKey]
}

func newWindow(within time.Duration, keys int) *window {
	w := &window{part: max(within/parts, 1)}
	for i := range w.parts {
		w.parts[i] = newHeavy(keys, hashKey)
	}
	return w
}

// risen is how often a key came in a window, and in the one before this part.
type risen struct{ now, before uint64 }

// reaches reports whether the last time took a key to a limit.
func (n risen) reaches(limit uint64) bool { return n.now == limit && n.before < limit }

// add counts a key.
func (w *window) add(now time.Time, k sourceKey) risen {
	w.turn(now)
	here := w.parts[w.now].add(k).least()
	before := w.earlier(k)
	return risen{before + here, before + w.parts[w.next()].least(k)}
}

// earlier is how often a key came in the parts of the window before this one.
func (w *window) earlier(k sourceKey) (n uint64) {
	for i, p := range w.parts {
		if i != w.now && i != w.next() {
			n += p.least(k)
		}
	}
	return n
}

// of is how often a key came.
func (w *window) of(now time.Time, k sourceKey) uint64 {
	w.turn(now)
	return w.earlier(k) + w.parts[w.now].least(k)
}

// first counts a key, and reports whether it had not come. Of more keys than
// there is room for the later ones are refused, and not counted.
func (w *window) first(now time.Time, k sourceKey) bool {
	w.turn(now)
	return w.parts[w.now].room(k) && w.add(now, k).reaches(1)
}

func (w *window) next() int { return (w.now + 1) % len(w.parts) }

// turn forgets what is too old.
func (w *window) turn(now time.Time) {
	age := now.Sub(w.begin)
	if age >= 0 && age < w.part || age < 0 && age > -w.part {
		return
	}
	if age < 0 || age >= parts*w.part {
		for _, p := range w.parts {
			p.reset()
		}
		w.begin = now
		return
	}
	for ; age >= w.part; age -= w.part {
		w.now = w.next()
		w.parts[w.now].reset()
		w.begin = w.begin.Add(w.part)
	}
}
