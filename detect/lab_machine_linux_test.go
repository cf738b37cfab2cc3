package detect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// machine is one whose own settings may be changed.
type machine struct{ *testing.T }

// Settings that are the machine's are changed as is advised, on an emulated one.
func TestLabMachine(t *testing.T) {
	if !lab.Emulated() {
		t.Skip("changes settings of the machine: run it by internal/ci/kernels")
	}
	m := machine{t}
	t.Run("table", m.table)
	t.Run("chains", m.chains)
	t.Run("hashsize", m.hashsize)
	t.Run("files", m.files)
	t.Run("backlog", m.backlog)
	t.Run("memory", m.memory)
}

// set sets a setting until the test ends.
func set(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	was, err := os.ReadFile(path)
	ok(t, err)
	ok(t, os.WriteFile(path, []byte(value), 0))
	t.Cleanup(func() { ok(t, os.WriteFile(path, was, 0)) })
}

// do runs the commands of a fix in the initial network namespace.
func do(t *testing.T, fix string) {
	t.Helper()
	for i, command := range strings.Split(fix, "`") {
		if i%2 == 0 {
			continue
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
}

func subject(found []detect.Finding, subject string) (detect.Finding, bool) {
	i := slices.IndexFunc(found, func(f detect.Finding) bool { return f.Subject == subject })
	if i < 0 {
		return detect.Finding{}, false
	}
	return found[i], true
}

// remove finds a subject, does the last of its fixes, and looks again.
func remove(t *testing.T, look func() []detect.Finding, about string, fix int) {
	t.Helper()
	f, found := subject(look(), about)
	if !found {
		t.Fatalf("nothing of the %s, but %v", about, look())
	}
	if fix < 0 {
		fix += len(f.Fix)
	}
	do(t, f.Fix[fix])
	if f, found := subject(look(), about); found {
		t.Errorf("after the fix: %v", f)
	}
	t.Logf("%s: %s", about, f.Fix[fix])
	detect.Proved(t, f.Fix[fix])
}

// The table of a namespace is nearly full, with few chains.
func (machine) table(t *testing.T) {
	const limit = 2400
	set(t, "net.netfilter.nf_conntrack_buckets", "512")
	set(t, "net.netfilter.nf_conntrack_max", fmt.Sprint(limit))
	e := open(t, lab.New(t).MustHost(t, "server"))
	fill(t, e, netip.MustParseAddr("192.0.2.7"), 0, limit*97/100)
	look := func() []detect.Finding {
		h := e.look(t)
		var err error
		h.Usage, err = conntrack.ReadUsage(e.host.FS())
		ok(t, err)
		return detect.Find(h, detect.Pressure{})
	}
	remove(t, look, "conntrack table", -1)
}

// New entries are refused because of long chains, and with more chains are not.
func (machine) chains(t *testing.T) {
	set(t, "net.netfilter.nf_conntrack_buckets", "512")
	set(t, "net.netfilter.nf_conntrack_max", "65536")
	e := open(t, lab.New(t).MustHost(t, "server"))
	crowd := &mass{net: 64, assured: true}
	refused := 0
	for crowd.made < 24_000 && refused < 40 { // then one in 25 is
		if err := e.ct.Create(t.Context(), crowd.flow()); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Skip("Linux before 5.15 refuses none")
	}
	var early detect.Host
	look := func() []detect.Finding {
		early = e.counts(t)
		for range 200 {
			_ = e.ct.Create(t.Context(), crowd.flow())
		}
		h := e.counts(t)
		h.Earlier = early.Counted()
		var err error
		h.Usage, err = conntrack.ReadUsage(e.host.FS())
		ok(t, err)
		return detect.Find(h, detect.Pressure{})
	}
	found := look()
	if _, long := subject(found, "conntrack hash table"); !long {
		t.Errorf("chains are long, but: %v", found)
	}
	remove(t, look, "conntrack counter chaintoolong", 0)
	if f, long := subject(look(), "conntrack hash table"); long {
		t.Errorf("with more chains: %v", f)
	}
}

// audit is what Audit finds of the machine.
func audit(t *testing.T, h detect.Host) []detect.Finding {
	t.Helper()
	var err error
	h.Now = time.Now()
	h.Settings, err = conntrack.ReadSettings(os.DirFS("/proc"))
	ok(t, err)
	h.Sysctls, err = sockdiag.ReadSettings(os.DirFS("/proc"))
	ok(t, err)
	h.Counters, err = sockdiag.ReadCounters(os.DirFS("/proc"))
	ok(t, err)
	return detect.Find(h, detect.Audit{}, detect.Descriptors{})
}

// The hash table is far smaller than what it is to hold.
func (machine) hashsize(t *testing.T) {
	set(t, "net.netfilter.nf_conntrack_buckets", "1024")
	set(t, "net.netfilter.nf_conntrack_max", "8192")
	remove(t, func() []detect.Finding { return audit(t, detect.Host{}) }, "net.netfilter.nf_conntrack_buckets", 0)
}

// One process may open more than all together; and all have as many open as
// they may.
func (machine) files(t *testing.T) {
	set(t, "fs.file-max", "60000")
	one := []detect.OpenFiles{{Process: sockdiag.Process{PID: 1, Command: "init"}, Descriptors: sockdiag.Descriptors{SoftLimit: 65536, HardLimit: 65536}}}
	remove(t, func() []detect.Finding { return audit(t, detect.Host{Files: one}) }, "fs.file-max", 0)
	look := func() []detect.Finding {
		s, err := sockdiag.ReadSettings(os.DirFS("/proc"))
		ok(t, err)
		n := s.FileCount
		return audit(t, detect.Host{Files: []detect.OpenFiles{{Descriptors: sockdiag.Descriptors{Used: n[0] - n[1], SoftLimit: n[2], HardLimit: n[2]}}}})
	}
	for range 1000 { // of a few the kernel's count is not exact
		f, err := os.Open(os.DevNull)
		ok(t, err)
		t.Cleanup(func() { _ = f.Close() }) // only opened
	}
	s, err := sockdiag.ReadSettings(os.DirFS("/proc"))
	ok(t, err)
	set(t, "fs.file-max", fmt.Sprint((s.FileCount[0]-s.FileCount[1])*10/9))
	remove(t, look, "all processes", -1)
}

func (machine) backlog(t *testing.T) {
	set(t, "net.core.netdev_max_backlog", "1000")
	remove(t, func() []detect.Finding { return audit(t, detect.Host{}) }, "net.core.netdev_max_backlog", 0)
}

// There are more connections than TCP has memory for.
func (machine) memory(t *testing.T) {
	set(t, "net.ipv4.tcp_mem", "100 150 200")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer l.Close() //nolint:errcheck // at the end
	for range 30 {  // with both ends 60
		near, err := net.Dial("tcp", l.Addr().String())
		ok(t, err)
		far, err := l.Accept()
		ok(t, err)
		t.Cleanup(func() { _ = errors.Join(near.Close(), far.Close()) })
	}
	diag, err := sockdiag.Dial(nil)
	ok(t, err)
	defer diag.Close() //nolint:errcheck // at the end
	remove(t, func() []detect.Finding {
		s, err := diag.Snapshot(t.Context(), sockdiag.Query{})
		ok(t, err)
		return audit(t, detect.Host{Sockets: s.Sockets})
	}, "net.ipv4.tcp_mem", 0)
}
