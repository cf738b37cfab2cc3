package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Dial opens a Conn to a netlink family. A nil config is the zero Config.
//
// Errors: fs.ErrNotExist when Config.NetNS is gone, fs.ErrPermission when it
// may not be entered (CAP_SYS_ADMIN), errors.ErrUnsupported when the kernel
// has no such family.
func Dial(family int, cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	ns, err := openNamespace(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	c, err := NewConn(func() (Socket, error) { return dialSocket(family, ns) })
	if err != nil {
		return nil, errors.Join(err, ns.close())
	}
	c.after = ns.close
	return c, nil
}

// namespace is the network namespace all sockets of a Conn belong to. Its
// file keeps the namespace alive until Close.
type namespace struct {
	file *os.File // nil when /proc is not there: the calling thread's
	path string
}

func openNamespace(path string) (*namespace, error) {
	own := path == ""
	if own {
		path = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(path)
	switch {
	case own && err != nil:
		return &namespace{path: path}, nil
	case err != nil:
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &namespace{file: f, path: path}, nil
}

func (ns *namespace) close() error {
	if ns.file == nil {
		return nil
	}
	return ns.file.Close()
}

// current reports whether the calling thread is in the namespace already:
// entering one takes a capability that being there does not.
func (ns *namespace) current() bool {
	if ns.file == nil {
		return true
	}
	have, err1 := os.Stat("/proc/thread-self/ns/net")
	want, err2 := ns.file.Stat()
	return err1 == nil && err2 == nil && os.SameFile(have, want)
}

// socket is a netlink socket of the kernel.
type socket struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	closed atomic.Bool

	// The arguments and results of one receive; recv is made once, so that
	// receiving allocates nothing.
	buf  []byte
	n    int
	err  error
	from unix.RawSockaddrNetlink
	recv func(fd uintptr) bool

	// The same of receiving many.
	headers  []mmsghdr
	pieces   []piece
	recvMany func(fd uintptr) bool
}

func dialSocket(family int, ns *namespace) (Socket, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cfg := &netlink.Config{}
	if !ns.current() {
		cfg.NetNS = int(ns.file.Fd())
	}
	conn, err := netlink.Dial(family, cfg)
	if err != nil {
		return nil, dialError(family, ns, cfg.NetNS != 0, err)
	}
	s := &socket{conn: conn}
	s.recv = s.recvfrom
	if err := s.setup(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func dialError(family int, ns *namespace, entered bool, err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("netlink family %d: %w: %w", family, err, errors.ErrUnsupported)
	case entered && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("enter network namespace %s: %w (needs CAP_SYS_ADMIN)", ns.path, err)
	}
	return err
}

func (s *socket) setup() (err error) {
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return err
	}
	// Both date from Linux 4.3 and 4.12; without them errors say less.
	_ = s.conn.SetOption(netlink.CapAcknowledge, true)
	_ = s.conn.SetOption(netlink.ExtendedAcknowledge, true)
	return nil
}

// Send makes the send buffer larger for a datagram that it has no room for: as
// large as net.core.wmem_max allows, and without limit with CAP_NET_ADMIN in the
// initial user namespace (SO_SNDBUFFORCE). One that is too large yet is EMSGSIZE.
func (s *socket) Send(b []byte) error {
	err := s.sendto(b)
	if errors.Is(err, unix.EMSGSIZE) && s.conn.SetWriteBuffer(len(b)) == nil {
		err = s.sendto(b)
	}
	return err
}

func (s *socket) sendto(b []byte) error {
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	if werr != nil {
		return s.explain(werr)
	}
	return os.NewSyscallError("sendto", err)
}

// explain names the error of a socket that was closed: the runtime's own
// answers to no exported one.
func (s *socket) explain(err error) error {
	if err != nil && s.closed.Load() {
		return net.ErrClosed
	}
	return err
}

func (s *socket) Receive(b []byte) (int, error) {
	s.buf = b
	for {
		err := s.raw.Read(s.recv)
		switch {
		case err != nil:
			return 0, s.explain(err)
		case errors.Is(s.err, unix.ENOBUFS):
			return 0, ErrOverrun
		case s.err != nil:
			return 0, os.NewSyscallError("recvfrom", s.err)
		case s.from.Pid != 0:
			continue // not from the kernel
		}
		return s.n, nil
	}
}

// recvfrom does one system call. MSG_TRUNC makes it return the datagram's full
// length.
func (s *socket) recvfrom(fd uintptr) bool {
	size := uint32(unsafe.Sizeof(s.from))
	n, errno := uintptr(0), syscall.EINTR
	for errno == unix.EINTR {
		n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(s.buf))), uintptr(len(s.buf)), unix.MSG_TRUNC,
			uintptr(unsafe.Pointer(&s.from)), uintptr(unsafe.Pointer(&size)))
	}
	s.n, s.err = int(n), nil
	if errno != 0 {
		s.n, s.err = 0, errno
	}
	return errno != unix.EAGAIN
}

