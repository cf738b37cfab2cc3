package sockdiag

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// The ports of the zoo.
const (
	portUnread   = 8100 + iota // closed by the client with more to send than the server takes
	portCrossed                // the same, and the server has closed too
	portLast                   // closed by the client, then by a server with more to send
	portOverflow               // a listener with one connection more than it has room for
	portMarked4                // a connection with a congestion control, TOS and priority of its own
	portMarked6                // the same of IPv6, with a traffic class
	portMapped                 // an IPv4 client of an IPv6 listener
)

// newZoo makes a host with the states that a scene does not have.
func newZoo(t *testing.T) *lab.Host {
	t.Helper()
	s := &scene{t, lab.New(t).MustHost(t, "zoo")}
	client, _ := s.pair(portUnread, loopback4, "tcp4")
	s.fill(client)
	s.check(client.CloseWrite())
	client, server := s.pair(portCrossed, loopback6, "tcp6")
	s.fill(client)
	s.check(client.CloseWrite())
	s.check(server.CloseWrite())
	client, server = s.pair(portLast, loopback4, "tcp4")
	s.check(client.CloseWrite())
	_, _ = server.Read(make([]byte, 1)) // the end: the FIN is here
	s.fill(server)
	s.check(server.Close())
	s.overflow()
	s.marked()
	s.listen("tcp", netip.AddrPortFrom(netip.Addr{}, portMapped))
	s.dial(netip.AddrPortFrom(loopback4, portMapped))
	s.await(map[State]int{FinWait1: 1, Closing: 1, FinWait2: 2, LastAck: 1})
	return s.h
}

// overflow makes a listener with a backlog of 1, which holds 2.
func (s *scene) overflow() {
	at := &unix.SockaddrInet4{Addr: loopback4.As4(), Port: portOverflow}
	s.check(s.h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { _ = unix.Close(fd) })
		return errors.Join(unix.Bind(fd, at), unix.Listen(fd, 1))
	}))
	for range 2 {
		s.dial(netip.AddrPortFrom(loopback4, portOverflow))
	}
}

func (s *scene) marked() {
	client, _ := s.pair(portMarked4, loopback4, "tcp4")
	control(s.t, client, func(fd int) error {
		return errors.Join(
			unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 0x28),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 5),
		)
	})
	client, _ = s.pair(portMarked6, loopback6, "tcp6")
	control(s.t, client, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0x20)
	})
}

// TestZoo reads every part of a row in the states that are hard to see.
func TestZoo(t *testing.T) {
	sockets := snapshot(t, dialHost(t, newZoo(t)), Query{Info: true, Memory: true, Congestion: true, TOS: true})
	const local, remote = true, false
	for name, c := range map[string]struct {
		s  Socket
		ok func(s Socket) bool
	}{
		"FIN_WAIT1": {one(t, sockets, portUnread, FinWait1, remote), func(s Socket) bool {
			return s.HasOwner() && s.Shutdown == ShutdownSend && s.SendQueue > 10000 && s.Memory.SndQueued >= s.SendQueue
		}},
		"CLOSING": {one(t, sockets, portCrossed, Closing, remote), func(s Socket) bool {
			return s.HasOwner() && s.Shutdown == ShutdownSend|ShutdownReceive && s.SendQueue > 10000
		}},
		"its peer": {one(t, sockets, portCrossed, FinWait2, local), func(s Socket) bool {
			return s.HasOwner() && s.RecvQueue > 0 && s.Memory.RcvAlloc >= s.RecvQueue
		}},
		"LAST_ACK": {one(t, sockets, portLast, LastAck, local), func(s Socket) bool {
			return !s.HasOwner() && s.SendQueue > 10000 && s.Timer != TimerOff
		}},
		"overflow": {one(t, sockets, portOverflow, Listen, local), func(s Socket) bool {
			return s.AcceptQueue == 2 && s.Backlog == 1
		}},
		"marked": {one(t, sockets, portMarked4, Established, remote), func(s Socket) bool {
			return s.Details() == Details{Congestion: "reno"} && s.Has(FieldTOS|FieldClassID) && !s.Has(FieldTClass) &&
				s.TOS == 0x28 && s.ClassID == 5 && s.Memory.RcvBuf > 0
		}},
		"marked IPv6": {one(t, sockets, portMarked6, Established, remote), func(s Socket) bool {
			return s.Has(FieldTClass) && s.TClass == 0x20 && s.Details().Congestion != ""
		}},
		"mapped": {one(t, sockets, portMapped, Established, local), func(s Socket) bool {
			return s.Mapped() && s.Has(FieldTOS)
		}},
	} {
		if !c.ok(c.s) {
			t.Errorf("%s: %+v %+v", name, c.s, c.s.Details())
		}
	}
	for _, s := range sockets {
		if s.State == Listen && (s.RecvQueue != 0 || s.SendQueue != 0 || s.Backlog == 0) {
			t.Errorf("a listener adds to the bytes queued: %+v", s)
		}
	}
}

// TestZooAgainstSS compares all that ss shows.
func TestZooAgainstSS(t *testing.T) {
	h := newZoo(t)
	c := dialHost(t, h)
	q := Query{Info: true, Memory: true, Congestion: true, TOS: true}
	before, lines, elapsed := settled(t, c, h, q, "-tanOeimH", "--tos")
	states := make(map[State]bool)
	for _, r := range lines {
		s, ok := before[r.Cookie]
		if !ok {
			t.Errorf("ss shows %+v, All does not", r)
			continue
		}
		delete(before, r.Cookie)
		r.compare(t, s, elapsed)
		states[s.State] = true
	}
	if len(before) != 0 || len(states) < 6 {
		t.Errorf("ss does not show %+v; states compared: %v", before, slices.Collect(maps.Keys(states)))
	}
}
