package detect

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Advice is what Audit says of one setting by itself.
type Advice struct {
	Setting
	// Severity is 0 where the value is well.
	Severity Severity
	// Want is the value that the incidents arrived at; empty where only the
	// host can tell.
	Want string
	// Why says what the setting does.
	Why string
}

func (a Advice) finding() Finding {
	cause := fmt.Sprintf("it is %s, and %s was better in the incidents: %s", a.Value, a.Want, a.Why)
	return advise(a.Severity, Likely, a.Name, cause, []string{set(a.Name, a.Want)}, a.Setting)
}

// Review says of each setting that the incidents name, in their order, its
// value, what it should be and why. Settings that are not known are left out.
func (Audit) Review(h *Host) []Advice {
	var all []Advice
	for _, r := range rules {
		if !h.has(r.name) {
			continue
		}
		v := r.value(h)
		a := Advice{Setting: Setting{r.name, fmt.Sprint(v)}, Want: r.want, Why: r.why}
		if r.judge != nil {
			a.Severity = r.judge(h, v)
		}
		all = append(all, a)
	}
	return all
}

// remedy is a setting that helps, and how.
type remedy struct{ why, setting string }

// remedy adds to a finding that a setting should have the value of the
// incidents, unless it is known to have one as good, and notes what it has.
func (h *Host) remedy(f *Finding, why, name string) {
	r := &rules[slices.IndexFunc(rules, func(r rule) bool { return r.name == name })]
	if h.has(name) {
		v := r.value(h)
		f.Evidence.Settings = append(f.Evidence.Settings, Setting{name, fmt.Sprint(v)})
		if r.judge(h, v) == 0 {
			return
		}
	}
	f.Fix = append(f.Fix, why+": "+set(name, r.want))
}

// has reports whether a setting of the tracker or of sockets is known.
func (h *Host) has(name string) bool {
	if short, ok := strings.CutPrefix(name, "net.netfilter."); ok {
		return h.Settings.Has(short)
	}
	return h.Sysctls.Has(name)
}

// rule judges one setting. What combinations decide is not judged.
type rule struct {
	name  string
	value func(*Host) uint64
	judge func(*Host, uint64) Severity // 0 is well
	want  string
	why   string
}

func above(most uint64) func(*Host, uint64) Severity {
	return func(_ *Host, v uint64) Severity { return infoIf(v > most) }
}

func below(least uint64) func(*Host, uint64) Severity {
	return func(_ *Host, v uint64) Severity { return infoIf(v < least) }
}

func not(well uint64) func(*Host, uint64) Severity {
	return func(_ *Host, v uint64) Severity { return infoIf(v != well) }
}

func infoIf(bad bool) Severity {
	if bad {
		return Info
	}
	return 0
}

func secs(d time.Duration) uint64 { return uint64(d / time.Second) }

func flag(on bool) uint64 {
	if on {
		return 1
	}
	return 0
}

// Names of settings that more than one place knows.
const (
	maxEntries     = "net.netfilter.nf_conntrack_max"
	buckets        = "net.netfilter.nf_conntrack_buckets"
	keepaliveTime  = "net.ipv4.tcp_keepalive_time"
	keepaliveIntvl = "net.ipv4.tcp_keepalive_intvl"
	keepaliveCount = "net.ipv4.tcp_keepalive_probes"
	maxTimeWait    = "net.ipv4.tcp_max_tw_buckets"
	tcpMemory      = "net.ipv4.tcp_mem"
	synBacklog     = "net.ipv4.tcp_max_syn_backlog"
	synRetries     = "net.ipv4.tcp_syn_retries"
	synAckRetries  = "net.ipv4.tcp_synack_retries"
	orphanRetries  = "net.ipv4.tcp_orphan_retries"
	finTimeout     = "net.ipv4.tcp_fin_timeout"
	maxOrphans     = "net.ipv4.tcp_max_orphans"
	timestamps     = "net.ipv4.tcp_timestamps"
	timeWaitReuse  = "net.ipv4.tcp_tw_reuse"
	recycle        = "net.ipv4.tcp_tw_recycle"
	somaxconn      = "net.core.somaxconn"
	syncookies     = "net.ipv4.tcp_syncookies"
	fileMax        = "fs.file-max"
	nrOpen         = "fs.nr_open"
)

