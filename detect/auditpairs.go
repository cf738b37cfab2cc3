package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// recycle: Linux 4.12 removed tcp_tw_recycle, as it dropped the clients behind
// one address. On a later kernel the value is one of a file.
func (t *auditor) recycle() (Finding, bool) {
	if later, known := t.atLeast(4, 12); !t.Sysctls.TimeWaitRecycle || known && later {
		return Finding{}, false
	}
	return advise(Critical, Likely, recycle,
		"tcp_tw_recycle drops the SYNs of all but one of the clients that share an address behind NAT, for a minute after each connection",
		[]string{set(recycle, 0), "and take it out of /etc/sysctl.conf: Linux 4.12 has no more of it"},
		Setting{recycle, "1"}), true
}

// established compares the timeout of idle connections with what renews them.
func (t *auditor) established() (Finding, bool) {
	timeout, ok := timeoutSetting(t.Settings, conntrack.TCPEstablished)
	if !ok {
		return Finding{}, false
	}
	lasts, alive := t.Settings.Timeouts.TCPEstablished, t.Sysctls.KeepaliveTime
	known := t.Sysctls.Has(keepaliveTime)
	switch {
	case t.idle > lasts:
		return t.forgotten(timeout), true
	case known && lasts < alive:
		return t.unrenewed(timeout, Warning), true
	case known && lasts < alive+t.Sysctls.KeepaliveInterval:
		return t.unrenewed(timeout, Info), true
	case lasts > 24*time.Hour:
		return t.lasting(timeout), true
	}
	return Finding{}, false
}

// forgotten is a timeout that a connection has been idle for.
func (t *auditor) forgotten(timeout Setting) Finding {
	f := t.tracked(advise(Warning, Likely, timeout.Name, fmt.Sprintf(
		"%v, but %s has been idle for %s: the tracker has forgotten it, and a firewall refuses what the peer sends next",
		timeout, connection(SocketTuple(&t.idlest)), seconds(t.idle)),
		[]string{"raise it above the longest idle time: " + set(timeout.Name, 432000)}, timeout))
	f.Evidence.Sockets = []sockdiag.Socket{t.idlest}
	return f
}

// unrenewed is a timeout that ends before keep-alives, or with them.
func (t *auditor) unrenewed(timeout Setting, severity Severity) Finding {
	lasts, alive := t.Settings.Timeouts.TCPEstablished, t.Sysctls.KeepaliveTime
	cause := fmt.Sprintf("the tracker forgets an idle connection after %s, and its first keep-alive comes after %s", seconds(lasts), seconds(alive))
	fix := []string{"raise the timeout: " + set(timeout.Name, max(7200, 2*secs(alive)))}
	if sooner := min(1200, secs(lasts)/2); sooner > 0 {
		fix = append(fix, "or probe sooner, where applications set SO_KEEPALIVE: "+set(keepaliveTime, sooner))
	}
	if severity == Info {
		cause += ": a probe that is lost is one too few"
	} else {
		cause += ": a firewall then refuses what the peer sends, and the process here never learns"
	}
	return t.tracked(advise(severity, Likely, timeout.Name, cause, fix, timeout, Setting{keepaliveTime, fmt.Sprint(secs(alive))}))
}

// lasting is a timeout that holds dead connections for days.
func (t *auditor) lasting(timeout Setting) Finding {
	return advise(Info, Likely, timeout.Name, fmt.Sprintf(
		"connections whose peers vanished stay in the table for up to %.1f days; the incidents' choice was 7200, longer than "+
			"the longest query and with keep-alives before it", t.Settings.Timeouts.TCPEstablished.Hours()/24),
		[]string{"where applications set SO_KEEPALIVE: " + set(keepaliveTime, 1200) + ", then " + set(timeout.Name, 7200)}, timeout)
}

// tracked doubts a finding on a host that tracks nothing.
func (t *auditor) tracked(f Finding) Finding {
	if t.Settings.Has("nf_conntrack_count") && t.Settings.Count == 0 {
		f.Confidence = Possible
		f.Evidence.Missing = append(f.Evidence.Missing, "whether anything is tracked here: the table is empty")
	}
	return f
}

