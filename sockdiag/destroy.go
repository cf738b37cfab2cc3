package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ErrProtected is why a listener, a socket without a peer or an orphan was left
// alone: Destroy never takes one, and DestroyAll only those that DestroyOptions
// names.
var ErrProtected = errors.New("protected: not destroyed unless asked for")

// Destroy ends a connection of TCP, UDP or Raw, whoever has it open (SOCK_DESTROY,
// ss -K). It takes CAP_NET_ADMIN in the user namespace that owns the network
// namespace. UDPLite is asked for too; kernels up to Linux 6.18 at least answer
// that they cannot.
//
// The process gets ECONNABORTED from its next call. The peer of a TCP connection
// gets a RST, but not that of SynRecv. A socket of UDP or Raw is not closed: it
// loses its peer, and works on for a process that takes the error.
//
// The socket is named by its addresses and its Cookie, as a dump has told them.
// Without the cookie the kernel would end whatever answers at these addresses:
// once the connection is gone, the listener. So a socket without a cookie is
// refused.
//
// Errors: fs.ErrNotExist when it is gone, fs.ErrPermission, ErrProtected when
// it is no connection, errors.ErrUnsupported for a protocol, a state or a kernel
// (CONFIG_INET_DIAG_DESTROY, Linux 4.5; TimeWait: Linux 6.0) of which it cannot
// be done.
func (c *Conn) Destroy(ctx context.Context, s Socket) error {
	return c.destroy(ctx, &s, 0)
}

// DestroyAny is Destroy of any socket: also of a listener, with all connections
// that wait for accept(2), of one without a peer, and of an orphan. See
// DestroyOptions.
//
// Of those that share an address without a peer (SO_REUSEPORT), the kernel reaches
// one: the others are errors.ErrUnsupported, and can be tried again once it is gone.
func (c *Conn) DestroyAny(ctx context.Context, s Socket) error {
	return c.destroy(ctx, &s, listener|unconnected|orphan)
}

func (c *Conn) destroy(ctx context.Context, s *Socket, allowed sensitivity) error {
	if err := s.destroyable(allowed); err != nil {
		return &OpError{Op: "destroy", Err: err}
	}
	var b [requestLen]byte
	err := c.nl.Do(ctx, s.exact(destroySocket, b[:]), nil)
	if s.doubtful(err) {
		var found map[uint64]bool
		if found, err = c.find(ctx, []*Socket{s}); err == nil {
			err = s.verdict(found[s.Cookie], syscall.ENOENT)
		}
	}
	if err != nil {
		return &OpError{Op: "destroy", Err: s.explain(err)}
	}
	return nil
}

// sensitivity is what must be asked for by name.
type sensitivity uint8

const (
	listener sensitivity = 1 << iota
	unconnected
	orphan
)

// sensitivity returns what s is beside a connection: 0 for one.
func (s *Socket) sensitivity() sensitivity {
	switch {
	case s.State == Listen:
		return listener
	case s.State == Close, s.State == BoundInactive, s.Remote.Addr().IsUnspecified():
		return unconnected
	case s.Inode != 0 || s.Protocol != TCP:
		return 0
	case orphanStates.Has(s.State) && s.Timer != TimerTimeWait: // that is a small socket's
		return orphan
	}
	return 0
}

// orphanStates are those that a full socket without an owner can be in.
const orphanStates StateSet = 1<<FinWait1 | 1<<FinWait2 | 1<<LastAck | 1<<Closing

var sensitivityNames = map[sensitivity]string{
	listener: "a listener", unconnected: "a socket without a peer", orphan: "a socket that was closed and still sends",
}

// destroyable says why s cannot be asked for, or may not.
func (s *Socket) destroyable(allowed sensitivity) error {
	switch s.Protocol {
	case TCP, UDP, UDPLite, Raw:
	case MPTCP:
		return fmt.Errorf("the kernel does not destroy sockets of mptcp, only their subflows of tcp: %w", errors.ErrUnsupported)
	default:
		return fmt.Errorf("the kernel does not destroy sockets of %v: %w", s.Protocol, errors.ErrUnsupported)
	}
	if s.Cookie == 0 || s.Cookie == ^uint64(0) { // INET_DIAG_NOCOOKIE
		return errors.New("the socket has no cookie: another could be destroyed in its place")
	}
	if !s.Local.IsValid() || !s.Remote.IsValid() || s.Family != IPv6 &&
		(s.Family != IPv4 || !s.Local.Addr().Is4() || !s.Remote.Addr().Is4()) {
		return fmt.Errorf("%v and %v are no addresses of %v", s.Local, s.Remote, s.Family)
	}
	if k := s.sensitivity(); k&^allowed != 0 {
		return fmt.Errorf("%s: %w", sensitivityNames[k], ErrProtected)
	}
	return nil
}

