package lab

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// DialOptions change how Dial connects. A nil *DialOptions is the zero value.
type DialOptions struct {
	// ReuseAddr sets SO_REUSEADDR: the local port may be one that an earlier
	// socket, with ReuseAddr too, has left in TIME_WAIT.
	ReuseAddr bool
}

// Dial connects from the host. network is "tcp" or "udp"; the address family
// is that of remote. A zero local leaves the address and port to the kernel; a
// local with only a port leaves it the address. Without a deadline in ctx, it
// waits as long as the kernel does.
//
// The socket stays the host's and may be used from any goroutine. It keeps the
// host's namespace alive until it is closed.
func (h *Host) Dial(ctx context.Context, network string, local, remote netip.AddrPort, opts *DialOptions) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	if opts != nil && opts.ReuseAddr {
		d.Control = reuseAddr
	}
	switch {
	case local == netip.AddrPort{}:
	case strings.HasPrefix(network, "tcp"):
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	case strings.HasPrefix(network, "udp"):
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	default:
		return nil, h.errorf("dial: %w: network %q", fs.ErrInvalid, network)
	}
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, remote.String())
		return err
	})
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	return c, nil
}

// Listen listens for TCP connections to the host. A local address without IP
// is any of the family of network, "tcp4" or "tcp6"; port 0 is any.
func (h *Host) Listen(network string, local netip.AddrPort) (net.Listener, error) {
	c := net.ListenConfig{KeepAlive: -1}
	c.SetMultipathTCP(false)
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = c.Listen(context.Background(), network, text(local))
		return err
	})
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	return l, nil
}

// ListenPacket opens a UDP socket on the host.
func (h *Host) ListenPacket(network string, local netip.AddrPort) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = net.ListenPacket(network, text(local))
		return err
	})
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	return c, nil
}

// text writes an address for package net, to which one without IP is any.
func text(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return fmt.Sprintf(":%d", a.Port())
	}
	return a.String()
}

func reuseAddr(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = setReuseAddr(fd) }); cerr != nil {
		return cerr
	}
	return err
}
