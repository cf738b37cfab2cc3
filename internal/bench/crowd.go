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
	connections, over int           // to make: open ones, of two sockets, and ones in TIME_WAIT
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

// openCrowd is for n sockets: a half are both ends of connections, as far as
// files go, the others in TIME_WAIT, where the kernel keeps them a minute.
func openCrowd(n int) (place, error) {
	most, err := files()
	c := &crowd{fresh: 20 * time.Second, connections: min(n/4, most)}
	c.over = max(1, n-listeners-2*c.connections)
	return c, err
}

// openPairs is for n/25 connections, to be destroyed at the client's end.
func openPairs(n int) (place, error) {
	most, err := files()
	n = max(1, n/25)
	return &crowd{connections: min(n, most)}, err
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
	if c.destructive() {
		return fmt.Sprintf("%d TCP connections, destroyed at the client's end", c.size())
	}
	return fmt.Sprintf("%d TCP sockets: %d in TIME_WAIT, else both ends of connections that wait for accept(2)",
		c.size(), c.over)
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
	// Without these the kernel takes ports again from TIME_WAIT, keeps fewer of
	// it on a small machine, and drops connections that nobody accepts.
	err = errors.Join(
		c.host.SetSysctl("net.ipv4.tcp_tw_reuse", "0"),
		c.host.SetSysctl("net.ipv4.tcp_max_tw_buckets", "1000000"),
		c.host.SetSysctl("net.core.somaxconn", "32768"),
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
			err = errors.Join(unix.Bind(fd, to[i]), unix.Listen(fd, 1<<15))
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

// connect makes a connection that stays, and needs one open file as nobody
// accepts it; or one that is over: a single socket in TIME_WAIT.
func (c *crowd) connect(l int, to unix.Sockaddr, stays bool) error {
	client, err := c.socket()
	if err == nil {
		err = unix.Connect(client, to)
	}
	if err != nil || stays {
		return err
	}
	server, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	c.fds = c.fds[:len(c.fds)-1]
	return errors.Join(unix.Close(client), unix.Close(server))
}
