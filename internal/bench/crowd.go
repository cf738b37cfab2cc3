package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// crowd is a private namespace full of TCP sockets, made anew as they age.
type crowd struct {
	connections, over int // to make: with both their ends open, and in TIME_WAIT
	asked             int
	fresh             time.Duration // how old it may become

	made time.Time
	net  *lab.Network
	host *lab.Host
	fds  []int
}

const (
	firstPort = 8000
	listeners = 8 // so that there are ports enough
	spare     = 200
)

// raiseFiles lets the process open as many files as it may, and more as root.
func raiseFiles() {
	const wanted = 1 << 19
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: wanted, Max: wanted}) // fewer sockets, then
}

// files is how many files the process may open.
func files() (int, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return int(min(limit.Max, 1<<30)) - spare, err
}

// openCrowd is for n sockets: a half are both ends of connections, a half in
// TIME_WAIT, for which the kernel keeps them a minute.
func openCrowd(n int) (place, error) {
	most, err := files()
	c := &crowd{asked: n, fresh: 20 * time.Second}
	n = min(n, 2*most)
	c.connections, c.over = n/4, n/2-listeners
	return c, err
}

// openPairs is for n/25 connections, to be destroyed at the client's end.
func openPairs(n int) (place, error) {
	most, err := files()
	n = max(1, n/25)
	return &crowd{asked: n, connections: min(n, most/2)}, err
}

// destructive tells that the works leave nothing.
func (c *crowd) destructive() bool { return c.over == 0 }

func (c *crowd) size() int {
	if c.destructive() {
		return c.connections
	}
	return 2*c.connections + c.over + listeners
}

// String describes the sockets.
func (c *crowd) String() string {
	s := fmt.Sprintf("%d TCP sockets: half of them both ends of connections, half in TIME_WAIT", c.size())
	if c.destructive() {
		s = fmt.Sprintf("%d TCP connections, destroyed at the client's end", c.size())
	}
	if c.size() < c.asked {
		s += fmt.Sprintf(" (not %d: RLIMIT_NOFILE or rounding)", c.asked)
	}
	return s
}

func (c *crowd) do(fn func() error) error { return c.host.Do(fn) }

// Close closes all sockets.
func (c *crowd) Close() error {
	for _, fd := range c.fds {
		_ = unix.Close(fd) // nothing to lose
	}
	c.fds = nil
	if c.net == nil {
		return nil
	}
	return c.net.Close()
}

// fill makes a new namespace with the sockets, unless they are fresh.
func (c *crowd) fill(ctx context.Context) (err error) {
	if !c.destructive() && time.Since(c.made) < c.fresh {
		return nil
	}
	if err := c.Close(); err != nil {
		return err
	}
	if c.net, err = lab.Open(); err != nil {
		return err
	}
	if c.host, err = c.net.Host("crowd"); err != nil {
		return err
	}
	// Without these the kernel takes ports again from TIME_WAIT, and keeps
	// fewer of it on a small machine.
	err = errors.Join(
		c.host.SetSysctl("net.ipv4.tcp_tw_reuse", "0"),
		c.host.SetSysctl("net.ipv4.tcp_max_tw_buckets", "1000000"),
		c.host.SetSysctl("net.ipv4.ip_local_port_range", "10000 65000"))
	if err == nil {
		err = c.host.Do(c.connectAll)
	}
	if err == nil {
		err = c.settle(ctx)
	}
	c.made = time.Now()
	return err
}

// settle waits until the last connection has closed.
func (c *crowd) settle(ctx context.Context) error {
	conn, err := sockdiag.Dial(&sockdiag.Config{NetNS: c.host.NetNS()})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing under way
	want, n := 2*c.connections+c.over+listeners, 0
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if n, err = countSockets(conn.All(ctx, sockdiag.Query{})); err != nil || n == want {
			return err
		}
	}
	return fmt.Errorf("%d sockets, want %d", n, want)
}

// connectAll makes the connections over all listeners in turn.
func (c *crowd) connectAll() error {
	var to [listeners]*unix.SockaddrInet4
	var l [listeners]int
	for i := range listeners {
		to[i] = &unix.SockaddrInet4{Port: firstPort + i, Addr: [4]byte{127, 0, 0, 1}}
		fd, err := c.socket()
		if err == nil {
			err = errors.Join(unix.Bind(fd, to[i]), unix.Listen(fd, 16))
		}
		if l[i] = fd; err != nil {
			return err
		}
	}
	for i := range c.over + c.connections {
		if err := c.connect(l[i%listeners], to[i%listeners], i >= c.over); err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		c.fds = append(c.fds, fd)
	}
	return fd, err
}

// connect makes a connection that stays, or one that is over: a single socket
// in TIME_WAIT.
func (c *crowd) connect(l int, to unix.Sockaddr, stays bool) error {
	client, err := c.socket()
	if err == nil {
		err = unix.Connect(client, to)
	}
	if err != nil {
		return err
	}
	server, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil || stays {
		c.fds = append(c.fds, server)
		return err
	}
	c.fds = c.fds[:len(c.fds)-1]
	return errors.Join(unix.Close(client), unix.Close(server))
}
