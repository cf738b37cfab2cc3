package sockdiag

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// portBound is a port the kernel chooses from, given by bind(2).
const portBound = 40000

// addBound adds what a scene does not have: a client and a listener that
// bind(2) gave a port the kernel chooses from, and a listener it did not.
func addBound(t *testing.T, h *lab.Host) {
	t.Helper()
	s := &scene{t, h}
	s.check(h.Do(func() error {
		for _, port := range []int{portBound, 0} {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4(), Port: port}); err != nil {
				return err
			}
			if err := unix.Listen(fd, 1); err != nil {
				return err
			}
		}
		return nil
	}))
}

// inTwoStates goes before the expression in ss, which leaves out the states of
// its lines when there is only one.
const inTwoStates = " and state established state listening"

// ssExpressions are filters that ss and this package must read the same. The
// ports are those of a scene.
var ssExpressions = []string{
	"sport = :8080",
	"dport = :8080",
	"sport != :8080",
	"sport < :8082",
	"sport <= :8082",
	"dport > :8082",
	"dport >= :8082",
	"dport ge 8082 and dport lt 8085",
	"not sport = :8080",
	"! dport = :8080 and ! sport = :8080",
	"sport = :8080 or dport = :8080",
	"( sport = :8080 or dport = :8080 ) and src 127.0.0.1",
	"sport = :8080 or dport = :8080 and dport = :8080", // from left to right
	"dport = :8080 and sport = :1 or sport = :8083",
	"sport = :8080 | sport = :8081 || sport = :8082",
	"src 127.0.0.1 & dport = :8087",
	"src 127.0.0.1 dport = :8087",
	"not ( sport = :8080 or not ( src 127.0.0.1 and not dport = :8082 ) )",
	"src 127.0.0.0/8",
	"src 127/8",
	"dst 127.0.0.1",
	"dst 127.0.0.1:8082",
	"src 127.0.0.1:8082", // a mapped connection among others
	"src [::1]",
	"dst [::1]:8081",
	"src [::1]:*",
	"dst [::/0] or dst 127.0.0.1",
	"src [::ffff:127.0.0.1]",
	"dst [::ffff:127.0.0.0/104]",
	"src 192.0.2.0/24",
	"dst 192.0.2.77",
	"dst 192.0.2.77:4321",
	"not dst 127.0.0.0/8",
	"not src [::1] and not src 127.0.0.1",
	"src *:8083",
	"src :8083",
	"src inet6:[::1]",
	"dst inet:127.0.0.1",
	"dev = lo",
	"dev lo",
	"dev != lo and sport = :8080",
	"dev = lo or sport = :8080",
	"fwmark = 42",
	"fwmark = 0x2a/0xff",
	"fwmark = 2/3 or sport = :8083",
	"fwmark != 42" + inTwoStates, // TimeWait has no mark in old kernels, which ss takes for 0
	"autobound",
	"autobound and dport = :8080",
	"autobound or sport = :8083",
	"sport = :8081 and ( src [::1] or autobound )",
}

// TestFilterAgainstSS: ss shows the sockets that All does. ss takes the states
// before the expression.
func TestFilterAgainstSS(t *testing.T) {
	h := newScene(t)
	addBound(t, h)
	c := dialHost(t, h)
	expressions := slices.Clone(ssExpressions)
	if path, ok := ownCgroup(t); ok {
		// TimeWait has no cgroup, which ss takes for 0.
		expressions = append(expressions, "cgroup = "+path, "cgroup "+path+" and dport = :8080",
			"not cgroup = "+path+" or sport = :8083"+inTwoStates)
	}
	for _, text := range expressions {
		t.Run(text, func(t *testing.T) { againstSS(t, c, h, text) })
	}
}

// ownCgroup returns the directory of the test's cgroup, where it has one.
func ownCgroup(t *testing.T) (string, bool) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, own, ok := strings.Cut("\n"+string(b), "\n0::")
	own, _, _ = strings.Cut(own, "\n")
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if path := filepath.Join(mount, own); ok {
			if _, err := cgroupIDOf(path); err == nil {
				return path, true
			}
		}
	}
	return "", false
}

