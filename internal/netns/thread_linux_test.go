package netns_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/netns"
)

func TestMain(m *testing.M) { lab.Main(m) }

// Settings, counters and addresses are those of the namespace, not of this
// process.
func TestThread(t *testing.T) {
	t.Parallel()
	_, server := lab.Two(t)
	const name = "sys/net/ipv4/ip_default_ttl"
	if err := server.SetSysctl("net.ipv4.ip_default_ttl", "77"); err != nil {
		t.Fatal(err)
	}
	th, err := netns.Enter(server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if b, err := fs.ReadFile(th, name); err != nil || strings.TrimSpace(string(b)) != "77" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"net/snmp", "net/if_inet6"} {
		inside, err1 := fs.ReadFile(th, name)
		want, err2 := fs.ReadFile(server.FS(), name)
		if err := errors.Join(err1, err2); err != nil || name == "net/if_inet6" && string(inside) != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, inside, want)
		}
	}
	var addrs []net.Addr
	err = th.Do(func() (err error) { addrs, err = net.InterfaceAddrs(); return err })
	if err != nil || !slices.ContainsFunc(addrs, func(a net.Addr) bool {
		return strings.HasPrefix(a.String(), server.Addr4().String()+"/")
	}) {
		t.Errorf("%v, %v", addrs, err)
	}
}

func TestThreadErrors(t *testing.T) {
	t.Parallel()
	if _, err := netns.Enter("/proc/self/ns/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := netns.Enter("/proc/self/ns/mnt"); err == nil {
		t.Error("entered what is no network namespace")
	}
	_, server := lab.Two(t)
	th, err := netns.Enter(server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"sys/none": fs.ErrNotExist, "/sys": fs.ErrInvalid, "../proc": fs.ErrInvalid} {
		if _, err := th.Open(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	th.Close()
	th.Close()
	for range 10 { // of two ways to go on, select takes either
		if _, err := th.ReadFile("net/snmp"); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// The caller's own namespace is that of its thread, and to stay there takes no
// privilege.
func TestThreadStays(t *testing.T) {
	t.Parallel()
	_, server := lab.Two(t)
	const ns = "/proc/thread-self/ns/net"
	link := func(th *netns.Thread) (name string) {
		if err := th.Do(func() (err error) { name, err = os.Readlink(ns); return err }); err != nil {
			t.Error(err)
		}
		return name
	}
	if err := server.Do(func() error {
		th, err := netns.Enter("")
		if err != nil {
			return err
		}
		defer th.Close()
		want, err := os.Readlink(ns)
		if got := link(th); got != want {
			t.Errorf("in %s, of a caller in %s", got, want)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
