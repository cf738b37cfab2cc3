package reject

import (
	"context"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// tally is what Watch itself counted since it began.
type tally struct {
	refused uint64 // packets that this host refused
	errors  uint64 // ICMP errors that it sent
}

// reading is the counters at an instant.
type reading struct {
	at      time.Time
	stats   conntrack.Stats
	limited uint64 // ICMP errors that were held back
	tally
}

// since is what was counted since an earlier reading.
func (r *reading) since(earlier *reading) Counters {
	return Counters{
		Window: r.at.Sub(earlier.at), Conntrack: r.stats.Sub(earlier.stats), RateLimited: r.limited - earlier.limited,
		Refused: r.refused - earlier.refused, Errors: r.errors - earlier.errors,
	}
}

// countEvery is how often counters are read.
const countEvery = 2 * time.Second

// countAll reads the counters until ctx ends. What is dropped by the tracker or
// the rate limit of ICMP shows in them only.
func (w *watch) countAll(ctx context.Context) {
	tick := time.NewTicker(min(countEvery, w.cfg.Repeat))
	defer tick.Stop()
	first := w.count(ctx)
	var drops, limits silence
	drops.base, limits.base = first, first
	window := window{first, first}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := w.count(ctx)
		host := w.surroundings(ctx)
		lately := window.move(r)
		w.mu.Lock()
		w.lately = Found(lately)
		w.silent = drops.tell(w.silent, r, host, w.cfg.Repeat, func(c *Counters) { c.RateLimited = 0 })
		w.silent = limits.tell(w.silent, r, host, w.cfg.Repeat, func(c *Counters) { c.Conntrack = conntrack.Stats{} })
		if len(w.silent) > 0 {
			wake(w.toTell)
		}
		w.mu.Unlock()
	}
}

// count reads the counters. What cannot be read stays 0.
func (w *watch) count(ctx context.Context) *reading {
	r := &reading{at: time.Now()}
	if cpus, err := w.ct.Stats(ctx); err == nil {
		r.stats = conntrack.Total(cpus)
	}
	if w.cfg.Proc != nil {
		r.limited = rateLimited(w.cfg.Proc)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.tally = w.tally
	return r
}

// window is two readings, of which the older is 10 to 20 s old.
type window struct{ older, newer *reading }

func (w *window) move(r *reading) Counters {
	if r.at.Sub(w.newer.at) > 10*time.Second {
		w.older, w.newer = w.newer, r
	}
	return r.since(w.older)
}

// silence is what one kind of counter tells of packets that nobody saw.
type silence struct {
	base   *reading // when it was last told, or there was nothing
	cause  Cause
	first  time.Time
	count  uint64
	toldAt time.Time
}

// tell appends the verdict on what was counted since the last: at first, and
// then every repeat.
func (s *silence) tell(out []Verdict, r *reading, host *surroundings, repeat time.Duration, only func(*Counters)) []Verdict {
	c := r.since(s.base)
	only(&c)
	e := Evidence{Refusal: Counted, Counters: Found(c)}
	host.tell(&e)
	e.Local, e.Counters = Lookup[bool]{}, Found(c)
	v := Explain(e)
	if v.Cause == CauseUnknown {
		s.base = r
		return out
	}
	if v.Cause == s.cause && r.at.Sub(s.toldAt) < repeat {
		return out
	}
	if v.Cause != s.cause || r.at.Sub(s.toldAt) >= forgetAfter*repeat {
		s.cause, s.first, s.count = v.Cause, s.base.at, 0
	}
	s.count += hidden(&c)
	s.toldAt, s.base = r.at, r
	v.Count, v.First, v.Last = int(s.count), s.first, r.at
	return append(out, v)
}

// hidden is how many packets or errors the counters tell of that nobody saw. A
// clash counts as a drop, too.
func hidden(c *Counters) uint64 {
	return max(c.Conntrack.Drop, c.Conntrack.InsertFailed, c.Conntrack.ChainTooLong) + c.RateLimited
}

// rateLimited is how many ICMP errors this host has held back
// (icmpv4_xrlim_allow, icmp_global_allow). Kernels before Linux 6.2 do not
// count them.
func rateLimited(proc fs.FS) uint64 {
	v4, _ := fs.ReadFile(proc, "net/snmp")
	v6, _ := fs.ReadFile(proc, "net/snmp6")
	var n uint64
	for _, name := range []string{"OutRateLimitGlobal", "OutRateLimitHost"} {
		n += snmp(string(v4), "Icmp:", name)
	}
	for line := range strings.Lines(string(v6)) {
		if words := strings.Fields(line); len(words) == 2 && words[0] == "Icmp6OutRateLimitHost" {
			n += number(words[1])
		}
	}
	return n
}

// snmp reads a counter of a table whose first row are names.
func snmp(text, table, name string) uint64 {
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] != table:
		case names == nil:
			names = words
		default:
			for i := range min(len(names), len(words)) {
				if names[i] == name {
					return number(words[i])
				}
			}
		}
	}
	return 0
}

func number(word string) uint64 {
	n, _ := strconv.ParseUint(word, 10, 64) // what is no number counts nothing
	return n
}
