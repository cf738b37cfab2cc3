package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// within bounds a test's waiting.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// exchange sends a line from one host to the other and back over TCP.
func exchange(ctx context.Context, from, to *lab.Host, addr netip.Addr) error {
	l, err := to.Listen("tcp", netip.AddrPortFrom(addr, 0))
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			io.Copy(c, io.LimitReader(c, 5))
		}
	}()
	c, err := from.Dial(ctx, "tcp", netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort(), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if string(got) != "hello" {
		return errors.Join(fmt.Errorf("got %q", got), err)
	}
	return nil
}

func TestTwoHosts(t *testing.T) {
	client, server := lab.Two(t)
	for _, addr := range []netip.Addr{server.Addr4(), server.Addr6()} {
		if err := exchange(within(t), client, server, addr); err != nil {
			t.Errorf("%v: %v", addr, err)
		}
	}
}

func TestThreeHosts(t *testing.T) {
	client, _, server := lab.Three(t)
	for _, addr := range []netip.Addr{server.Addr4(), server.Addr6()} {
		if err := exchange(within(t), client, server, addr); err != nil {
			t.Errorf("%v: %v", addr, err)
		}
	}
}

func TestDatagrams(t *testing.T) {
	client, server := lab.Two(t)
	for _, addr := range []netip.Addr{server.Addr4(), server.Addr6()} {
		l, err := server.ListenPacket("udp", netip.AddrPortFrom(addr, 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		c, err := client.Dial(within(t), "udp", netip.AddrPort{}, l.LocalAddr().(*net.UDPAddr).AddrPort(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := l.ReadFrom(b)
		if err != nil || string(b[:n]) != "hello" || from.String() != c.LocalAddr().String() {
			t.Errorf("got %q from %v, %v, want it from %v", b[:n], from, err, c.LocalAddr())
		}
	}
}

// listen listens at any port, of both families.
func listen(t *testing.T, h *lab.Host) (net.Listener, uint16) {
	t.Helper()
	l, err := h.Listen("tcp", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestReuseAddr leaves a local port in TIME_WAIT and connects from it again.
func TestReuseAddr(t *testing.T) {
	client, server := lab.Two(t)
	local := netip.AddrPortFrom(netip.Addr{}, 40000)
	for _, opts := range []*lab.DialOptions{nil, {ReuseAddr: true}} {
		local = netip.AddrPortFrom(local.Addr(), local.Port()+1)
		var last error
		for range 2 { // two peers: one pair of addresses and ports is in TIME_WAIT
			l, port := listen(t, server)
			c, err := client.Dial(within(t), "tcp", local, netip.AddrPortFrom(server.Addr4(), port), opts)
			if last = err; err != nil {
				break
			}
			if c.LocalAddr().(*net.TCPAddr).Port != int(local.Port()) {
				t.Errorf("connected from %v, want port %d", c.LocalAddr(), local.Port())
			}
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			io.Copy(io.Discard, peer) // returns when the client has closed
			peer.Close()
		}
		if inUse := errors.Is(last, syscall.EADDRINUSE); inUse != (opts == nil) {
			t.Errorf("options %+v: the second dial got %v", opts, last)
		}
	}
}

func TestDialRefuses(t *testing.T) {
	h := lab.New(t).MustHost(t, "h")
	if _, err := h.Dial(t.Context(), "unix", netip.AddrPort{}, netip.AddrPort{}, nil); err == nil {
		t.Error("dialled a network that is none")
	}
	to := netip.MustParseAddrPort("192.0.2.1:1")
	if _, err := h.Dial(within(t), "tcp", netip.MustParseAddrPort("127.0.0.1:0"), to, nil); err == nil {
		t.Error("reached another host without a link")
	}
	if _, err := h.Dial(within(t), "tcp", netip.AddrPort{}, to, nil); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("without a link: got %v, want ENETUNREACH", err)
	}
}