// destroySocket is SOCK_DESTROY.
const destroySocket = 21

// exact writes the request about one socket into b.
func (s *Socket) exact(typ uint16, b []byte) nfnl.Message {
	clear(b)
	b[0], b[1] = uint8(s.Family), uint8(s.Protocol)
	if s.Protocol == Raw {
		b[3] = s.RawProtocol // sdiag_raw_protocol of struct inet_diag_req_raw
	}
	src, dst := s.Local, s.Remote
	if typ == byFamily && (s.Protocol == UDP || s.Protocol == UDPLite) {
		src, dst = dst, src // udp_dump_one: "swapped for historical reasons"
	}
	binary.BigEndian.PutUint16(b[8:], src.Port())
	binary.BigEndian.PutUint16(b[10:], dst.Port())
	s.putAddr(b[12:], src.Addr())
	s.putAddr(b[28:], dst.Addr())
	binary.NativeEndian.PutUint32(b[44:], s.Interface)
	binary.NativeEndian.PutUint32(b[48:], uint32(s.Cookie))
	binary.NativeEndian.PutUint32(b[52:], uint32(s.Cookie>>32))
	return nfnl.Message{Type: typ, Flags: nfnl.Request, Data: b}
}

// putAddr writes an address as sockets of the family have it: that of IPv4 in
// one of IPv6 is mapped again.
func (s *Socket) putAddr(b []byte, a netip.Addr) {
	if s.Family == IPv4 {
		v4 := a.As4()
		copy(b, v4[:])
		return
	}
	v6 := a.As16()
	copy(b, v6[:])
}

// doubtful reports that the kernel's answer does not say whether s is gone.
// Where several sockets share an address (SO_REUSEPORT, raw sockets), the kernel
// looks at one of them only. An orphan is emptied, but kept for ever, by kernels
// before Linux 6.11.
func (s *Socket) doubtful(answer error) bool {
	k := s.sensitivity()
	if errors.Is(answer, fs.ErrNotExist) {
		return s.Protocol != TCP || k&(listener|unconnected) != 0
	}
	return answer == nil && k == orphan
}

var (
	errShadowed = fmt.Errorf("the kernel does not find it behind other sockets of the same address "+
		"(SO_REUSEPORT), or by its address at all: %w", errors.ErrUnsupported)
	errKept = fmt.Errorf("emptied, but kept for ever without an owner, as kernels before Linux 6.11 do: %w",
		errors.ErrUnsupported)
)

// verdict is what a doubtful answer means, once it is known whether the kernel
// still shows s.
func (s *Socket) verdict(shown bool, gone error) error {
	switch {
	case s.sensitivity() == orphan && shown:
		return errKept
	case s.sensitivity() == orphan:
		return nil
	case shown:
		return errShadowed
	}
	return gone
}

// find returns the cookies of the sockets that the kernel shows.
func (c *Conn) find(ctx context.Context, sockets []*Socket) (map[uint64]bool, error) {
	shown := make(map[uint64]bool)
	wanted := make(map[Query]bool)
	for _, s := range sockets {
		shown[s.Cookie], wanted[s.among()] = false, true
	}
	for q := range wanted {
		for row, err := range c.All(ctx, q) {
			if err != nil {
				return nil, err
			}
			if _, ok := shown[row.Cookie]; ok {
				shown[row.Cookie] = true
			}
		}
	}
	return shown, nil
}

// among selects the sockets among which s is, if it is.
func (s *Socket) among() Query {
	q := Query{Protocol: s.Protocol, Family: s.Family}
	switch {
	case s.Protocol != TCP:
	case s.sensitivity() == listener:
		q.States = States(Listen)
	case s.sensitivity() == orphan:
		q.States = orphanStates
	default:
		q.States = States(Close, BoundInactive)
	}
	return q
}

// explain says what the kernel's refusal of s means.
func (s *Socket) explain(err error) error {
	var refused syscall.Errno
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case refused == syscall.EPERM:
		return fmt.Errorf("%w: needs CAP_NET_ADMIN in the user namespace that owns the network namespace "+
			"(run as root, or: setcap cap_net_admin+ep PROGRAM)", err)
	case refused == syscall.EOPNOTSUPP && s.State == TimeWait:
		return fmt.Errorf("%w: TIME_WAIT takes Linux 6.0, and CONFIG_INET_DIAG_DESTROY", err)
	case refused == syscall.EOPNOTSUPP:
		return fmt.Errorf("%w: no CONFIG_INET_DIAG_DESTROY in this kernel, or not for %v", err, s.Protocol)
	case refused == syscall.EINVAL && s.State == Listen: // tcp_abort_override
		return fmt.Errorf("%w: a listener of MPTCP, which is what net.Listen opens, cannot be destroyed: %w",
			err, errors.ErrUnsupported)
	}
	return err
}
