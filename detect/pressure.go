package detect

import (
	"cmp"
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// Pressure finds a conntrack table that is full, nearly full or filling, and
// says of what: states, sources and services. It finds what it has cost already
// by the counters and the log of the kernel, and hash chains that are too long.
//
// In a full table the kernel makes room for a new entry by dropping one that is
// not [ASSURED] (early drop), of those in eight hash chains. If there is none
// the packet is dropped before any rule sees it, and the log says "table full,
// dropping packet". From 95 % on the garbage collector also removes [ASSURED]
// entries of TCP connections that are closing.
//
// A share of the table needs Host.Usage, or the count and limit among the
// Settings; how fast it fills needs Host.Earlier. Rows are looked at only if the
// table is found to be full or filling. A pass then keeps 4096 sources and
// as many services, in at most 1 MB; of more than 4096 each is counted up to
// 1/4096 of all entries too low. The host's own addresses are never among those to
// ban: they are Host.Addrs, and the local addresses of sockets.
type Pressure struct {
	// Full is the share of nf_conntrack_max that is found, 0 to 1; 0 is 0.8.
	// From 0.95 on it is Critical.
	Full float64
	// Filling is the share from which a table is found that will be full
	// Within the given time at its present growth; 0 is 0.5, and 10 minutes.
	Filling float64
	Within  time.Duration
	// Load is the average length of hash chains that is found; 0 is 8, which
	// no kernel reaches with the sizes that it chooses.
	Load float64
	// Top is how many states, sources and services are named; 0 is 3.
	Top int
}

// evicts is the share from which the garbage collector evicts (nf_conntrack_max95
// in net/netfilter/nf_conntrack_core.c).
const evicts = 0.95

// Name returns "Pressure".
func (Pressure) Name() string { return "Pressure" }

// Look begins a pass.
func (p Pressure) Look(h *Host) Look {
	p.defaults()
	u := h.usage()
	if !p.presses(h, u) {
		return Look{Findings: func() []Finding { return p.others(h, u) }}
	}
	t := newContents(h)
	return Look{Socket: t.socket, Flow: t.flow, Findings: func() []Finding {
		return append([]Finding{p.fullness(h, u, t)}, p.others(h, u)...)
	}}
}

// presses reports whether the table is too full, or will be soon.
func (p *Pressure) presses(h *Host, u conntrack.Usage) bool {
	share, limited := u.Share()
	_, left, grows := h.growth(u)
	return limited && (share >= p.Full || grows && share >= p.Filling && left <= p.Within)
}

// others are the findings that no row is needed for.
func (p *Pressure) others(h *Host, u conntrack.Usage) (found []Finding) {
	if f, ok := p.chains(u); ok {
		found = append(found, f)
	}
	return append(found, h.counters(u)...)
}

func (p *Pressure) defaults() {
	p.Full = cmp.Or(p.Full, 0.8)
	p.Filling = cmp.Or(p.Filling, 0.5)
	p.Within = cmp.Or(p.Within, 10*time.Minute)
	p.Load = cmp.Or(p.Load, 8)
	p.Top = cmp.Or(p.Top, 3)
}

// usage is Host.Usage or, if that is not known, what the settings say.
func (h *Host) usage() conntrack.Usage {
	u := h.Usage
	s := h.Settings
	if u != (conntrack.Usage{}) || !s.Has("nf_conntrack_count") || !s.Has("nf_conntrack_max") {
		return u
	}
	u.Count, u.Max, u.Fields = s.Count, s.Max, conntrack.UsageMax
	if s.Has("nf_conntrack_buckets") {
		u.Buckets, u.Fields = s.Buckets, u.Fields|conntrack.UsageBuckets
	}
	return u
}

// growth is by how many entries a second the table grows, and when it is full;
// ok is false if it does not grow, or that is not known.
func (h *Host) growth(u conntrack.Usage) (perSecond float64, full time.Duration, ok bool) {
	elapsed, known := h.since()
	before := h.Earlier.Usage
	if !known || before == (conntrack.Usage{}) || u.Count <= before.Count {
		return 0, 0, false
	}
	perSecond = float64(u.Count-before.Count) / elapsed.Seconds()
	left := float64(u.Max) - float64(u.Count)
	return perSecond, time.Duration(min(max(left, 0)/perSecond, 1e9) * float64(time.Second)), true
}

func (p *Pressure) fullness(h *Host, u conntrack.Usage, t *contents) Finding {
	share, _ := u.Share()
	rate, left, grows := h.growth(u)
	f := Finding{
		Detector: "Pressure", Severity: Warning, Confidence: Likely,
		Subject: "conntrack table", Count: u.Count, Limit: u.Max,
	}
	if share >= evicts {
		f.Severity = Critical
	}
	entries, _ := u.Memory()
	f.Cause = fmt.Sprintf("the table has %d of %d entries (%s), %s of kernel memory", u.Count, u.Max, shareText(u.Count, u.Max), sizeText(entries))
	switch {
	case u.Count >= u.Max:
		f.Cause += "; it is full: a new connection costs another its entry, or is dropped"
	case grows:
		f.Cause += fmt.Sprintf("; it grows by %.0f a second and is full in %s", rate, seconds(left))
	}
	f.Evidence.Settings = []Setting{{"net.netfilter.nf_conntrack_max", fmt.Sprint(u.Max)}}
	if _, known := h.since(); !known {
		f.Evidence.Missing = append(f.Evidence.Missing, "an earlier reading of the usage: how fast it fills")
	}
	t.describe(&f, h, p.Top)
	f.Fix = append(f.Fix, raise(u))
	return f
}

// raise is the command for a table of double size, and what it costs.
func raise(u conntrack.Usage) string {
	bigger := u
	bigger.Count = 2 * u.Max
	entries, _ := bigger.Memory()
	fix := fmt.Sprintf("raise the limit, in the initial network namespace: `sysctl -w net.netfilter.nf_conntrack_max=%d`, "+
		"which is %s when full", 2*u.Max, sizeText(entries))
	if load, ok := bigger.Load(); ok && load > 4 {
		fix += fmt.Sprintf(", with shorter chains: `sysctl -w net.netfilter.nf_conntrack_buckets=%d`", u.Max)
	}
	return fix + "; where a source fills the table this only delays it"
}

func (p *Pressure) chains(u conntrack.Usage) (Finding, bool) {
	load, ok := u.Load()
	if !ok || load < p.Load {
		return Finding{}, false
	}
	return Finding{
		Detector: "Pressure", Severity: Warning, Confidence: Likely, Subject: "conntrack hash table",
		Count: uint64(load), Limit: uint64(p.Load),
		Cause: fmt.Sprintf("%d entries, two links each, are in %d hash chains: a look-up passes %.1f links on average, "+
			"and Linux refuses what meets a chain of 50 to 79 (5.15 on)", u.Count, u.Buckets, load),
		Fix:      moreChains(u),
		Evidence: Evidence{Settings: []Setting{{"net.netfilter.nf_conntrack_buckets", fmt.Sprint(u.Buckets)}}},
	}, true
}

// shareText writes a part of a whole in percent.
func shareText(n, of uint64) string {
	return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(max(of, 1)))
}

// sizeText writes a number of bytes in MiB, or KiB where it is less than ten.
func sizeText(n uint64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