func againstSS(t *testing.T, c *Conn, h *lab.Host, text string) {
	states, expression := []string{"state", "all"}, text
	if rest, ok := strings.CutSuffix(text, inTwoStates); ok {
		states, expression = strings.Fields(inTwoStates)[1:], rest
	}
	f, err := ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-tanOeH"}, append(states, strings.Fields(expression)...)...)
	want, lines, _ := settled(t, c, h, Query{Filter: f}, args...)
	for _, r := range lines {
		if _, ok := want[r.Cookie]; !ok {
			t.Errorf("ss alone shows %v %v %v", r.State, r.Local, r.Remote)
		}
		delete(want, r.Cookie)
	}
	for _, s := range want {
		t.Errorf("ss does not show %v %v %v", s.State, s.Local, s.Remote)
	}
	if len(lines) == 0 {
		t.Error("nothing to compare")
	}
}

// TestFilterInKernel: what the kernel selects by bytecode is what Match selects
// of everything, on a kernel of any age.
func TestFilterInKernel(t *testing.T) {
	h := newScene(t)
	addBound(t, h)
	c := dialHost(t, h)
	for _, text := range append(ssExpressions, moreExpressions(t, snapshot(t, c, Query{}))...) {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []Filter{f, Not(f)} {
			if got, want := selectedBoth(t, c, f); !slices.Equal(got, want) {
				plan, err := c.Explain(Query{Filter: f})
				t.Errorf("%v: %d sockets, want %d (%v)\n%v", f, len(got), len(want), err, plan)
			}
		}
	}
	for o, name := range map[optional]string{
		optionalInterface: "filter by interface", optionalMark: "filter by mark", optionalCgroup: "filter by cgroup",
	} {
		t.Logf("SUPPORT: %s in bytecode: %s", name, map[bool]string{true: "yes", false: "no"}[c.refusedOperations()&o == 0])
	}
}

// selectedBoth returns the cookies of what the kernel and of what Match selects,
// without the sockets that bind(2) gave a port the kernel could have chosen: only
// the kernel knows them. It looks again if they differ: a socket may have
// changed in between.
func selectedBoth(t *testing.T, c *Conn, f Filter) (kernel, here []uint64) {
	t.Helper()
	for range 3 {
		kernel = matching(snapshot(t, c, Query{Filter: f}), Filter{})
		here = matching(snapshot(t, c, Query{}), f)
		if slices.Equal(kernel, here) {
			break
		}
	}
	return kernel, here
}

func matching(sockets []Socket, f Filter) (sorted []uint64) {
	for _, s := range sockets {
		if f.Match(&s) && s.Local.Port() != portBound {
			sorted = append(sorted, s.Cookie)
		}
	}
	slices.Sort(sorted)
	return sorted
}

// moreExpressions is what ss does not have, and what takes a number from the
// sockets there are.
func moreExpressions(t *testing.T, sockets []Socket) []string {
	t.Helper()
	s := one(t, sockets, portQuiet, Established, false)
	byID := And(InCgroup(s.CgroupID), RemotePort(Equal, portQuiet)).String()
	if matched := InCgroup(s.CgroupID).Match(&s); matched != s.Has(FieldCgroup) {
		t.Errorf("%s: %v, and FieldCgroup %v", byID, matched, s.Has(FieldCgroup))
	}
	return []string{
		byID, "cgroup != id:1", "cgroup id:1 or sport = :8083",
		HasCookie(s.Cookie).String(), HasInode(s.Inode).String(), "inode = 0",
		"uid = 0 and sport < 8085", "uid != 0 or uid = 0",
		"state listening and dev = 1", "state time-wait or ( state established and sport = :8080 )",
		"exclude listening exclude established", "exclude all",
		"fwmark = 0", "fwmark != 0 or dport = :1", "sport > 65534", "dport < 1",
		"src 0.0.0.0/0", "dst [::/0] and not src [::ffff:0:0/96]",
	}
}

// TestFilterBound: only the kernel knows who chose a port.
func TestFilterBound(t *testing.T) {
	h := lab.New(t).MustHost(t, "a")
	addBound(t, h)
	c := dialHost(t, h)
	if got := snapshot(t, c, Query{}); len(got) != 2 {
		t.Fatalf("%d sockets, want 2", len(got))
	}
	got := snapshot(t, c, Query{Filter: IsAutobound()})
	if len(got) != 1 || got[0].Local.Port() == portBound {
		t.Errorf("autobound: %v, want the other port alone", got)
	}
	if got := snapshot(t, c, Query{Filter: Not(IsAutobound())}); len(got) != 0 {
		t.Errorf("not autobound: %v, want none", got)
	}
}

