package sockdiag

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// The ports of a scene, one for each kind of socket.
const (
	portQuiet  = 8080 + iota // established, data unread by the client, keepalive, mark
	portIPv6                 // the same over IPv6, without data; a listener for IPv6 only
	portDual                 // a dual-stack listener; an IPv4 client
	portQueued               // a listener that does not accept
	portHalf                 // the client has shut down sending
	portLeft                 // the client has closed, the server not
	portOver                 // both have closed, the client first
	portFull                 // the server does not read what the client sends
	portDevice               // a listener bound to lo
	portSilent               // connects to an address that does not answer
	portFlood                // a handshake whose acknowledgement never comes
	portOwned                // a listener of another user, where there is one
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
	silent    = netip.MustParseAddr("192.0.2.77") // on the link, nobody's
)

// scene is a host with sockets in every state that stays.
type scene struct {
	t *testing.T
	h *lab.Host
}

func newScene(t *testing.T) *lab.Host {
	t.Helper()
	client, server := lab.Two(t)
	s := &scene{t, server}
	s.quiet()
	s.pair(portIPv6, loopback6, "tcp6")
	s.dual()
	s.queued()
	s.closing()
	s.full()
	s.special()
	s.check(s.h.Do(func() error { return s.connectSilent(server.Addr4()) }))
	s.listen("tcp4", netip.AddrPortFrom(server.Addr4(), portFlood))
	s.check(client.Do(func() error {
		return sendSYN(netip.AddrPortFrom(silent, 4321), netip.AddrPortFrom(server.Addr4(), portFlood))
	}))
	s.await(map[State]int{FinWait2: 2, CloseWait: 2, TimeWait: 1, SynSent: 1, SynRecv: 1})
	return server
}

// await returns when what was sent has arrived: beside listeners and
// established connections there is what is wanted.
func (s *scene) await(want map[State]int) {
	s.t.Helper()
	c := dialHost(s.t, s.h)
	q := Query{States: Connected &^ States(Established)}
	got := make(map[State]int)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		clear(got)
		for _, row := range snapshot(s.t, c, q) {
			got[row.State]++
		}
		if maps.Equal(got, want) {
			return
		}
	}
	s.t.Fatalf("the scene has %v, want %v", got, want)
}

func (s *scene) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// keep leaves a socket open until the test ends.
func (s *scene) keep(c interface{ Close() error }) {
	s.t.Cleanup(func() { _ = c.Close() }) // some are closed earlier
}

func (s *scene) listen(network string, local netip.AddrPort) net.Listener {
	s.t.Helper()
	l, err := s.h.Listen(network, local)
	s.check(err)
	s.keep(l)
	return l
}

func (s *scene) dial(to netip.AddrPort) *net.TCPConn {
	s.t.Helper()
	c, err := s.h.Dial(s.t.Context(), "tcp", netip.AddrPort{}, to, nil)
	s.check(err)
	s.keep(c)
	return c.(*net.TCPConn)
}

// pair makes a connection to a new listener.
func (s *scene) pair(port uint16, addr netip.Addr, network string) (client, server *net.TCPConn) {
	s.t.Helper()
	l := s.listen(network, netip.AddrPortFrom(addr, port))
	client = s.dial(netip.AddrPortFrom(addr, port))
	c, err := l.Accept()
	s.check(err)
	s.keep(c)
	return client, c.(*net.TCPConn)
}

func (s *scene) quiet() {
	client, server := s.pair(portQuiet, loopback4, "tcp4")
	s.check(client.SetKeepAlive(true))
	setsockopt(s.t, client, unix.SO_MARK, 42)
	_, err := client.Write(make([]byte, 5000))
	s.check(err)
	_, err = server.Read(make([]byte, 6000))
	s.check(err)
	_, err = server.Write([]byte("hello"))
	s.check(err)
}

func (s *scene) dual() {
	l := s.listen("tcp", netip.AddrPortFrom(netip.Addr{}, portDual))
	s.dial(netip.AddrPortFrom(loopback4, portDual))
	c, err := l.Accept()
	s.check(err)
	s.keep(c)
}

func (s *scene) queued() {
	s.listen("tcp4", netip.AddrPortFrom(loopback4, portQueued))
	for range 2 {
		s.dial(netip.AddrPortFrom(loopback4, portQueued))
	}
}

func (s *scene) closing() {
	client, _ := s.pair(portHalf, loopback4, "tcp4")
	s.check(client.CloseWrite())
	client, _ = s.pair(portLeft, loopback4, "tcp4")
	s.check(client.Close())
	client, server := s.pair(portOver, loopback4, "tcp4")
	s.check(client.Close())
	_, _ = server.Read(make([]byte, 1)) // the end: the FIN is here
	s.check(server.Close())
}

// full fills the buffers of a connection whose server does not read.
func (s *scene) full() {
	client, server := s.pair(portFull, loopback4, "tcp4")
	s.check(server.SetReadBuffer(4096))
	s.fill(client)
}

// fill writes until the buffers are full.
func (s *scene) fill(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	s.check(err)
	s.check(raw.Control(func(fd uintptr) {
		for block := make([]byte, 64<<10); err == nil; {
			_, err = unix.Write(int(fd), block) // EAGAIN when it is full
		}
	}))
}

func setsockopt(t *testing.T, c syscall.Conn, name, value int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, value) })
}

// control calls fn with the socket of c.
func control(t *testing.T, c syscall.Conn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) })
		err = errors.Join(cerr, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// special makes listeners that take more than an address.
func (s *scene) special() {
	s.check(s.h.Do(func() error {
		return s.listenAs(portDevice, func(fd int) error { return unix.BindToDevice(fd, "lo") })
	}))
	s.check(s.h.Do(func() error {
		if _, err := unix.SetfsuidRetUid(1234); err != nil { // no effect where the user is not mapped
			return err
		}
		return s.listenAs(portOwned, func(int) error { return nil })
	}))
}

// listenAs opens a listener in the namespace and with the rights of the
// calling thread.
func (s *scene) listenAs(port uint16, option func(fd int) error) error {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = option(int(fd)) })
		return errors.Join(cerr, err)
	}}
	c.SetMultipathTCP(false)
	l, err := c.Listen(s.t.Context(), "tcp4", netip.AddrPortFrom(loopback4, port).String())
	if err == nil {
		s.keep(l)
	}
	return err
}

// connectSilent begins to connect to an address that does not answer.
func (s *scene) connectSilent(local netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: silent.As4(), Port: portSilent})
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

// sendSYN opens a handshake that src will never finish.
func sendSYN(src, dst netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ip := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0} // the kernel sums it
	ip = append(append(ip, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[12], tcp[13], tcp[14] = 5<<4, 0x02, 0x40 // data offset, SYN, window
	pseudo := append(append([]byte{}, ip[12:]...), 0, 6, 0, 20)
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	return unix.Sendto(fd, append(ip, tcp...), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()})
}

func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ssOf runs ss in a host and reads what it prints.
func ssOf(t *testing.T, h *lab.Host, args ...string) []ssRow {
	t.Helper()
	lab.Tool(t, "ss")
	out, err := h.Exec(t.Context(), "ss", args...)
	if err != nil {
		t.Skipf("ss of another age: %v", err)
	}
	var rows []ssRow
	for line := range strings.Lines(string(out)) {
		r, err := parseSS(line)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}
