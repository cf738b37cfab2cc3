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
	rate    Rate
	own     map[netip.Addr]bool
	windows []*window
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
		r.windows = append(r.windows, newWindow(l, cmp.Or(max(d.Keys, 0), 8192)))
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
	var over *window
	for _, w := range r.windows {
		if w.add(now, k) && over == nil {
			over = w
		}
	}
	if over == nil {
		return Finding{}, false
	}
	return r.finding(now, k, over, &e.Flow), true
}

func (r *Rates) finding(now time.Time, k sourceKey, w *window, flow *conntrack.Flow) Finding {
	p := r.rate.prefix(k.source)
	f := Finding{
		Detector: "Rate", Severity: Warning, Confidence: Likely,
		Subject: fmt.Sprintf("%s, to port %d", bare(p), k.port), Sources: []netip.Prefix{p},
		Count: w.limit.Count, Limit: w.limit.Count - 1, Since: now.Add(-w.limit.Within),
		Cause: fmt.Sprintf("%s opened %d connections to port %d within %v", bare(p), w.limit.Count, k.port, w.limit.Within),
		Fix: []string{
			banFix(p),
			fmt.Sprintf("let no source open more: `nft 'add rule inet filter input %s'`", meter(p, k.port, w.limit)),
			"put a source that may do this, such as a proxy, into Allow",
		},
		Evidence: Evidence{Flows: []conntrack.Flow{*flow}},
	}
	f.Evidence.Missing = []string{"whether the source is forged: an event of a first packet does not tell"}
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
	perMinute := max(uint64(time.Duration(l.Count)*time.Minute/l.Within), 1)
	return fmt.Sprintf("tcp dport %d ct state new meter rate%d { %s limit rate over %d/minute burst %d packets } drop", port, port, addr, perMinute, l.Count)
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
	limit RateLimit
	part  time.Duration
	begin time.Time // of the part that is counted now
	now   int       // its index
	// parts are those of the window, and the one before them: the next in turn.
	parts [parts + 1]*heavy[sourceKey]
}

func newWindow(l RateLimit, keys int) *window {
	w := &window{limit: l, part: max(l.Within/parts, 1)}
	for i := range w.parts {
		w.parts[i] = newHeavy[sourceKey](keys)
	}
	return w
}

// add counts a key, and reports whether that takes it to the limit.
func (w *window) add(now time.Time, k sourceKey) bool {
	w.turn(now)
	here := w.parts[w.now].add(k).least()
	before := uint64(0)
	for i, p := range w.parts {
		if i != w.now && i != w.next() {
			before += p.least(k)
		}
	}
	return before+here == w.limit.Count && before+w.parts[w.next()].least(k) < w.limit.Count
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