// TestFilterLong: the kernel takes as much bytecode as there can be.
func TestFilterLong(t *testing.T) {
	h := newScene(t)
	c := dialHost(t, h)
	hosts := []Filter{Remote(netip.PrefixFrom(loopback4, 32))}
	for i := range 3200 {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		hosts = append(hosts, Remote(netip.PrefixFrom(a, 32)))
	}
	slices.Reverse(hosts)
	f := Or(hosts...)
	if d, left := (Query{Filter: f}).plan(IPv4, 0); len(d.Bytecode) != 3201*20-4 || len(left) != 0 {
		t.Errorf("%d bytes, %d left", len(d.Bytecode), len(left))
	}
	for _, f := range []Filter{f, Not(f)} {
		if got, want := selectedBoth(t, c, f); !slices.Equal(got, want) || len(got) < 5 {
			t.Errorf("%d sockets, want %d", len(got), len(want))
		}
	}
}

// TestFilterStates: states are asked for by the mask, the inactive ones by name
// alone.
func TestFilterStates(t *testing.T) {
	h := lab.New(t).MustHost(t, "a")
	if err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4(), Port: 6060})
	}); err != nil {
		t.Fatal(err)
	}
	c := dialHost(t, h)
	supported := len(snapshot(t, c, Query{States: States(BoundInactive)})) == 1
	for text, want := range map[string]int{"sport = :6060": 0, "state bound-inactive": 1, "state bound-inactive sport = :6061": 0} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if !supported {
			want = 0
		}
		if got := snapshot(t, c, Query{Filter: f}); len(got) != want {
			t.Errorf("%q: %d sockets, want %d", text, len(got), want)
		}
	}
	t.Logf("SUPPORT: bound sockets that do not listen: %s", map[bool]string{true: "yes", false: "no"}[supported])
}

// TestFilterUnprivileged: the kernel refuses to compare marks, and tells none;
// that is said instead of an answer without rows.
func TestFilterUnprivileged(t *testing.T) {
	h := newScene(t)
	err := h.Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		c, err := Dial(nil)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // nothing under way
		for _, f := range []Filter{HasMark(42, 0xff), Or(HasMark(42, 0xff), LocalPort(Equal, portQueued)), Not(HasMark(1, 1))} {
			got, err := collect(t.Context(), c, Query{Filter: f})
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || len(got) != 0 {
				t.Errorf("%v: %d sockets, %v", f, len(got), err)
			}
		}
		if got, want := selectedBoth(t, c, LocalPort(Equal, portQueued)); !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("%d sockets, want %d", len(got), len(want))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFilterProtocols: bytecode selects the sockets of UDP and MPTCP as well.
func TestFilterProtocols(t *testing.T) {
	h := lab.New(t).MustHost(t, "a")
	s := &scene{t, h}
	s.check(h.Do(func() error {
		for _, port := range []int{7001, 7002} {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16(), Port: port}); err != nil {
				return err
			}
		}
		return nil
	}))
	c := dialHost(t, h)
	q := Query{Protocol: UDP, Filter: And(Local(prefix("127.0.0.0/8")), Or(LocalPort(Less, 7002), LocalPort(Greater, 7002)))}
	if got := snapshot(t, c, q); len(got) != 1 || got[0].Local.Port() != 7001 {
		t.Errorf("%v, want port 7001 alone", got)
	}
}

// TestCgroupPath reads the ID of a directory of cgroup2, where there is one.
func TestCgroupPath(t *testing.T) {
	if _, err := ParseFilter("cgroup " + t.TempDir()); err == nil || !strings.Contains(err.Error(), "cgroup2") {
		t.Errorf("a directory elsewhere: %v", err)
	}
	path, ok := ownCgroup(t)
	if !ok {
		t.Skip("no cgroup2 is mounted")
	}
	id, err := cgroupIDOf(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFilter("cgroup = " + path)
	if err != nil || f != cgroupFilter(id, path) || id == 0 {
		t.Errorf("%s: %v, %v; want %d", path, f, err, id)
	}
	if _, err := ParseFilter("cgroup " + path + "/cgroup.procs"); err == nil {
		t.Error("a file is taken for a cgroup")
	}
	h := lab.New(t).MustHost(t, "a")
	addBound(t, h)
	got := snapshot(t, dialHost(t, h), Query{Filter: f})
	all := snapshot(t, dialHost(t, h), Query{})
	if supported := all[0].Has(FieldCgroup); (len(got) == len(all)) != supported {
		t.Errorf("%d of %d sockets are in %s", len(got), len(all), path)
	}
}
