package detect

import (
	"fmt"
	"regexp"
	"slices"

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
	fix   func(conntrack.Usage) []string
}

// counters are those of a table under pressure, the first of which lose packets.
var counters = []lossCounter{
	{
		"drop", conntrack.StatDrop, func(s *conntrack.Stats) uint64 { return s.Drop - min(s.Drop, clashed(s)) }, Critical, 0,
		"packets of new connections were dropped for want of an entry, before any rule saw them: the table was full, or memory short",
		makeRoom,
	},
	{
		"early_drop", conntrack.StatEarlyDrop, func(s *conntrack.Stats) uint64 { return s.EarlyDrop }, Critical, 0,
		"entries that were not assured were evicted because the table was full: connections that had just begun were lost",
		makeRoom,
	},
	{
		"chaintoolong", conntrack.StatChainTooLong, func(s *conntrack.Stats) uint64 { return s.ChainTooLong }, Critical, 0,
		"new connections were dropped because their hash chain was too long: there are too few chains, or somebody aims at one",
		moreChains,
	},
	{
		"insert_failed", conntrack.StatInsertFailed, clashed, Warning, 1,
		"new connections were dropped because their reply tuple was taken: two got the same port by source NAT, or one client sent twice from one port (DNS)",
		func(conntrack.Usage) []string { return []string{moreAddresses} },
	},
	{
		"invalid", conntrack.StatInvalid, func(s *conntrack.Stats) uint64 { return s.Invalid }, Info, 100,
		"packets fitted no entry, or not its window: of connections that the tracker has forgotten, or sees one way only",
		func(conntrack.Usage) []string {
			return []string{"see the kernel's reasons in its log: `sysctl -w net.netfilter.nf_conntrack_log_invalid=255`"}
		},
	},
	{
		"clash_resolve", conntrack.StatClashResolve, func(s *conntrack.Stats) uint64 { return s.ClashResolve }, Info, 100,
		"packets of one new connection raced each other and were let through: no loss, but each could have been one on TCP",
		func(conntrack.Usage) []string {
			return []string{"have clients send one query at a time: the option single-request-reopen in their resolv.conf"}
		},
	},
	{
		"search_restart", conntrack.StatSearchRestart, func(s *conntrack.Stats) uint64 { return s.SearchRestart }, Info, 10_000,
		"look-ups began anew because entries moved between hash chains meanwhile: no loss, but time",
		moreChains,
	},
}

// makeRoom is for a table that was full.
func makeRoom(u conntrack.Usage) []string {
	fix := []string{"see what fills the table: `conntrack -L -o extended`"}
	if u.Max > 0 {
		return append(fix, raise(u))
	}
	return append(fix, "raise net.netfilter.nf_conntrack_max, in the initial network namespace")
}

// moreChains is for hash chains that are too long.
func moreChains(u conntrack.Usage) []string {
	if u.Max == 0 {
		return []string{"as many chains as entries: raise net.netfilter.nf_conntrack_buckets, in the initial network namespace"}
	}
	return []string{fmt.Sprintf("more chains, in the initial network namespace: `sysctl -w net.netfilter.nf_conntrack_buckets=%d`",
		max(u.Max, u.Count, 2*u.Buckets))}
}

// moreAddresses is for source NAT that finds no port.
const moreAddresses = "translate to more addresses, and to random ports: `snat to FIRST-LAST fully-random` in the rule of nft, " +
	"`-j SNAT --to-source FIRST-LAST --random-fully` in that of iptables"

// clashed is InsertFailed without what hash chains refused, which counts there
// too. What clashes counts in Drop as well.
func clashed(s *conntrack.Stats) uint64 { return s.InsertFailed - min(s.InsertFailed, s.ChainTooLong) }

// tableFull is what the kernel logs, at a limited rate, when it drops a packet
// for want of an entry: after nf, or ip in Linux 2.4 and 2.6. Linux 6.18 names
// the network namespace by its inode number, unless it is the initial one.
var tableFull = regexp.MustCompile(`_conntrack: table full( in netns [0-9]+)?, dropping packet`)

// counters returns what the table has cost: since the earlier reading or, with
// less to say, since the namespace was made.
func (h *Host) counters(u conntrack.Usage) []Finding {
	logged := h.logged(tableFull)
	var found []Finding
	for _, c := range counters {
		if f, ok := h.counted(c, u); ok {
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
func (h *Host) counted(c lossCounter, u conntrack.Usage) (Finding, bool) {
	f := Finding{
		Detector: "Pressure", Severity: c.severity, Confidence: Likely, Subject: "conntrack counter " + c.name,
		Fix: c.fix(u),
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
		Cause:    "the kernel dropped packets of new connections because a conntrack table was full",
		Fix:      makeRoom(u),
		Evidence: Evidence{Log: logged},
	}
	switch total := conntrack.Total(h.Stats); {
	case total.Has(conntrack.StatDrop) && total.Drop == 0:
		f.Severity = Info
		f.Cause += ": that of another network namespace, for the counter drop of this one is 0"
	case !total.Has(conntrack.StatDrop):
		f.Cause += ": of this or another network namespace"
		f.Evidence.Missing = []string{"in which namespace: the counter drop of this one"}
	}
	if u.Max > 0 {
		f.Evidence.Settings = []Setting{{"net.netfilter.nf_conntrack_max", fmt.Sprint(u.Max)}}
	}
	return f
}