// rules are in the order of the incidents' list.
var rules = []rule{
	{name: maxEntries, value: func(h *Host) uint64 { return h.Settings.Max },
		why: "the table drops new connections when it is full; what fills it matters more than its size"},
	{name: buckets, value: func(h *Host) uint64 { return h.Settings.Buckets },
		why: "every look-up walks a chain of a bucket: as many buckets as entries are Linux 5.15's own choice"},
	{name: "net.netfilter.nf_conntrack_generic_timeout", value: func(h *Host) uint64 { return secs(h.Settings.Timeouts.Generic) },
		judge: above(600), want: "600",
		why: "flows of protocols without a tracker stay that long after their last packet"},
	{name: "net.netfilter.nf_conntrack_tcp_timeout_established", value: func(h *Host) uint64 { return secs(h.Settings.Timeouts.TCPEstablished) },
		want: "7200", why: "idle connections are forgotten after it, and those whose peers vanished stay that long"},
	{name: "net.netfilter.nf_conntrack_tcp_timeout_close_wait", value: func(h *Host) uint64 { return secs(h.Settings.Timeouts.TCPCloseWait) },
		want: "900", why: "a request that takes longer is answered without an entry when the client has given up"},
	{name: "net.netfilter.nf_conntrack_tcp_loose", value: func(h *Host) uint64 { return flag(h.Settings.TCPLoose) },
		judge: below(1), want: "1",
		why: "0 refuses every connection that lives while the tracker starts or its table is flushed; 1 lets ghosts be picked up"},
	{name: keepaliveTime, value: func(h *Host) uint64 { return secs(h.Sysctls.KeepaliveTime) }, judge: above(1200), want: "1200",
		why: "a connection whose peer vanished is held that long before its first probe, if the application asks for probes"},
	{name: keepaliveIntvl, value: func(h *Host) uint64 { return secs(h.Sysctls.KeepaliveInterval) }, judge: above(75), want: "75",
		why: "it passes between the probes of a connection whose peer vanished"},
	{name: keepaliveCount, value: func(h *Host) uint64 { return h.Sysctls.KeepaliveProbes }, judge: above(3), want: "3",
		why: "as many probes in a row go unanswered before a connection ends"},
	{name: orphanRetries, value: func(h *Host) uint64 { return h.Sysctls.OrphanRetries },
		judge: not(1), want: "1",
		why: "closed connections to peers that vanished hold up to 64 KiB each while they are sent again; 0 means 8 times"},
	{name: finTimeout, value: func(h *Host) uint64 { return secs(h.Sysctls.FinTimeout) }, judge: above(30), want: "30",
		why: "a closed connection whose peer does not close stays in FIN_WAIT2 that long"},
	{name: syncookies, value: func(h *Host) uint64 { return h.Sysctls.SynCookies }, judge: cookies, want: "1",
		why: "with 0 a SYN flood keeps everybody out of a listener whose queue it has filled; 2 is for tests"},
	{name: synBacklog, value: func(h *Host) uint64 { return h.Sysctls.MaxSynBacklog }, judge: synBacklogShort, want: "65536",
		why: "a listener remembers no more handshakes than that"},
	{name: "net.core.netdev_max_backlog", value: func(h *Host) uint64 { return h.Sysctls.NetdevMaxBacklog }, judge: below(32768), want: "32768",
		why: "a processor drops packets that do not fit its queue, which the second column of /proc/net/softnet_stat counts: while that is 0, leave it"},
	{name: somaxconn, value: func(h *Host) uint64 { return h.Sysctls.Somaxconn }, want: "32768",
		why: "no listener gets a longer accept queue, whatever backlog it asks for"},
	{name: timestamps, value: func(h *Host) uint64 { return h.Sysctls.Timestamps }, judge: below(1), want: "1",
		why: "without them there is no tcp_tw_reuse, and old packets of a port used again are not told from new ones"},
	{name: timeWaitReuse, value: func(h *Host) uint64 { return h.Sysctls.TimeWaitReuse },
		why: "1 lets outgoing connections take ports in TIME_WAIT, 2 on loopback alone"},
	{name: recycle, value: func(h *Host) uint64 { return flag(h.Sysctls.TimeWaitRecycle) }, want: "0",
		why: "1 drops the SYNs of clients that share an address behind NAT; Linux 4.12 has no more of it"},
	{name: synAckRetries, value: func(h *Host) uint64 { return h.Sysctls.SynAckRetries }, judge: above(3), want: "3",
		why: "a handshake that the client does not finish is held for 63 s with 5 and for 15 s with 3"},
	{name: synRetries, value: func(h *Host) uint64 { return h.Sysctls.SynRetries }, judge: above(3), want: "3",
		why: "an application waits for up to 19 s with 3, and for two minutes with 6, until connecting to a dead peer fails"},
	{name: maxTimeWait, value: func(h *Host) uint64 { return h.Sysctls.MaxTimeWait }, judge: below(180000), want: "180000",
		why: "more sockets in TIME_WAIT than that are ended early"},
	{name: tcpMemory, value: func(h *Host) uint64 { return h.Sysctls.TCPMemory[2] },
		why: "the most pages that TCP gets: as many connections at 16 KiB each as a quarter of them, where pages have 4 KiB"},
	{name: "net.ipv4.tcp_retries1", value: func(h *Host) uint64 { return h.Sysctls.Retries1 },
		judge: not(3), want: "3",
		why: "after as many retransmissions another route is looked for"},
	{name: "net.ipv4.tcp_retries2", value: func(h *Host) uint64 { return h.Sysctls.Retries2 }, judge: above(8), want: "5",
		why: "a connection with unanswered data lasts 15 minutes with 15, 100 s with 8, the least that RFC 1122 allows, and 13 s with 5; " +
			"below 10 a closed one whose peer answers and does not read never ends, else after 6 minutes"},
	{name: "net.ipv4.tcp_rfc1337", value: func(h *Host) uint64 { return flag(h.Sysctls.RFC1337) }, judge: below(1), want: "1",
		why: "with 0 a stray RST ends TIME_WAIT, and old packets reach the next connection of the port"},
	{name: "net.ipv4.conf.all.rp_filter", value: func(h *Host) uint64 { return h.Sysctls.ReversePathAll }, judge: noReversePath, want: "1",
		why: "packets with forged sources are let in; with routes that differ by direction, 2 is right"},
	{name: fileMax, value: func(h *Host) uint64 { return h.Sysctls.FileMax },
		why: "all processes together open no more files, a connection being one"},
	{name: nrOpen, value: func(h *Host) uint64 { return h.Sysctls.FilesPerProcess },
		why: "RLIMIT_NOFILE of a process, LimitNOFILE of systemd, cannot be more"},
}

// cookies are missed in the next flood, and harmless where there is none.
func cookies(_ *Host, v uint64) Severity {
	if v == 0 {
		return Warning
	}
	return infoIf(v > 1)
}

// synBacklogShort knows that from Linux 4.4 on the backlog of the listener
// decides, and tcp_max_syn_backlog only without cookies.
func synBacklogShort(h *Host, v uint64) Severity {
	later, known := h.atLeast(4, 4)
	cookies := h.Sysctls.Has(syncookies) && h.Sysctls.SynCookies > 0
	return infoIf(v < 65536 && (known && !later || !cookies))
}

// noReversePath looks at default too, which new interfaces get: the larger of
// all and an interface's own holds.
func noReversePath(h *Host, v uint64) Severity {
	return infoIf(v == 0 && h.Sysctls.Has("net.ipv4.conf.default.rp_filter") && h.Sysctls.ReversePathDefault == 0)
}
