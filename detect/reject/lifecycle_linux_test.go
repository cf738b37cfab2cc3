package reject

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// last ranges over Watch to its end and returns the error it ends with.
func last(ctx context.Context, cfg *Config) (err error) {
	for _, e := range Watch(ctx, cfg) {
		err = e
	}
	return err
}

// held counts the open files and the goroutines of this process.
func held(t *testing.T) (files, goroutines int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries), runtime.NumGoroutine()
}

// TestLiveEnd ends Watch by the context, by breaking off and by an error: at
// once, and with nothing left behind. It does not run beside other tests.
func TestLiveEnd(t *testing.T) {
	client, server := lab.Two(t)
	firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited))
	flow := tcpTuple(client.Addr4(), clientPort, server.Addr4(), closedPort)
	files, goroutines := held(t)
	for range 5 {
		testCancel(t, server)
		testBreak(t, server, func() { sendSYN(t, client, flow) })
		if err := last(t.Context(), &Config{NetNS: server.NetNS(), Groups: []uint16{group, group}}); err == nil {
			t.Error("no error")
		}
	}
	var f, g int
	for range 100 {
		if f, g = held(t); f <= files && g <= goroutines {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d files and %d goroutines, before %d and %d", f, g, files, goroutines)
}

// prompt is how soon Watch has to end.
const prompt = 2 * time.Second

func testCancel(t *testing.T, h *lab.Host) {
	t.Helper()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cfg := &Config{NetNS: h.NetNS(), Groups: []uint16{group}, Ready: func() { cancel(why) }}
	start := time.Now()
	if err := last(ctx, cfg); !errors.Is(err, why) {
		t.Errorf("cancelled, it ends with %v", err)
	}
	if took := time.Since(start); took > prompt {
		t.Errorf("it took %v to end", took)
	}
	if err := last(ctx, cfg); !errors.Is(err, why) {
		t.Errorf("begun with a context that is over, it ends with %v", err)
	}
}

func testBreak(t *testing.T, h *lab.Host, refused func()) {
	t.Helper()
	cfg := &Config{NetNS: h.NetNS(), Groups: []uint16{group}, Ready: refused}
	var end time.Time
	for v, err := range Watch(within(t), cfg) {
		must(t, err)
		is(t, v, "C20", CauseNoService, likely)
		end = time.Now()
		break
	}
	if took := time.Since(end); took > prompt {
		t.Errorf("it took %v to end", took)
	}
}

// A group has one listener.
func TestLiveSecondWatch(t *testing.T) {
	t.Parallel()
	_, server := lab.Two(t)
	watchHost(t, server, Config{})
	err := last(within(t), &Config{NetNS: server.NetNS(), Groups: []uint16{group + 1, group}})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "reject: nflog: group 50: another process listens") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(within(t)) // what it had opened is free again
	defer cancel()
	if err := last(ctx, &Config{NetNS: server.NetNS(), Groups: []uint16{group + 1}, Ready: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Without the capability, Watch says which one it needs.
func TestLiveUnprivileged(t *testing.T) {
	t.Parallel()
	_, server := lab.Two(t)
	var dropped error
	err := server.Do(func() error { // on a thread that ends with it
		none := [2]unix.CapUserData{}
		dropped = unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		if dropped != nil {
			return nil
		}
		return last(within(t), &Config{Groups: []uint16{group}})
	})
	if dropped != nil {
		t.Skipf("capabilities cannot be dropped here: %v", dropped)
	}
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("got %v", err)
	}
}

func TestLiveNoNamespace(t *testing.T) {
	err := last(t.Context(), &Config{NetNS: "/proc/self/ns/none", Groups: []uint16{group}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
