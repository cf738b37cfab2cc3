package nflog

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

func TestLiveCloseAndCancel(t *testing.T) { readers(t, liveCloseAndCancel) }

func liveCloseAndCancel(t *testing.T, goNflog bool) {
	_, server := lab.Two(t)
	for range 3 { // each time, the group is free again
		r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		wantLast(t, ctx, r, context.DeadlineExceeded)
		cancel()
		closed := make(chan struct{})
		time.AfterFunc(20*time.Millisecond, func() {
			closeReader(t, r)
			close(closed)
		})
		start := time.Now()
		wantLast(t, t.Context(), r, net.ErrClosed)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Close took %v to end the range", took)
		}
		<-closed // the range ends before the group is free
	}
}

// Close lets go of a reader that has packets nobody has asked for.
func TestLiveCloseFull(t *testing.T) { readers(t, liveCloseFull) }

func liveCloseFull(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, udpRule(nft.Log{}))
	r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), 100)
	for range r.Packets(t.Context()) {
		break
	}
	closeReader(t, r)
	wantLast(t, t.Context(), r, net.ErrClosed)
	listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
}

func TestLiveNoGoroutineIsLeft(t *testing.T) { readers(t, liveNoGoroutineIsLeft) }

func liveNoGoroutineIsLeft(t *testing.T, goNflog bool) {
	_, server := lab.Two(t)
	before := runtime.NumGoroutine()
	for range 20 {
		r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		wantLast(t, ctx, r, context.DeadlineExceeded)
		cancel()
		closeReader(t, r)
	}
	after := 0
	for range 100 {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, after)
}

func TestLiveSecondListener(t *testing.T) { readers(t, liveSecondListener) }

func liveSecondListener(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}})
	_, err := Listen(&Config{NetNS: server.NetNS(), Groups: []uint16{group}})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "group 5: another process listens") {
		t.Errorf("got %v", err)
	}
	listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group + 1}})
	listenAt(t, client, Config{GoNflog: goNflog, Groups: []uint16{group}})
}

// The same errno as that of a second listener, another text.
func TestLiveNoCapability(t *testing.T) { readers(t, liveNoCapability) }

func liveNoCapability(t *testing.T, goNflog bool) {
	_, server := lab.Two(t)
	err := server.Do(func() error { // on a thread that ends with it
		none := [2]unix.CapUserData{}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			return err
		}
		r, err := Listen(&Config{GoNflog: goNflog, Groups: []uint16{group}})
		if err == nil {
			closeReader(t, r)
		}
		return err
	})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("got %v", err)
	}
}

// Listen does not mistake packets for answers, nor lose the first.
func TestLiveListenInFlood(t *testing.T) { readers(t, liveListenInFlood) }

func liveListenInFlood(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, udpRule(nft.Log{}))
	c, err := client.Dial(t.Context(), "udp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), 9), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = c.Write([]byte("flood")) // what is lost does not matter
		}
	}()
	for i := range 60 {
		r := listenAt(t, server, Config{GoNflog: goNflog, Groups: []uint16{group}, ReadBuffer: i % 2}) // the default, or as good as none
		for _, err := range r.Packets(t.Context()) {
			if err == nil {
				break
			}
			if !errors.Is(err, ErrLost) {
				t.Error(err)
			}
		}
		closeReader(t, r)
	}
	cancel()
	<-done
}
