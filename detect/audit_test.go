package detect

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// kernelDefaults are those of Linux 6.18 with 4 GiB, as sysctl -a writes them.
const kernelDefaults = `
fs.file-max = 9223372036854775807
fs.nr_open = 1048576
net.core.netdev_max_backlog = 1000
net.core.somaxconn = 4096
net.ipv4.conf.all.rp_filter = 0
net.ipv4.conf.default.rp_filter = 0
net.ipv4.tcp_fin_timeout = 60
net.ipv4.tcp_keepalive_intvl = 75
net.ipv4.tcp_keepalive_probes = 9
net.ipv4.tcp_keepalive_time = 7200
net.ipv4.tcp_max_orphans = 16384
net.ipv4.tcp_max_syn_backlog = 256
net.ipv4.tcp_max_tw_buckets = 16384
net.ipv4.tcp_mem = 43536	58051	87072
net.ipv4.tcp_orphan_retries = 0
net.ipv4.tcp_retries1 = 3
net.ipv4.tcp_retries2 = 15
net.ipv4.tcp_rfc1337 = 0
net.ipv4.tcp_syn_retries = 6
net.ipv4.tcp_synack_retries = 5
net.ipv4.tcp_syncookies = 1
net.ipv4.tcp_timestamps = 1
net.ipv4.tcp_tw_reuse = 2
net.netfilter.nf_conntrack_buckets = 65536
net.netfilter.nf_conntrack_count = 12
net.netfilter.nf_conntrack_generic_timeout = 600
net.netfilter.nf_conntrack_max = 65536
net.netfilter.nf_conntrack_tcp_loose = 1
net.netfilter.nf_conntrack_tcp_timeout_close_wait = 60
net.netfilter.nf_conntrack_tcp_timeout_established = 432000
`

// advised are the values that the incidents arrived at.
const advised = `
net.core.netdev_max_backlog = 32768
net.core.somaxconn = 32768
net.ipv4.conf.all.rp_filter = 1
net.ipv4.tcp_fin_timeout = 30
net.ipv4.tcp_keepalive_probes = 3
net.ipv4.tcp_keepalive_time = 1200
net.ipv4.tcp_max_syn_backlog = 65536
net.ipv4.tcp_max_tw_buckets = 180000
net.ipv4.tcp_orphan_retries = 1
net.ipv4.tcp_retries2 = 5
net.ipv4.tcp_rfc1337 = 1
net.ipv4.tcp_syn_retries = 3
net.ipv4.tcp_synack_retries = 3
net.netfilter.nf_conntrack_tcp_timeout_close_wait = 900
net.netfilter.nf_conntrack_tcp_timeout_established = 7200
`

