package lab_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestHostNames(t *testing.T) {
	n := lab.New(t)
	for _, name := range []string{"", "lo", "all", "default", "a b", "a/b", "a.b", "sixteen-bytes-xx"} {
		if _, err := n.Host(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("host %q: got %v, want fs.ErrInvalid", name, err)
		}
	}
	n.MustHost(t, "Fifteen-bytes_1")
	if _, err := n.Host("Fifteen-bytes_1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: got %v, want fs.ErrExist", err)
	}
}

func TestLinkRefuses(t *testing.T) {
	n := lab.New(t)
	a, b, c := n.MustHost(t, "a"), n.MustHost(t, "b"), n.MustHost(t, "c")
	if err := n.Link(a, b, lab.Near4, netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	if v4, v6 := b.Addrs(a); v4.String() != "192.0.2.2" || v6.IsValid() || b.Addr6().IsValid() {
		t.Errorf("addresses of b: %v, %v", v4, v6)
	}
	tests := map[string]struct {
		got  error
		want error
	}{
		"twice":           {n.Link(b, a, lab.Far4, lab.Far6), fs.ErrExist},
		"to itself":       {n.Link(c, c, lab.Far4, lab.Far6), fs.ErrExist},
		"families":        {n.Link(a, c, lab.Far6, lab.Far4), fs.ErrInvalid},
		"one address":     {n.Link(a, c, netip.MustParsePrefix("192.0.2.1/32"), lab.Far6), fs.ErrInvalid},
		"not linked":      {n.Route(a, c), fs.ErrInvalid},
		"route of IPv6":   {n.Route(a, b, lab.Far6), fs.ErrInvalid},
		"sysctl outside":  {a.SetSysctl("kernel.panic", "0"), fs.ErrInvalid},
		"sysctl upwards":  {a.SetSysctl("net/../kernel/panic", "0"), fs.ErrInvalid},
		"unknown sysctl":  {a.SetSysctl("net.ipv4.no_such", "0"), fs.ErrNotExist},
		"all of IPv4":     {n.Route(a, b), nil},
		"without address": {n.Link(b, c, netip.Prefix{}, netip.Prefix{}), nil},
	}
	for name, test := range tests {
		if !errors.Is(test.got, test.want) {
			t.Errorf("%s: got %v, want %v", name, test.got, test.want)
		}
	}
}

func TestClosed(t *testing.T) {
	n, err := lab.Open()
	if err != nil {
		lab.New(t) // skips or fails
	}
	h := n.MustHost(t, "h")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Host("late"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("host: got %v, want fs.ErrClosed", err)
	}
	if err := h.Do(func() error { return nil }); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("do: got %v, want fs.ErrClosed", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

// eventually waits for what the kernel and the runtime do in their own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("not in time: ", what)
}

// TestNamespacesGone holds one end of a link: when the namespace of the other
// is gone, the kernel removes both ends.
func TestNamespacesGone(t *testing.T) {
	n, err := lab.Open()
	if err != nil {
		lab.New(t) // skips or fails
	}
	a, b := n.MustHost(t, "a"), n.MustHost(t, "b")
	if err := n.Link(a, b, lab.Near4, lab.Near6); err != nil {
		t.Fatal(err)
	}
	if err := exchange(within(t), a, b, b.Addr4()); err != nil {
		t.Fatal(err)
	}
	kept, release, err := lab.Keep(a)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	linked := func() bool {
		_, err := fs.Stat(kept.FS(), "sys/net/ipv4/conf/b")
		return err == nil
	}
	if !linked() {
		t.Fatal("no link to begin with")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the link that goes with b's namespace", func() bool { return !linked() })
}

// strays counts the threads outside of the namespace of this one and the open
// files that are network namespaces or sockets, and all threads.
func strays(t *testing.T) (outside, files, threads int) {
	t.Helper()
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && ns != home {
			outside++
		}
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.HasPrefix(to, "net:") || strings.HasPrefix(to, "socket:") {
			files++
		}
	}
	return outside, files, len(tasks)
}

func TestNothingLeft(t *testing.T) {
	lab.New(t) // skips where there is no lab
	_, files, threads := strays(t)
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			client, _, server := lab.Three(t)
			if err := exchange(within(t), client, server, server.Addr6()); err != nil {
				t.Error(err)
			}
			if err := server.Rules(within(t), acceptAll); err != nil {
				t.Error(err)
			}
		})
	}
	const spare = 10 // threads that the runtime may have started for itself
	eventually(t, "no thread outside, no file more than before", func() bool {
		outsideNow, filesNow, threadsNow := strays(t)
		return outsideNow == 0 && filesNow <= files && threadsNow <= threads+spare
	})
	if t.Failed() {
		t.Log(strays(t))
	}
}
