package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
)

// counts are the counters of silent drops, if there is no packet to explain.
func (e *known) counts() (conntrack.Stats, bool) {
	return e.Counters.Value.Conntrack, e.Packet.Result != Present && e.Counters.Result == Present
}

// fullTable reports a table at its limit.
func (e *known) fullTable() bool {
	share, limited := e.Usage.Value.Share()
	return e.Usage.Result == Present && limited && share >= 1
}

// S1: the packet is dropped in nf_conntrack_in, before any rule of the filter
// sees it: there is nothing to log, and no ICMP error. A failed insertion is
// counted as a drop too (__nf_conntrack_confirm).
func isTableFull(e *known) bool {
	c, ok := e.counts()
	dropped := ok && c.Drop > c.InsertFailed
	return e.Packet.Result != Present && (dropped || ok && c.EarlyDrop > 0 || e.fullTable())
}

func explainTableFull(e *known, v *Verdict) {
	c, _ := e.counts()
	v.Confidence = detect.Likely
	dropped := c.Drop - min(c.InsertFailed, c.Drop)
	v.Summary = "the connection table is full"
	if e.Counters.Result == Present {
		v.Summary += fmt.Sprintf(": in %v, %d packets were dropped for want of an entry, before any rule saw them, and %d entries were evicted",
			e.Counters.Value.in(), dropped, c.EarlyDrop)
	} else {
		v.missing("whether packets were dropped", "conntrack -S")
	}
	switch {
	case dropped > 0 && e.pressedNow():
		v.Confidence = detect.Certain
	case e.Usage.Result != Present:
		v.missing("how full the table is", "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max")
	case !e.pressedNow():
		v.fact("the table is not full now: it was for a moment, or the kernel was short of memory")
	}
	v.missing("what fills it: sources and states", "conntrack -L -o extended | awk '{print $4}' | sort | uniq -c")
	fixFullTable(e, v)
}

// pressedNow reports that the kernel was seen to make room, or had to.
func (e *known) pressedNow() bool {
	share, limited := e.Usage.Value.Share()
	return e.Usage.Result == Present && limited && share >= 0.95
}

// fixFullTable is the remedy of a full table.
func fixFullTable(e *known, v *Verdict) {
	v.fix("ban the sources that fill it; raising the limit only delays it where somebody fills the table",
		"shorten what it is full of: `net.netfilter.nf_conntrack_tcp_timeout_time_wait`, or that of the state")
	u, size := e.Usage.Value, "net.netfilter.nf_conntrack_max=524288"
	if e.Usage.Result == Present && u.Has(conntrack.UsageMax) && u.Max > 0 {
		size = fmt.Sprintf("net.netfilter.nf_conntrack_max=%d", 2*min(u.Max, 1<<30))
	}
	advice := "raise the limit: `sysctl " + size + "`, in the initial network namespace: it is one for all, and others cannot write it"
	if e.before(5, 15) {
		advice += "; before Linux 5.15 also `nf_conntrack_buckets`, to a quarter of it"
	} else {
		advice += "; and `nf_conntrack_buckets` to the same number, as Linux 5.15 and later have it"
	}
	v.fix(advice, "do not track what needs it not: `notrack`, with `ct state untracked accept`, for a busy service")
}

// S3: the limit of a chain is random, 50 to 79 links (Linux 5.15). Such a
// packet is counted as one that could not be inserted, too.
func isLongChains(e *known) bool {
	c, ok := e.counts()
	return ok && c.ChainTooLong > 0
}

func explainLongChains(e *known, v *Verdict) {
	c, _ := e.counts()
	u := e.Usage.Value
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("in %v, %d new connections were dropped because their hash chain was too long: the table has too few buckets, "+
		"or somebody aims at one", e.Counters.Value.in(), c.ChainTooLong)
	buckets := uint64(262144)
	if load, ok := u.Load(); e.Usage.Result == Present && ok {
		v.fact(fmt.Sprintf("a look-up passes %.1f links on average", load))
		buckets = max(u.Max, u.Count)
	} else {
		v.missing("how long the chains are on average", "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_buckets")
	}
	v.fix(fmt.Sprintf("more buckets, in the initial network namespace: `sysctl net.netfilter.nf_conntrack_buckets=%d`", buckets),
		"if they are many already: ban who opens so many connections")
}

// S2: two connections would be answered at the same tuple. Of UDP the kernel
// lets the second packet join the first's entry; of TCP it never does.
func isInsertFailed(e *known) bool {
	c, ok := e.counts()
	return ok && c.InsertFailed > c.ChainTooLong
}

func explainInsertFailed(e *known, v *Verdict) {
	c, _ := e.counts()
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("in %v, %d packets that begin connections were dropped (insert_failed), because the tuple of their answers is taken: two of one "+
		"source port raced each other, or source NAT has no free port", e.Counters.Value.in(), c.InsertFailed-c.ChainTooLong)
	if c.ClashResolve > 0 {
		v.fact(fmt.Sprintf("%d more clashed and were let through", c.ClashResolve))
	}
	v.missing("which connections clash", "conntrack -E -e NEW")
	v.fix("with source NAT: choose ports at random, `masquerade fully-random` (iptables: `--random-fully`)",
		"more addresses to translate to, if one destination takes more than 60000 connections",
		"for DNS: `options single-request-reopen` in resolv.conf, so that a resolver's two questions do not race; or a resolver on each host")
}

// C27. Packets that rules drop are refused without an error too, so that the
// kernel's own count is what proves it; Linux before 6.2 has none.
func isRateLimited(e *known) bool {
	c := e.Counters.Value
	fewer := c.Errors > 0 && c.Refused >= 10 && c.Refused/2 > c.Errors && !e.since(6, 2)
	return e.Packet.Result != Present && e.Counters.Result == Present && (c.RateLimited > 0 || fewer)
}

func explainRateLimited(e *known, v *Verdict) {
	c := e.Counters.Value
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("in %v, %d packets were refused and %d ICMP errors sent; the kernel held back %d (%s): whoever "+
		"counts errors sees a part of what is refused, and most senders wait in vain", c.in(), c.Refused, c.Errors, c.RateLimited, c.limits())
	if c.RateLimited == 0 {
		v.Confidence = detect.Likely
		v.missing("how many errors the kernel held back; a rule that drops sends none either", "nstat -az IcmpOutRateLimitHost IcmpOutRateLimitGlobal")
	}
	v.fix("count the packets that are logged before they are refused, not the errors",
		"for TCP: `reject with tcp reset`, which no limit holds back",
		"to have more sent: lower "+c.limits()+", milliseconds for each peer; of IPv4, `net.ipv4.icmp_msgs_per_sec` limits all together")
}

// limits names the settings that held errors back, or those that can.
func (c *Counters) limits() string {
	const v4, v6 = "`net.ipv4.icmp_ratelimit`", "`net.ipv6.icmp.ratelimit`"
	switch {
	case c.RateLimited6 == c.RateLimited && c.RateLimited6 > 0:
		return v6
	case c.RateLimited6 == 0 && c.RateLimited > 0:
		return v4
	}
	return v4 + " and " + v6
}

// in is the time in which it was counted, as people say it.
func (c *Counters) in() time.Duration { return c.Window.Round(100 * time.Millisecond) }
