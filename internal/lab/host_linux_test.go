package lab_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// acceptAll is a table whose only effect is that connections are tracked.
var acceptAll = nft.Table{Family: nft.INet, Name: "track", Chains: []nft.Chain{{
	Name: "input", Hook: nft.Input,
	Rules: []nft.Rule{{CTState: nft.New | nft.Established, Counter: true}},
}}}

func TestSysctlsAreTheHosts(t *testing.T) {
	client, server := lab.Two(t)
	const name = "net.netfilter.nf_conntrack_tcp_timeout_established"
	if err := client.SetSysctl(name, "300"); err != nil {
		t.Fatal(err)
	}
	if err := server.SetSysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "7200"); err != nil {
		t.Fatal(err)
	}
	for h, want := range map[*lab.Host]string{client: "300", server: "7200"} {
		if got, err := h.Sysctl(name); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", h.Name(), got, err, want)
		}
	}
	if _, err := client.Sysctl("net.no.such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown: got %v, want fs.ErrNotExist", err)
	}
}

// TestTracking shows when a namespace tracks connections.
func TestTracking(t *testing.T) {
	client, server := lab.Two(t)
	count := func() string {
		if err := exchange(within(t), client, server, server.Addr4()); err != nil {
			t.Fatal(err)
		}
		got, err := server.Sysctl("net.netfilter.nf_conntrack_count")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := count(); got != "0" {
		t.Errorf("without rules: %s connections tracked", got)
	}
	if err := server.Rules(within(t), acceptAll); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != "1" {
		t.Errorf("with a rule on the state: %s connections tracked, want 1", got)
	}
	counters, err := server.Counters(within(t), nft.INet, "track", "input")
	if err != nil || len(counters) != 1 || counters[0].Packets == 0 {
		t.Errorf("counters: %+v, %v", counters, err)
	}
}

func TestFS(t *testing.T) {
	client, server := lab.Two(t)
	sub, err := fs.Sub(client.FS(), "sys/net/netfilter")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(sub, "nf_conntrack_max", "nf_conntrack_tcp_loose"); err != nil {
		t.Error(err)
	}
	for h, want := range map[*lab.Host]string{client: "server", server: "client"} {
		b, err := fs.ReadFile(h.FS(), "net/dev")
		if err != nil || !strings.Contains(string(b), want+":") {
			t.Errorf("net/dev of %s: %v\n%s", h.Name(), err, b)
		}
		if b, err := fs.ReadFile(h.FS(), "net/stat/nf_conntrack"); err != nil || len(b) == 0 {
			t.Errorf("net/stat/nf_conntrack of %s: %v", h.Name(), err)
		}
	}
	if _, err := client.FS().Open("../etc/passwd"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("outside: got %v, want fs.ErrInvalid", err)
	}
	_, err = fs.ReadFile(client.FS(), "net/no_such")
	if pe, ok := errors.AsType[*fs.PathError](err); !ok || pe.Path != "net/no_such" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: got %v", err)
	}
}

func TestNetNS(t *testing.T) {
	client, server := lab.Two(t)
	inside := func(h *lab.Host) (ns string) {
		err := h.Do(func() (err error) {
			ns, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	for _, h := range []*lab.Host{client, server} {
		if got, err := os.Readlink(h.NetNS()); err != nil || got != inside(h) {
			t.Errorf("%s is %s, %v, its threads are in %s", h.NetNS(), got, err, inside(h))
		}
	}
	if inside(client) == inside(server) {
		t.Error("both hosts are one namespace")
	}
}

var errInside = errors.New("inside")

func TestDo(t *testing.T) {
	h := lab.New(t).MustHost(t, "h")
	if err := h.Do(func() error { return errInside }); !errors.Is(err, errInside) {
		t.Errorf("got %v, want the function's error", err)
	}
	nested := h.Do(func() error { return h.Do(func() error { return errInside }) })
	if !errors.Is(nested, errInside) {
		t.Errorf("nested: got %v", nested)
	}
}

func TestDoPanics(t *testing.T) {
	h := lab.New(t).MustHost(t, "h")
	for name, fn := range map[string]func() error{
		"once":   func() error { panic(errInside) },
		"nested": func() error { return h.Do(func() error { panic(errInside) }) },
	} {
		func() {
			defer func() {
				p, ok := recover().(*lab.Panic)
				if !ok || !errors.Is(p, errInside) || !strings.Contains(p.Error(), "host_linux_test.go") {
					t.Errorf("%s: got %v, want a *Panic with the stack of the function", name, p)
				}
			}()
			t.Errorf("%s: returned %v", name, h.Do(fn))
		}()
	}
}

// TestDoGoexit ends the function as t.FailNow does: it must end the caller.
func TestDoGoexit(t *testing.T) {
	h := lab.New(t).MustHost(t, "h")
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_ = h.Do(func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	select {
	case returned := <-ended:
		if returned {
			t.Error("Do returned")
		}
	case <-time.After(5 * time.Second):
		t.Error("Do hangs")
	}
}

func TestExec(t *testing.T) {
	lab.Tool(t, "ip")
	client, server := lab.Two(t)
	for h, want := range map[*lab.Host]string{client: "192.0.2.1/24", server: "192.0.2.2/24"} {
		out, err := h.Exec(within(t), "ip", "-o", "address", "show", "scope", "global")
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", h.Name(), err, out)
		}
	}
	_, err := client.Exec(within(t), "ip", "no-such-object")
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || len(err.Error()) <= len("lab: host client: ip: : "+e.Error()) {
		t.Errorf("failing: got %v, want its status and standard error", err)
	}
	if _, err := client.Exec(within(t), "no-such-tool"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing: got %v, want exec.ErrNotFound", err)
	}
}

func TestExecIsKilled(t *testing.T) {
	lab.Tool(t, "sleep")
	h := lab.New(t).MustHost(t, "h")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := h.Exec(ctx, "sleep", "30"); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}