// piece is what recvmmsg(2) needs for one datagram.
type piece struct {
	buf  unix.Iovec
	from unix.RawSockaddrNetlink
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	n uint32 // length of the datagram
}

func (s *socket) ReceiveMany(b []byte, lens []int) (int, error) {
	s.prepare(b, len(lens))
	if err := s.raw.Read(s.recvMany); err != nil {
		return 0, s.explain(err)
	}
	switch {
	case errors.Is(s.err, unix.ENOBUFS):
		return 0, ErrOverrun
	case s.err != nil:
		return 0, os.NewSyscallError("recvmmsg", s.err)
	}
	for i := range lens[:s.n] {
		if lens[i] = int(s.headers[i].n); s.pieces[i].from.Pid != 0 {
			lens[i] = 0 // not from the kernel
		}
	}
	return s.n, nil
}

// prepare makes b the place for the next n datagrams.
func (s *socket) prepare(b []byte, n int) {
	if len(s.headers) != n {
		s.headers, s.pieces, s.recvMany = make([]mmsghdr, n), make([]piece, n), s.recvmmsg
	}
	size := len(b) / n
	for i := range s.pieces {
		p := &s.pieces[i]
		p.buf.Base = &b[i*size]
		p.buf.SetLen(size)
		h := &s.headers[i].Msghdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.from)), uint32(unsafe.Sizeof(p.from))
		h.Iov = &p.buf
		h.SetIovlen(1)
	}
}

// recvmmsg does one system call.
func (s *socket) recvmmsg(fd uintptr) bool {
	n, errno := uintptr(0), syscall.EINTR
	for errno == unix.EINTR {
		n, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(s.headers))), uintptr(len(s.headers)), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
	}
	s.n, s.err = int(n), nil
	if errno != 0 {
		s.n, s.err = 0, errno
	}
	return errno != unix.EAGAIN
}

func (s *socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetReadBuffer tries SO_RCVBUFFORCE first.
func (s *socket) SetReadBuffer(bytes int) error { return s.explain(s.conn.SetReadBuffer(bytes)) }

func (s *socket) Join(group uint32) error { return s.explain(s.conn.JoinGroup(group)) }

func (s *socket) Memory() (taken, drops uint32, err error) {
	const (
		skMeminfoRmemAlloc = 0 // SK_MEMINFO_RMEM_ALLOC
		skMeminfoDrops     = 8 // SK_MEMINFO_DROPS
	)
	var info [skMeminfoDrops + 1]uint32
	var errno syscall.Errno
	err = s.raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("getsockopt SO_MEMINFO", errno)
	}
	return info[skMeminfoRmemAlloc], info[skMeminfoDrops], err
}

func (s *socket) SetFilter(program []Instruction) error {
	if len(program) == 0 || len(program) > maxProgram {
		return fmt.Errorf("program of %d instructions, want 1 to %d", len(program), maxProgram)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter(in)
	}
	var err error
	cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if cerr != nil {
		return s.explain(cerr)
	}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

func (s *socket) Close() error {
	s.closed.Store(true)
	return s.conn.Close()
}
