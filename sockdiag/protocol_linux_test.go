package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// The ports of datagram sockets.
const (
	portPlain = 8200 + iota // unconnected, of both families at once; data unread, and dropped
	portPeer                // connected to portPlain
	portBoth                // of IPv6 and IPv4, connected to an IPv4 address
	portReuse               // two sockets with SO_REUSEPORT
)

// datagrams makes sockets of a protocol that looks like UDP.
func (s *scene) datagrams(proto int) {
	s.bound(proto, portPlain, loopback4)
	s.bound(proto, portPlain, loopback6)
	peer := s.bound(proto, portPeer, loopback4)
	plain := &unix.SockaddrInet4{Addr: loopback4.As4(), Port: portPlain}
	s.check(unix.Connect(peer, plain))
	_, err := unix.Write(peer, make([]byte, 100))
	s.check(err)
	both := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, proto)
	s.check(errors.Join(
		unix.SetsockoptInt(both, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
		unix.Bind(both, &unix.SockaddrInet6{Port: portBoth}),
		unix.Connect(both, &unix.SockaddrInet6{Addr: netip.AddrFrom16(loopback4.As16()).As16(), Port: portPlain}),
	))
	for range 2 {
		fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, proto)
		s.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		s.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4(), Port: portReuse}))
	}
}

// socket opens a socket of the host.
func (s *scene) socket(family, kind, proto int) (fd int) {
	s.t.Helper()
	s.check(s.h.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
		return err
	}))
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// bound opens a datagram socket with an address.
func (s *scene) bound(proto, port int, a netip.Addr) int {
	s.t.Helper()
	if a.Is4() {
		fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, proto)
		s.check(unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4(), Port: port}))
		return fd
	}
	fd := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, proto)
	s.check(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	s.check(unix.Bind(fd, &unix.SockaddrInet6{Addr: a.As16(), Port: port}))
	return fd
}

// supported takes a snapshot. Where the kernel cannot, it says so, and checks
// that the error does.
func supported(t *testing.T, c *Conn, q Query) []Socket {
	t.Helper()
	snap, err := c.Snapshot(t.Context(), q)
	if err == nil {
		t.Logf("SUPPORT: sock_diag of %v: yes", q.Protocol)
		return snap.Sockets
	}
	var op *OpError
	if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &op) ||
		!strings.Contains(err.Error(), "modprobe "+q.Protocol.module()) {
		t.Fatalf("%v: %v, want errors.ErrUnsupported and the module", q.Protocol, err)
	}
	t.Logf("SUPPORT: sock_diag of %v: no", q.Protocol)
	return nil
}

// creatable reports whether the kernel has sockets of a kind.
func creatable(t *testing.T, name string, kind, proto int) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Logf("no %s sockets: %v", name, err)
		return false
	}
	_ = unix.Close(fd)
	return true
}

// TestDatagrams reads UDP and UDPLite, of both families in one call: those
// without a peer are in Close, and the zero States shows them.
func TestDatagrams(t *testing.T) {
	for p, proto := range map[Protocol]int{UDP: unix.IPPROTO_UDP, UDPLite: unix.IPPROTO_UDPLITE} {
		t.Run(p.String(), func(t *testing.T) {
			if !creatable(t, p.String(), unix.SOCK_DGRAM, proto) {
				return
			}
			s := &scene{t, lab.New(t).MustHost(t, "a")}
			s.datagrams(proto)
			c := dialHost(t, s.h)
			sockets := supported(t, c, Query{Protocol: p, Memory: true, Info: true})
			if sockets == nil {
				return
			}
			checkDatagrams(t, p, sockets)
			for _, q := range []Query{
				{Protocol: p, States: States(Close)}, {Protocol: p, States: States(Established)},
				{Protocol: p, Family: IPv6}, {Protocol: p, LocalPort: portPlain}, {Protocol: p, RemotePort: portPlain},
			} {
				want := 0
				for _, s := range sockets {
					if q.matches(&s, q.rowStates()) && (q.Family == 0 || q.Family == s.Family) {
						want++
					}
				}
				if got := snapshot(t, c, q); len(got) != want || want == 0 {
					t.Errorf("%+v: %d sockets, want %d", q, len(got), want)
				}
			}
		})
	}
}

func checkDatagrams(t *testing.T, p Protocol, sockets []Socket) {
	t.Helper()
	at := make(map[string]Socket)
	for _, s := range sockets {
		key := fmt.Sprintf("%v %v %v>%d", s.Family, s.State, s.Local, s.Remote.Port())
		for at[key].Cookie != 0 {
			key += " again" // SO_REUSEPORT
		}
		at[key] = s
		if s.Protocol != p || !s.HasOwner() || !s.Has(FieldMemory) || s.Has(FieldInfo) || s.Cookie == 0 {
			t.Errorf("%+v", s)
		}
	}
	if len(at) != 6 {
		t.Errorf("%d sockets, want 6: %+v", len(at), at)
	}
	if s := at["IPv4 CLOSE 127.0.0.1:8200>0"]; s.RecvQueue < 100 || s.Memory.RcvAlloc < 100 || s.Memory.RcvBuf == 0 {
		t.Errorf("data unread: %+v", s)
	}
	if s := at["IPv6 CLOSE [::1]:8200>0"]; s.RecvQueue != 0 || !s.V6Only || s.Remote.Addr() != netip.IPv6Unspecified() {
		t.Errorf("the same port of IPv6: %+v", s)
	}
	if s := at["IPv4 ESTABLISHED 127.0.0.1:8201>8200"]; s.Remote.Addr() != loopback4 || s.SendQueue != 0 {
		t.Errorf("connected: %+v", s)
	}
	if s := at["IPv6 ESTABLISHED 127.0.0.1:8202>8200"]; !s.Mapped() {
		t.Errorf("IPv4 of an IPv6 socket: %+v", s)
	}
	a, b := at["IPv4 CLOSE 127.0.0.1:8203>0"], at["IPv4 CLOSE 127.0.0.1:8203>0 again"]
	if a.Cookie == b.Cookie || a.Inode == b.Inode || b.Cookie == 0 {
		t.Errorf("SO_REUSEPORT: %+v, %+v", a, b)
	}
}

