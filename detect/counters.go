package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
)

// lossCounter is one of the tracker's, and what it means when it counts.
type lossCounter struct {
	name     string
	field    conntrack.StatFields
	count    func(*conntrack.Stats) uint64
	severity Severity
	// rate is how many a second are found, 0 meaning any. Those with a rate
	// are not found since boot: over so long, some are normal.
	rate  float64
	cause string
	fix   string
}

// counters are those of a table under pressure, the first of which lose packets.
var counters = []lossCounter{
	{
		"drop", conntrack.StatDrop, func(s *conntrack.Stats) uint64 { return s.Drop - min(s.Drop, clashed(s)) }, Critical, 0,
		"packets of new connections were dropped for want of an entry, before any rule saw them: the table was full, or memory short",
		"see what fills the table, and make room: `conntrack -L -o extended`, `net.netfilter.nf_conntrack_max`",
	},
	{
		"early_drop", conntrack.StatEarlyDrop, func(s *conntrack.Stats) uint64 { return s.EarlyDrop }, Critical, 0,
		"entries that were not assured were evicted because the table was full: connections that had just begun were lost",
		"see what fills the table, and make room: `conntrack -L -o extended`, `net.netfilter.nf_conntrack_max`",
	},
	{
		"chaintoolong", conntrack.StatChainTooLong, func(s *conntrack.Stats) uint64 { return s.ChainTooLong }, Critical, 0,
		"new connections were dropped because their hash chain was too long: there are too few chains, or somebody aims at one",
		"more chains: `net.netfilter.nf_conntrack_buckets` at least half of `net.netfilter.nf_conntrack_max`",
	},
	{
		"insert_failed", conntrack.StatInsertFailed, clashed, Warning, 1,
		"new connections were dropped because their reply tuple was taken: two got the same port by source NAT, or one client sent twice from one port (DNS)",
		"let NAT choose ports at random, `fully-random` in nft or `--random-fully` in iptables, and give it more addresses",
	},
	{
		"invalid", conntrack.StatInvalid, func(s *conntrack.Stats) uint64 { return s.Invalid }, Info, 100,
		"packets fitted no entry, or not its window: of connections that the tracker has forgotten, or sees one way only",
		"have the kernel say why: `sysctl -w net.netfilter.nf_conntrack_log_invalid=255`",
	},
	{
		"clash_resolve", conntrack.StatClashResolve, func(s *conntrack.Stats) uint64 { return s.ClashResolve }, Info, 100,
		"packets of one new connection raced each other and were let through: no loss, but each could have been one on TCP",
		"send one query at a time: `options single-request-reopen` in resolv.conf",
	},
	{
		"search_restart", conntrack.StatSearchRestart, func(s *conntrack.Stats) uint64 { return s.SearchRestart }, Info, 10_000,
		"look-ups began anew because entries moved between hash chains meanwhile: no loss, but time",
		"shorter chains: raise `net.netfilter.nf_conntrack_buckets`",
	},
}

// clashed is InsertFailed without what hash chains refused, which counts there
// too. What clashes counts in Drop as well.
func clashed(s *conntrack.Stats) uint64 { return s.InsertFailed - min(s.InsertFailed, s.ChainTooLong) }

// tableFull is what the kernel logs, at a limited rate, when it drops a packet
// for want of an entry: after nf, or ip in Linux 2.4 and 2.6.
const tableFull = "_conntrack: table full, dropping packet"

// counters returns what the table has cost: since the earlier reading or, with
// less to say, since the namespace was made.
func (h *Host) counters(u conntrack.Usage) []Finding {
	logged := slices.DeleteFunc(slices.Clone(h.Log), func(line string) bool { return !strings.Contains(line, tableFull) })
	logged = logged[max(len(logged)-3, 0):] // the last ones
	var found []Finding
	for _, c := range counters {
		if f, ok := h.counted(c); ok {
			found = append(found, f)
		}
	}
	for i := range found {
		if f := &found[i]; f.Subject == "conntrack counter drop" && len(logged) > 0 {
			f.Confidence, f.Evidence.Log = Certain, logged
			return found
		}
	}
	if len(logged) > 0 {
		found = append(found, h.full(logged, u))
	}
	return found
}

// counted is the finding of one counter, if it counted.
func (h *Host) counted(c lossCounter) (Finding, bool) {
	f := Finding{
		Detector: "Pressure", Severity: c.severity, Confidence: Likely, Subject: "conntrack counter " + c.name,
		Fix: []string{c.fix},
	}
	now, when := conntrack.Total(h.Stats), ""
	elapsed, ok := h.since()
	if since := ok && len(h.Earlier.Stats) > 0; since {
		now = delta(h.Stats, h.Earlier.Stats)
		f.Since, when = h.Earlier.At, "in the last "+seconds(elapsed)
		f.Count = c.count(&now)
		if float64(f.Count) < c.rate*elapsed.Seconds() {
			return Finding{}, false
		}
	} else {
		f.Count, when = c.count(&now), "since the network namespace was made"
		f.Severity, f.Confidence = Info, Possible
		f.Evidence.Missing = []string{"an earlier reading of the counters: whether it still happens"}
	}
	f.Cause = fmt.Sprintf("%s: %d %s", c.cause, f.Count, when)
	return f, now.Has(c.field) && f.Count > 0 && (c.rate == 0 || !f.Since.IsZero())
}

// delta is what was counted since an earlier reading, by the processors that
// are in both.
func delta(now, before []conntrack.Stats) conntrack.Stats {
	var d []conntrack.Stats
	for _, s := range now {
		i := slices.IndexFunc(before, func(b conntrack.Stats) bool { return b.CPU == s.CPU })
		if i >= 0 {
			d = append(d, s.Sub(before[i]))
		}
	}
	return conntrack.Total(d)
}

// full is the finding of what the kernel logged where no counter tells of it.
func (h *Host) full(logged []string, u conntrack.Usage) Finding {
	f := Finding{
		Detector: "Pressure", Severity: Warning, Confidence: Likely, Subject: "kernel log",
		Cause:    "the kernel dropped packets of new connections because a conntrack table was full: of this or another network namespace",
		Fix:      []string{counters[0].fix},
		Evidence: Evidence{Log: logged, Missing: []string{"when it was, and in which namespace: two readings of the counters"}},
	}
	if u.Max > 0 {
		f.Evidence.Settings = []Setting{{"net.netfilter.nf_conntrack_max", fmt.Sprint(u.Max)}}
	}
	return f
}
