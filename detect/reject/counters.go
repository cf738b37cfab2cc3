package reject

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
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
	limited uint64 // ICMP errors that were held back, and those of ICMPv6
	of6     uint64
	dropped stackCounts
	full    *sockdiag.Socket // the listener that overflowed last
	tally
}

// since is what was counted since an earlier reading.
func (r *reading) since(earlier *reading) Counters {
	return Counters{
		Window: r.at.Sub(earlier.at), Conntrack: r.stats.Sub(earlier.stats), RateLimited: r.limited - earlier.limited, RateLimited6: r.of6 - earlier.of6,
		Refused: r.refused - earlier.refused, Errors: r.errors - earlier.errors,
		ReversePath: r.dropped.reversePath - earlier.dropped.reversePath, Overflows: r.dropped.overflows - earlier.dropped.overflows,
	}
}

// countEvery is how often counters are read.
const countEvery = 2 * time.Second

// countAll reads the counters until ctx ends. What is dropped by the tracker or
// the rate limit of ICMP shows in them only. It calls ready when it knows from
// where to count.
func (w *watch) countAll(ctx context.Context, ready func()) {
	tick := time.NewTicker(min(countEvery, w.cfg.Repeat))
	defer tick.Stop()
	silent := newSilences(w.count(ctx))
	window := window{silent.last, silent.last}
	w.countFrom(window.older)
	ready()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := w.count(ctx)
		if r.full = silent.last.full; r.dropped.overflows != silent.last.dropped.overflows {
			r.full = w.fullListener(ctx)
		}
		verdicts := silent.read(r, w.surroundings(ctx), w.cfg.Repeat)
		window.move(r)
		w.countFrom(window.older)
		w.mu.Lock()
		w.silent = append(w.silent, verdicts...)
		w.mu.Unlock()
		if len(verdicts) > 0 {
			wake(w.toTell)
		}
	}
}

// countFrom has lately count from a reading.
func (w *watch) countFrom(r *reading) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = r
}

// lately is what was counted until now.
func (w *watch) lately(ctx context.Context) Lookup[Counters] {
	w.mu.Lock()
	from := w.from
	w.mu.Unlock()
	if from == nil {
		return Lookup[Counters]{}
	}
	return Found(w.count(ctx).since(from))
}

// count reads the counters. What cannot be read stays 0.
func (w *watch) count(ctx context.Context) *reading {
	r := &reading{at: time.Now()}
	w.mu.Lock()
	r.tally = w.tally // first: of what is refused the rest may be counted already
	w.mu.Unlock()
	if cpus, err := w.ct.Stats(ctx); err == nil {
		r.stats = conntrack.Total(cpus)
	}
	if w.cfg.Proc != nil {
		r.limited, r.of6 = rateLimited(w.cfg.Proc)
		r.dropped = readStack(w.cfg.Proc)
	}
	return r
}

// window is two readings, of which the older is 10 to 20 s old.
type window struct{ older, newer *reading }

func (w *window) move(r *reading) {
	if r.at.Sub(w.newer.at) > 10*time.Second {
		w.older, w.newer = w.newer, r
	}
}

// silences are the causes that counters tell of packets that nobody saw.
type silences struct {
	last *reading
	by   map[Cause]*silence
}

// silence is one of these causes.
type silence struct {
	base    *reading // when it began, or was last told
	begun   time.Time
	count   uint64
	toldAt  time.Time
	pending bool // there is more to tell
}

func newSilences(first *reading) *silences {
	return &silences{last: first, by: make(map[Cause]*silence)}
}

// read returns verdicts on what was counted since the last reading: at first, and
// then every repeat with what was counted meanwhile.
func (ss *silences) read(r *reading, host *surroundings, repeat time.Duration) (out []Verdict) {
	for _, v := range ExplainAll(countedBetween(ss.last, r, host)) {
		s := ss.by[v.Cause]
		if s == nil || r.at.Sub(s.toldAt) >= forgetAfter*repeat {
			s = &silence{begun: ss.last.at}
			ss.by[v.Cause] = s
		}
		if !s.pending {
			s.base, s.pending = ss.last, true
		}
	}
	ss.last = r
	for _, cause := range slices.Sorted(maps.Keys(ss.by)) {
		if s := ss.by[cause]; s.pending && r.at.Sub(s.toldAt) >= repeat {
			out = append(out, s.tell(cause, r, host)...)
		}
	}
	return out
}

