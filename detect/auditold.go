package detect

import (
	"fmt"
	"io/fs"
	"strings"
)

// oldPrefix began the names of the tracker that IPv4 had for itself.
const oldPrefix = "net.ipv4.netfilter.ip_conntrack_"

// oldNames are the settings of old kernels that the incidents name.
var oldNames = oldSettingNames(
	"max", "count", "buckets", "checksum", "log_invalid", "generic_timeout", "icmp_timeout", "udp_timeout",
	"udp_timeout_stream", "tcp_be_liberal", "tcp_loose", "tcp_max_retrans", "tcp_timeout_close",
	"tcp_timeout_close_wait", "tcp_timeout_established", "tcp_timeout_fin_wait", "tcp_timeout_last_ack",
	"tcp_timeout_max_retrans", "tcp_timeout_syn_recv", "tcp_timeout_syn_sent", "tcp_timeout_time_wait",
)

func oldSettingNames(tracker ...string) []string {
	names := []string{"net.ipv4.ip_conntrack_max"}
	for _, name := range tracker {
		names = append(names, oldPrefix+name)
	}
	return append(names, recycle)
}

// OldSettings returns the settings of old kernels that are among the files of a
// /proc file system, or of what sockdiag.SysctlFS makes of sysctl -a or of
// sysctl.conf: for Host.Old.
func OldSettings(proc fs.FS) []Setting {
	var old []Setting
	for _, name := range oldNames {
		b, err := fs.ReadFile(proc, "sys/"+strings.ReplaceAll(name, ".", "/"))
		if err == nil {
			old = append(old, Setting{name, strings.TrimSpace(string(b))})
		}
	}
	return old
}

// old tells of a setting that this kernel has no more, or that later ones have
// no more.
func (t *auditor) old(s Setting) (Finding, bool) {
	if s.Name == recycle {
		later, _ := t.atLeast(4, 12)
		return advise(Info, Certain, s.Name, s.String()+" has no effect: Linux 4.12 has no tcp_tw_recycle any more",
			[]string{"take it out: `" + withoutLine(s.Name) + "`"}, s), later
	}
	today := maxEntries
	if name, ok := strings.CutPrefix(s.Name, oldPrefix); ok {
		today = "net.netfilter.nf_conntrack_" + name
	}
	if later, _ := t.atLeast(4, 9); later {
		return advise(Warning, Likely, s.Name, fmt.Sprintf(
			"%v has no effect: the setting is %s since Linux 4.9, and what was wanted does not hold", s, today),
			[]string{set(today, s.Value) + ", and in the file: `" + rename(s.Name, today) + "`"}, s), true
	}
	return advise(Info, Likely, s.Name, fmt.Sprintf("%v is an old name, which Linux 4.9 has no more", s),
		[]string{"in the file: `" + rename(s.Name, today) + "`"}, s), true
}

// withoutLine and rename are commands that change the files of sysctl(8).
func withoutLine(name string) string { return edit(name, "/"+pattern(name)+"/d") }

func rename(name, today string) string { return edit(name, "s/"+pattern(name)+"/"+today+"/") }

func edit(name, script string) string {
	return fmt.Sprintf("grep -rlF %s /etc/sysctl.conf /etc/sysctl.d | xargs -r sed -i '%s'", name, script)
}

// pattern is a name as a regular expression.
func pattern(name string) string { return strings.ReplaceAll(name, ".", `[.]`) }
