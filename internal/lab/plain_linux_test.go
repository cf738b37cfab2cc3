package lab_test

import (
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestPlainSockets looks at both ends of a connection: TCP, not MPTCP, and no
// keep-alive.
func TestPlainSockets(t *testing.T) {
	client, server := lab.Two(t)
	l, port := listen(t, server)
	c, err := client.Dial(within(t), "tcp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), port), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, end := range []any{c, s} {
		for opt, want := range map[int]int{unix.SO_PROTOCOL: unix.IPPROTO_TCP, unix.SO_KEEPALIVE: 0} {
			if got, err := option(end.(syscall.Conn), opt); got != want || err != nil {
				t.Errorf("%T option %d: got %d, %v, want %d", end, opt, got, err, want)
			}
		}
	}
}

func option(c syscall.Conn, opt int) (value int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt) })
	if cerr != nil {
		return 0, cerr
	}
	return value, err
}