// countedBetween is the evidence of what was counted between two readings.
func countedBetween(earlier, r *reading, host *surroundings) Evidence {
	e := Evidence{Refusal: Counted, At: r.at}
	host.tell(&e)
	e.Local, e.Counters = Lookup[bool]{}, Found(r.since(earlier))
	if r.full != nil {
		e.Listener = Found(*r.full)
	}
	return e
}

// tell is the verdict on what was counted since base, with the sum so far. There
// is none when what was counted first fits the cause no more, seen with the rest.
func (s *silence) tell(cause Cause, r *reading, host *surroundings) []Verdict {
	s.pending, s.toldAt = false, r.at
	for _, v := range ExplainAll(countedBetween(s.base, r, host)) {
		if v.Cause == cause {
			s.count += hidden(cause, &v.Evidence.Counters.Value)
			v.Count, v.First, v.Last = int(s.count), s.begun, r.at
			return []Verdict{v}
		}
	}
	return nil
}

// hidden is how many packets or errors the counters of a cause tell of.
func hidden(c Cause, n *Counters) uint64 {
	switch c {
	case CauseTableFull: // a clash is counted as a drop, too
		return n.Conntrack.Drop - min(n.Conntrack.Drop, n.Conntrack.InsertFailed)
	case CauseInsertFailed:
		return n.Conntrack.InsertFailed - min(n.Conntrack.InsertFailed, n.Conntrack.ChainTooLong)
	case CauseLongChains:
		return n.Conntrack.ChainTooLong
	case CauseReversePath:
		return n.ReversePath
	case CauseAcceptQueueFull:
		return n.Overflows
	}
	return n.RateLimited
}

// fullListener is the listener whose queue is the longest of those that are
// full, or nil.
func (w *watch) fullListener(ctx context.Context) (full *sockdiag.Socket) {
	for s, err := range w.diag.All(ctx, sockdiag.Query{States: sockdiag.States(sockdiag.Listen)}) {
		if err == nil && s.AcceptQueue > s.Backlog && (full == nil || s.AcceptQueue > full.AcceptQueue) {
			full = &s
		}
	}
	return full
}

// stackCounts is what the network stack drops for reasons of its own.
type stackCounts struct{ reversePath, overflows uint64 }

func readStack(proc fs.FS) stackCounts {
	b, _ := fs.ReadFile(proc, "net/netstat")
	return stackCounts{
		reversePath: snmp(string(b), "TcpExt:", "IPReversePathFilter"),
		overflows:   snmp(string(b), "TcpExt:", "ListenOverflows"),
	}
}

// rateLimited is how many ICMP errors this host has held back, and how many of
// them were ICMPv6's
// (icmpv4_xrlim_allow, icmp_global_allow). Kernels before Linux 6.2 do not
// count them.
func rateLimited(proc fs.FS) (all, of6 uint64) {
	v4, _ := fs.ReadFile(proc, "net/snmp")
	v6, _ := fs.ReadFile(proc, "net/snmp6")
	for _, name := range []string{"OutRateLimitGlobal", "OutRateLimitHost"} {
		all += snmp(string(v4), "Icmp:", name)
	}
	for line := range strings.Lines(string(v6)) {
		if words := strings.Fields(line); len(words) == 2 && words[0] == "Icmp6OutRateLimitHost" {
			of6 += counterValue(words[1])
		}
	}
	return all + of6, of6
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
					return counterValue(words[i])
				}
			}
		}
	}
	return 0
}

func counterValue(word string) uint64 {
	n, _ := strconv.ParseUint(word, 10, 64) // what is no number counts nothing
	return n
}
