package sockdiag

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestCgroupOfSocket compares the cgroup of a socket of this process with that
// of this process.
func TestCgroupOfSocket(t *testing.T) {
	cgroups, err := ReadCgroups("")
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrNotExist) {
		t.Logf("no cgroup v2: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own := ""
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSpace(path)
		}
	}
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.listen("tcp4", netip.AddrPortFrom(loopback4, portQuiet))
	row := one(t, snapshot(t, dialHost(t, s.h), Query{}), portQuiet, Listen, true)
	if !row.Has(FieldCgroup) {
		t.Log("SUPPORT: cgroup of a socket: no")
		return
	}
	t.Log("SUPPORT: cgroup of a socket: yes")
	got, ok := cgroups.Of(row)
	if strings.HasPrefix(own, "/..") || own == "" { // outside of the cgroup namespace
		return
	}
	if ok && got != ParseCgroup(own) {
		t.Errorf("%+v, %t; want %s", got, ok, own)
	}
	var st unix.Stat_t
	if unix.Stat("/sys/fs/cgroup"+own+"/cgroup.procs", &st) == nil && !ok {
		t.Errorf("cgroup %d is unknown, want %s", row.CgroupID, own)
	}
}

func BenchmarkReadCgroups(b *testing.B) {
	for b.Loop() {
		c, err := ReadCgroups("")
		if err != nil {
			b.Skip(err)
		}
		b.ReportMetric(float64(c.Len()), "cgroups")
	}
}