// closeWait compares the timeout of half-closed connections with the longest
// request: 15 minutes, and only Info, if nobody has told.
func (t *auditor) closeWait() (Finding, bool) {
	timeout, ok := timeoutSetting(t.Settings, conntrack.TCPCloseWait)
	longest, severity := t.LongestRequest, Warning
	if longest == 0 {
		longest, severity = 15*time.Minute, Info
	}
	if !ok || t.Settings.Timeouts.TCPCloseWait >= longest {
		return Finding{}, false
	}
	f := t.tracked(advise(severity, Likely, timeout.Name, fmt.Sprintf(
		"the tracker forgets a connection %s after the client has given up, and a request may take %s: the late answer "+
			"is picked up as a ghost, which keeps the client from using its port again", timeout.Value+"s", seconds(longest)),
		[]string{set(timeout.Name, secs(longest))}, timeout))
	if t.LongestRequest == 0 {
		f.Confidence = Possible
		f.Evidence.Missing = append(f.Evidence.Missing, "how long requests take here (Audit.LongestRequest)")
	}
	return f, true
}

// buckets compares the chains of a full table with those that the kernel
// chooses itself: an entry is in two, and kernels before 5.15 have up to four
// times as many entries as buckets.
func (t *auditor) buckets() (Finding, bool) {
	most, chains := t.Settings.Max, t.Settings.Buckets
	if chains == 0 || most <= chains {
		return Finding{}, false
	}
	severity := Info
	if most > 4*chains {
		severity = Warning
	}
	resize := fmt.Sprintf("`echo %d > /sys/module/nf_conntrack/parameters/hashsize`", most)
	return advise(severity, Likely, buckets, fmt.Sprintf(
		"a full table has %d entries in %d buckets: every look-up then walks a chain of %d on average",
		most, chains, (2*most+chains/2)/chains),
		[]string{resize, fmt.Sprintf("at the next boot: `echo options nf_conntrack hashsize=%d > /etc/modprobe.d/nf_conntrack.conf`", most)},
		Setting{maxEntries, fmt.Sprint(most)}, Setting{buckets, fmt.Sprint(chains)}), true
}

// reuse: TIME_WAIT ports are taken again only with timestamps.
func (t *auditor) reuse() (Finding, bool) {
	if !t.Sysctls.Has(timestamps) || t.Sysctls.Timestamps != 0 || t.Sysctls.TimeWaitReuse != 1 {
		return Finding{}, false
	}
	return advise(Warning, Certain, timeWaitReuse, "tcp_tw_reuse does nothing without timestamps: ports in TIME_WAIT are not taken again",
		[]string{set(timestamps, 1)}, Setting{timeWaitReuse, "1"}, Setting{timestamps, "0"}), true
}

// timeWaits counts what tcp_max_tw_buckets has to hold.
func (t *auditor) timeWaits() (Finding, bool) {
	most := t.Sysctls.MaxTimeWait
	if !t.Sysctls.Has(maxTimeWait) || t.timeWait == 0 || t.timeWait < most-most/10 {
		return Finding{}, false
	}
	f := advise(Warning, Likely, maxTimeWait, fmt.Sprintf(
		"%d sockets are in TIME_WAIT, and %d may be: more are ended early, and old packets can reach the next connection of a port", t.timeWait, most),
		[]string{set(maxTimeWait, max(180000, 2*most))}, Setting{maxTimeWait, fmt.Sprint(most)})
	f.Count, f.Limit = t.timeWait, most
	return f, true
}

// memory counts the connections that tcp_mem holds at 16 KiB each, which are
// four pages of 4 KiB.
func (t *auditor) memory() (Finding, bool) {
	m := t.Sysctls.TCPMemory
	if !t.Sysctls.Has(tcpMemory) || t.connections == 0 || t.connections < m[2]/4 {
		return Finding{}, false
	}
	f := advise(Warning, Possible, tcpMemory, fmt.Sprintf(
		"%d connections of 16 KiB each take more memory than the %d pages that TCP gets at most: it would drop packets, and end connections",
		t.connections, m[2]),
		[]string{fmt.Sprintf("`sysctl -w %s=\"%d %d %d\"`, as far as there is memory", tcpMemory, 2*m[0], 2*m[1], 2*m[2])},
		Setting{tcpMemory, fmt.Sprintf("%d %d %d", m[0], m[1], m[2])})
	f.Count, f.Limit = t.connections, m[2]/4
	switch used := t.Counters.TCPMemory; {
	case !t.Counters.Has("TCP.mem"):
		f.Evidence.Missing = []string{"how much they take: mem of /proc/net/sockstat, in pages"}
	case used < m[1]: // no pressure
		f.Severity = Info
		fallthrough
	default:
		f.Confidence = Likely
		f.Cause += fmt.Sprintf("; now they take %d", used)
	}
	return f, true
}