// TestDatagramDrops counts what did not fit.
func TestDatagramDrops(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	to := s.bound(unix.IPPROTO_UDP, portPlain, loopback4)
	s.check(unix.SetsockoptInt(to, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)) // the least there is
	from := s.bound(unix.IPPROTO_UDP, portPeer, loopback4)
	for range 20 {
		s.check(unix.Sendto(from, make([]byte, 1000), 0, &unix.SockaddrInet4{Addr: loopback4.As4(), Port: portPlain}))
	}
	got := one(t, snapshot(t, dialHost(t, s.h), Query{Protocol: UDP, Memory: true}), portPlain, Close, true)
	if got.Memory.Drops == 0 || got.Memory.Drops >= 20 || got.RecvQueue == 0 {
		t.Errorf("%d of 20 dropped, %d bytes wait", got.Memory.Drops, got.RecvQueue)
	}
}

// TestDatagramsAgainstSS compares UDP with ss, which knows no UDPLite.
func TestDatagramsAgainstSS(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.datagrams(unix.IPPROTO_UDP)
	c := dialHost(t, s.h)
	before, lines, elapsed := settled(t, c, s.h, Query{Protocol: UDP, Memory: true, TOS: true}, "-uanOemH", "--tos")
	for _, r := range lines {
		s := before[r.Cookie]
		delete(before, r.Cookie)
		r.Protocol = UDP
		r.compare(t, s, elapsed)
	}
	if len(before) != 0 || len(lines) != 6 {
		t.Errorf("ss shows %d sockets, not %+v", len(lines), before)
	}
}

// TestRaw reads raw sockets: the protocol stands in the place of the port.
func TestRaw(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	icmp := s.socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	s.check(unix.Bind(icmp, &unix.SockaddrInet4{Addr: loopback4.As4()}))
	s.socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	own := s.socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	s.check(unix.Connect(own, &unix.SockaddrInet4{Addr: loopback4.As4()}))
	c := dialHost(t, s.h)
	sockets := supported(t, c, Query{Protocol: Raw})
	if sockets == nil {
		return
	}
	got := make(map[uint8]Socket)
	for _, s := range sockets {
		if s.Protocol != Raw || !s.Has(FieldRawProtocol) || !s.HasOwner() || s.Local.Port() != uint16(s.RawProtocol) {
			t.Errorf("%+v", s)
		}
		got[s.RawProtocol] = s
	}
	if len(sockets) != 3 || got[1].State != Close || got[58].Family != IPv6 || got[255].State != Established {
		t.Errorf("%+v", sockets)
	}
	if s := snapshot(t, c, Query{Protocol: Raw, LocalPort: 58}); len(s) != 1 || s[0] != got[58] {
		t.Errorf("raw sockets of ICMPv6: %+v", s)
	}
}

// TestSCTP: there is no module for it on most machines, and the error says so.
func TestSCTP(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	if !creatable(t, "sctp", unix.SOCK_STREAM, unix.IPPROTO_SCTP) {
		if rows := supported(t, dialHost(t, s.h), Query{Protocol: SCTP}); len(rows) != 0 {
			t.Errorf("%+v", rows)
		}
		return
	}
	at := &unix.SockaddrInet4{Addr: loopback4.As4(), Port: portPlain}
	l := s.socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	s.check(errors.Join(unix.Bind(l, at), unix.Listen(l, 3)))
	s.check(unix.Connect(s.socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), at))
	sockets := supported(t, dialHost(t, s.h), Query{Protocol: SCTP, Info: true})
	if sockets == nil {
		return
	}
	listener := one(t, sockets, portPlain, Listen, true)
	associations := 0
	for _, s := range sockets {
		if s.Has(FieldAssociation) && s.State == Established && s.Remote.Addr() == loopback4 {
			associations++
		}
	}
	if listener.Backlog != 3 || associations != 2 {
		t.Errorf("%+v, %d associations, want 2", listener, associations)
	}
}

func reusePort(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(cerr, err)
}

// TestReuseport: listeners that share a port are two.
func TestReuseport(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	l := net.ListenConfig{Control: reusePort}
	l.SetMultipathTCP(false)
	for range 2 {
		s.check(s.h.Do(func() error {
			l, err := l.Listen(context.Background(), "tcp4", netip.AddrPortFrom(loopback4, portReuse).String())
			if err == nil {
				s.keep(l)
			}
			return err
		}))
	}
	snap, err := dialHost(t, s.h).Snapshot(t.Context(), Query{States: States(Listen)})
	s.check(err)
	if len(snap.Sockets) != 2 || snap.Duplicates != 0 || snap.Sockets[0].Local != snap.Sockets[1].Local {
		t.Errorf("%d duplicates, %+v; want two listeners", snap.Duplicates, snap.Sockets)
	}
}