// sysctlHost has settings; of two values of one name the last holds.
func sysctlHost(t testing.TB, text ...string) Host {
	t.Helper()
	proc, err := sockdiag.SysctlFS(strings.NewReader(strings.Join(text, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	h := Host{Now: now, Kernel: "6.18.44", Old: OldSettings(proc)}
	if h.Sysctls, err = sockdiag.ReadSettings(proc); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(text, ""), ".nf_conntrack_") {
		if h.Settings, err = conntrack.ReadSettings(proc); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// auditOf returns the findings by "severity subject".
func auditOf(t *testing.T, a Audit, h Host) map[string]Finding {
	t.Helper()
	return auditOfMany(t, a, h, sockdiag.Socket{}, 0)
}

// auditOfMany is of a host with as many of a socket, which are in memory once.
func auditOfMany(t *testing.T, a Audit, h Host, s sockdiag.Socket, times int) map[string]Finding {
	t.Helper()
	look := func() []Finding {
		all, err := Scan(h, func(yield func(sockdiag.Socket, error) bool) {
			for range times {
				if !yield(s, nil) {
					return
				}
			}
		}, nil, a)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	found := make(map[string]Finding)
	all := look()
	if again := look(); !reflect.DeepEqual(all, again) {
		t.Errorf("the same host gave %v, then %v", all, again)
	}
	for _, f := range all {
		key := fmt.Sprintf("%v %s", f.Severity, f.Subject)
		if _, twice := found[key]; twice {
			t.Errorf("%s is told twice", key)
		}
		found[key] = f
		if f.Detector != "Audit" || f.Cause == "" || len(f.Fix) == 0 || f.Confidence == Unknown {
			t.Errorf("%+v", f)
		}
	}
	return found
}

// A host of a current kernel is advised, and not warned.
func TestAuditDefaults(t *testing.T) {
	for key := range auditOf(t, Audit{}, sysctlHost(t, kernelDefaults)) {
		if !strings.HasPrefix(key, "info ") {
			t.Error(key)
		}
	}
	if found := auditOf(t, Audit{LongestRequest: 15 * time.Minute}, sysctlHost(t, kernelDefaults, advised)); len(found) != 0 {
		t.Errorf("with the values of the incidents: %v", slices.Sorted(maps.Keys(found)))
	}
	if found := Find(Host{}, Audit{}); found != nil {
		t.Errorf("nothing is known: %v", found)
	}
}

// Each change of a well set host gives one finding; the near miss none.
func TestAuditSettings(t *testing.T) {
	const tracker = "net.netfilter.nf_conntrack_"
	for _, tt := range []struct{ change, want, words string }{
		{tracker + "tcp_timeout_established = 300", "warning " + tracker + "tcp_timeout_established", "keep-alive comes after 1200s"},
		{tracker + "tcp_timeout_established = 1199", "warning " + tracker + "tcp_timeout_established", "1199s"},
		{tracker + "tcp_timeout_established = 1200", "info " + tracker + "tcp_timeout_established", "a probe that is lost"},
		{tracker + "tcp_timeout_established = 1275", "", ""},
		{tracker + "tcp_timeout_established = 86400", "", ""},
		{tracker + "tcp_timeout_established = 432000", "info " + tracker + "tcp_timeout_established", "5.0 days"},
		{tracker + "tcp_timeout_close_wait = 60", "warning " + tracker + "tcp_timeout_close_wait", "ghost"},
		{tracker + "tcp_timeout_close_wait = 899", "warning " + tracker + "tcp_timeout_close_wait", "900s"},
		{tracker + "generic_timeout = 601", "info " + tracker + "generic_timeout", ""},
		{tracker + "tcp_loose = 0", "info " + tracker + "tcp_loose", "flushed"},
		{tracker + "max = 262144", "info " + tracker + "buckets", "chain of 8"},
		{tracker + "max = 262145", "warning " + tracker + "buckets", "262145 entries in 65536 buckets"},
		{tracker + "max = 65536", "", ""},
		{"net.ipv4.tcp_keepalive_intvl = 76", "info net.ipv4.tcp_keepalive_intvl", ""},
		{"net.ipv4.tcp_orphan_retries = 2", "info net.ipv4.tcp_orphan_retries", ""},
		{"net.ipv4.tcp_fin_timeout = 31", "info net.ipv4.tcp_fin_timeout", ""},
		{"net.ipv4.tcp_fin_timeout = 10", "", ""},
		{"net.ipv4.tcp_syncookies = 0", "warning net.ipv4.tcp_syncookies", "flood"},
		{"net.ipv4.tcp_syncookies = 2", "info net.ipv4.tcp_syncookies", "tests"},
		{"net.ipv4.tcp_max_syn_backlog = 128", "", ""}, // cookies, Linux 4.4
		{"net.core.netdev_max_backlog = 1000", "info net.core.netdev_max_backlog", "softnet_stat"},
		{"net.core.somaxconn = 128", "info net.core.somaxconn", "restart"},
		{"net.core.somaxconn = 4096", "", ""},
		{"net.ipv4.tcp_timestamps = 0", "info net.ipv4.tcp_timestamps", ""},
		{"net.ipv4.tcp_tw_reuse = 1", "", ""},
		{"net.ipv4.tcp_tw_recycle = 1", "info net.ipv4.tcp_tw_recycle", "no effect"},
		{"net.ipv4.tcp_synack_retries = 4", "info net.ipv4.tcp_synack_retries", ""},
		{"net.ipv4.tcp_syn_retries = 4", "info net.ipv4.tcp_syn_retries", ""},
		{"net.ipv4.tcp_max_tw_buckets = 5000", "info net.ipv4.tcp_max_tw_buckets", ""},
		{"net.ipv4.tcp_retries1 = 2", "info net.ipv4.tcp_retries1", ""},
		{"net.ipv4.tcp_retries2 = 9", "info net.ipv4.tcp_retries2", "RFC 1122"},
		{"net.ipv4.tcp_retries2 = 8", "", ""},
		{"net.ipv4.tcp_rfc1337 = 0", "info net.ipv4.tcp_rfc1337", ""},
		{"net.ipv4.conf.all.rp_filter = 0", "info net.ipv4.conf.all.rp_filter", ""},
		{"net.ipv4.conf.all.rp_filter = 0\nnet.ipv4.conf.default.rp_filter = 2", "", ""},
		{"net.ipv4.ip_conntrack_max = 65536", "warning net.ipv4.ip_conntrack_max", "nf_conntrack_max since Linux 4.9"},
		{"net.ipv4.netfilter.ip_conntrack_tcp_timeout_established = 300",
			"warning net.ipv4.netfilter.ip_conntrack_tcp_timeout_established", "nf_conntrack_tcp_timeout_established"},
	} {
		h := sysctlHost(t, kernelDefaults, advised, tt.change)
		found := auditOf(t, Audit{LongestRequest: 15 * time.Minute}, h)
		if f, ok := found[tt.want]; tt.want == "" && len(found) > 0 || tt.want != "" && (len(found) != 1 || !ok || !mentions(f.Cause+f.Fix[0], tt.words)) {
			t.Errorf("%s: %v, want %q with %q", tt.change, found, tt.want, tt.words)
		}
	}
}

// Advice follows the kernel: what it has, and how it behaves.
func TestAuditKernel(t *testing.T) {
	for _, tt := range []struct{ kernel, change, want string }{
		{"3.10.0-1160.el7.x86_64", "net.ipv4.tcp_tw_recycle = 1", "critical net.ipv4.tcp_tw_recycle"},
		{"4.11.12", "net.ipv4.tcp_tw_recycle = 1", "critical net.ipv4.tcp_tw_recycle"},
		{"", "net.ipv4.tcp_tw_recycle = 1", "critical net.ipv4.tcp_tw_recycle"},
		{"4.12.0", "net.ipv4.tcp_tw_recycle = 1", "info net.ipv4.tcp_tw_recycle"},
		{"4.11.12", "net.ipv4.tcp_tw_recycle = 0", ""},
		{"4.3.0", "net.ipv4.tcp_max_syn_backlog = 1024", "info net.ipv4.tcp_max_syn_backlog"},
		{"4.4.0", "net.ipv4.tcp_max_syn_backlog = 1024", ""},
		{"", "net.ipv4.tcp_max_syn_backlog = 1024", ""},
		{"2.6.32", "net.ipv4.ip_conntrack_max = 65536", "info net.ipv4.ip_conntrack_max"},
		{"4.8.17", "net.ipv4.ip_conntrack_max = 65536", "info net.ipv4.ip_conntrack_max"},
		{"4.9", "net.ipv4.ip_conntrack_max = 65536", "warning net.ipv4.ip_conntrack_max"},
		{"what", "net.ipv4.ip_conntrack_max = 65536", "info net.ipv4.ip_conntrack_max"},
	} {
		h := sysctlHost(t, kernelDefaults, advised, tt.change)
		h.Kernel = tt.kernel
		found := auditOf(t, Audit{LongestRequest: time.Minute}, h)
		if _, ok := found[tt.want]; len(found) > 1 || ok != (tt.want != "") || len(found) != 0 && tt.want == "" {
			t.Errorf("%q, %s: %v, want %q", tt.kernel, tt.change, found, tt.want)
		}
	}
	h := sysctlHost(t, kernelDefaults, advised, "net.ipv4.tcp_syncookies = 0\nnet.ipv4.tcp_max_syn_backlog = 128")
	if found := auditOf(t, Audit{LongestRequest: time.Minute}, h); len(found) != 2 {
		t.Errorf("without cookies: %v", found)
	}
}

// What sockets show of the load decides, too.
func TestAuditLoad(t *testing.T) {
	eachFamily(t, func(t *testing.T, family func(string) string) {
		for _, tt := range []struct {
			change, socket string
			times          int
			edit           func(*sockdiag.Socket)
			want, words    string
		}{
			{"net.netfilter.nf_conntrack_tcp_timeout_established = 7200", "ESTAB " + server + " 9102 " + client + " 51522", 1, idle(7201 * time.Second),
				"warning net.netfilter.nf_conntrack_tcp_timeout_established", "idle for 7201s"},
			{"net.netfilter.nf_conntrack_tcp_timeout_established = 7200", "ESTAB " + server + " 9102 " + client + " 51522", 1, idle(7200 * time.Second), "", ""},
			{"net.netfilter.nf_conntrack_tcp_timeout_established = 7200", "ESTAB 127.0.0.1 9102 127.0.0.1 51522", 1, idle(7201 * time.Second), "", ""},
			{"net.netfilter.nf_conntrack_tcp_timeout_established = 7200", "CLOSE-WAIT " + server + " 9102 " + client + " 51522", 1, idle(7201 * time.Second), "", ""},
			{"net.ipv4.tcp_max_tw_buckets = 180000", "TIME-WAIT " + server + " 443 " + client + " 51522", 161999, nil, "", ""},
			{"net.ipv4.tcp_max_tw_buckets = 180000", "TIME-WAIT " + server + " 443 " + client + " 51522", 162000, nil, "warning net.ipv4.tcp_max_tw_buckets", "162000 sockets"},
			{"net.ipv4.tcp_mem = 100 200 400", "ESTAB " + server + " 443 " + client + " 51522", 99, nil, "", ""},
			{"net.ipv4.tcp_mem = 100 200 400", "ESTAB " + server + " 443 " + client + " 51522", 100, nil, "warning net.ipv4.tcp_mem", "400 pages"},
			{"net.core.somaxconn = 4096", "LISTEN " + server + " 443 0.0.0.0 0", 2, backlog(4096), "info net.core.somaxconn", "2 listeners"},
			{"net.core.somaxconn = 4096", "LISTEN " + server + " 443 0.0.0.0 0", 2, backlog(511), "", ""},
			{"net.core.somaxconn = 4096", "LISTEN " + server + " 443 0.0.0.0 0", 2, func(s *sockdiag.Socket) { s.Backlog, s.Fields = 4096, sockdiag.UnknownBacklog }, "", ""},
		} {
			h := sysctlHost(t, kernelDefaults, advised, tt.change)
			s := socket(t, family(tt.socket))
			if tt.edit != nil {
				tt.edit(&s)
			}
			found := auditOfMany(t, Audit{LongestRequest: time.Minute}, h, s, tt.times)
			f, ok := found[tt.want]
			if ok != (tt.want != "") || len(found) > 1 || len(found) != 0 && tt.want == "" || !mentions(f.Cause, tt.words) {
				t.Errorf("%s, %d × %s: %v, want %q", tt.change, tt.times, tt.socket, found, tt.want)
			}
		}
	})
}

func idle(d time.Duration) func(*sockdiag.Socket) {
	return func(s *sockdiag.Socket) {
		s.Fields |= sockdiag.FieldInfo
		s.Info.LastDataSent, s.Info.LastDataRecv, s.Info.LastAckRecv = d, d+time.Second, d
	}
}

func backlog(n uint32) func(*sockdiag.Socket) {
	return func(s *sockdiag.Socket) { s.Backlog = n }
}

// Limits of processes are compared with those of the host.
func TestAuditFiles(t *testing.T) {
	for _, tt := range []struct {
		soft, hard, all uint64
		want            string
	}{
		{65536, 65536, 1 << 20, ""},
		{1025, 4096, 1 << 20, ""},
		{1024, 524288, 1 << 20, "info RLIMIT_NOFILE"},
		{65536, 65536, 65536, "warning fs.file-max"},
		{65535, 65536, 65536, ""},
		{math.MaxUint64, math.MaxUint64, 65536, "warning fs.file-max"},
	} {
		h := sysctlHost(t, kernelDefaults, advised, fmt.Sprintf("fs.file-max = %d", tt.all))
		h.Files = []OpenFiles{
			{Descriptors: sockdiag.Descriptors{SoftLimit: tt.all, HardLimit: tt.all}},
			{Process: sockdiag.Process{PID: 17, Command: "sipd"}, Descriptors: sockdiag.Descriptors{SoftLimit: tt.soft, HardLimit: tt.hard}},
		}
		found := auditOf(t, Audit{LongestRequest: time.Minute}, h)
		f, ok := found[tt.want]
		if ok != (tt.want != "") || len(found) > 1 || len(found) != 0 && tt.want == "" || ok && !mentions(f.Cause, "sipd (17)") {
			t.Errorf("%+v: %v", tt, found)
		}
	}
}

// What TCP takes now tells an estimate from a fact.
func TestAuditMemory(t *testing.T) {
	for pages, want := range map[string]Severity{"": Warning, "199": Info, "200": Warning} {
		h := sysctlHost(t, kernelDefaults, advised, "net.ipv4.tcp_mem = 100 200 400")
		if pages != "" {
			var err error
			proc := fstest.MapFS{"net/sockstat": {Data: []byte("TCP: inuse 100 mem " + pages + "\n")}}
			if h.Counters, err = sockdiag.ReadCounters(proc); err != nil {
				t.Fatal(err)
			}
		}
		h.Sockets = slices.Repeat([]sockdiag.Socket{socket(t, "ESTAB "+server+" 443 "+client+" 51522")}, 100)
		found := Find(h, Audit{LongestRequest: time.Minute})
		if len(found) != 1 || found[0].Severity != want || (pages == "") != (len(found[0].Evidence.Missing) > 0) || !mentions(found[0].Cause, pages) {
			t.Errorf("%s pages: %v", pages, found)
		}
	}
}

// A table that is empty makes the tracker's timeouts doubtful.
func TestAuditDoubt(t *testing.T) {
	h := sysctlHost(t, kernelDefaults, advised, "net.netfilter.nf_conntrack_tcp_timeout_established = 300\nnet.netfilter.nf_conntrack_count = 0")
	found := Find(h, Audit{LongestRequest: time.Minute})
	if len(found) != 1 || found[0].Confidence != Possible || len(found[0].Evidence.Missing) != 1 {
		t.Errorf("%+v", found)
	}
}

// Every setting that S8 names is reviewed, with its value and a reason.
func TestAuditReview(t *testing.T) {
	h := sysctlHost(t, kernelDefaults, "net.ipv4.tcp_tw_recycle = 1")
	values := make(map[string]string)
	for _, a := range (Audit{}).Review(&h) {
		if values[a.Name] != "" {
			t.Errorf("%s is reviewed twice", a.Name)
		}
		values[a.Name] = a.Value
		if a.Why == "" || a.Severity != 0 && a.Want == "" {
			t.Errorf("%+v", a)
		}
	}
	for _, name := range []string{maxEntries, buckets, keepaliveTime, keepaliveIntvl, keepaliveCount, "net.ipv4.tcp_orphan_retries",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_max_syn_backlog", "net.core.netdev_max_backlog", somaxconn,
		timestamps, timeWaitReuse, recycle, "net.ipv4.tcp_synack_retries", "net.ipv4.tcp_syn_retries", maxTimeWait, tcpMemory,
		"net.ipv4.tcp_retries1", "net.ipv4.tcp_retries2", "net.ipv4.tcp_rfc1337", "net.ipv4.conf.all.rp_filter", fileMax,
		"net.netfilter.nf_conntrack_generic_timeout", "net.netfilter.nf_conntrack_tcp_timeout_established",
		"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "net.netfilter.nf_conntrack_tcp_loose"} {
		if values[name] == "" {
			t.Errorf("%s is not reviewed", name)
		}
	}
	if values[keepaliveTime] != "7200" || values[recycle] != "1" {
		t.Error(values)
	}
}

// A socket costs no allocation.
func TestAuditAllocs(t *testing.T) {
	h := sysctlHost(t, kernelDefaults)
	look := Audit{}.Look(&h)
	rows := []sockdiag.Socket{
		socket(t, "ESTAB "+server+" 443 "+client+" 1"), socket(t, "TIME-WAIT "+server+" 443 "+client+" 2"), socket(t, "LISTEN "+server+" 443 0.0.0.0 0"),
	}
	idle(time.Hour)(&rows[0])
	backlog(4096)(&rows[2])
	if n := testing.AllocsPerRun(100, func() {
		for i := range rows {
			look.Socket(&rows[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
