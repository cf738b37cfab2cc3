package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

const (
	headerLen = 16 // struct nlmsghdr

	typeError   = 2 // NLMSG_ERROR
	typeDone    = 3 // NLMSG_DONE
	typeOverrun = 4 // NLMSG_OVERRUN

	flagCapped  = 0x100 // NLM_F_CAPPED: the request is not echoed back
	flagAckTLVs = 0x200 // NLM_F_ACK_TLVS: extended acknowledgement follows

	errAttrMsg    = 1 // NLMSGERR_ATTR_MSG
	errAttrOffset = 2 // NLMSGERR_ATTR_OFFS

	maxErrno = 4999 // MAX_ERRNO is 4095; ipset has its own from 4096 on
)

// ErrOverrun tells that the kernel dropped messages because the socket's
// receive buffer was full. The stream goes on after it.
var ErrOverrun = errors.New("netlink receive buffer overrun: messages were lost")

// ErrTruncated tells that a datagram was larger than the receive buffer, or a
// message longer than its datagram or shorter than its kind.
var ErrTruncated = errors.New("netlink message truncated or malformed")

// ErrInterrupted tells that the table changed under a dump, so that rows may be
// missing or twice (NLM_F_DUMP_INTR). Conntrack and sock_diag never say so.
var ErrInterrupted = errors.New("the table changed while it was dumped")

// Error is the kernel's refusal of a request. It answers errors.Is for the
// errno and, through it, fs.ErrNotExist, fs.ErrPermission, fs.ErrExist and
// errors.ErrUnsupported.
type Error struct {
	Errno syscall.Errno
	// Text is the extended acknowledgement's message; empty when the kernel
	// sent none.
	Text string
	// Offset is where in the request the kernel found fault, in bytes from
	// the start of struct nlmsghdr; 0 when it did not say.
	Offset int
}

func (e *Error) Error() string {
	s := e.Errno.Error()
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Offset > 0 {
		s += fmt.Sprintf(" (at byte %d of the request)", e.Offset)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Errno }

// header is struct nlmsghdr.
type header struct {
	len   uint32
	typ   uint16
	flags uint16
	seq   uint32
	port  uint32
}

// split takes the first message off a datagram.
func split(b []byte) (h header, data, rest []byte, err error) {
	if len(b) < headerLen {
		return header{}, nil, nil, ErrTruncated
	}
	h = header{
		len:   binary.NativeEndian.Uint32(b),
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		port:  binary.NativeEndian.Uint32(b[12:]),
	}
	if h.len < headerLen || uint64(h.len) > uint64(len(b)) {
		return header{}, nil, nil, ErrTruncated
	}
	n := int(h.len)
	return h, b[headerLen:n], b[min(align(n), len(b)):], nil
}

// appendMessage frames m with a sequence number. The port is left 0, which
// the kernel takes as "the sender".
func appendMessage(b []byte, m Message, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(headerLen+len(m.Data)))
	b = binary.NativeEndian.AppendUint16(b, m.Type)
	b = binary.NativeEndian.AppendUint16(b, m.Flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, m.Data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// parseError reads the payload of an NLMSG_ERROR: nil for an acknowledgement,
// *Error for a refusal, ErrTruncated for nonsense.
func parseError(flags uint16, b []byte) error {
	if len(b) < 4+headerLen {
		return ErrTruncated
	}
	errno := -int32(binary.NativeEndian.Uint32(b))
	if errno == 0 {
		return nil
	}
	if errno < 0 || errno > maxErrno {
		return fmt.Errorf("%w: %d is no errno", ErrTruncated, errno)
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if flags&flagAckTLVs == 0 {
		return e
	}
	skip := 4 + headerLen
	if flags&flagCapped == 0 {
		skip = 4 + align(int(binary.NativeEndian.Uint32(b[4:])))
	}
	if skip >= 4 && skip <= len(b) {
		e.extend(b[skip:])
	}
	return e
}

// parseDone reads the payload of an NLMSG_DONE, which carries an errno when a
// dump ended early (netlink_dump_done).
func parseDone(flags uint16, b []byte) error {
	if len(b) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(b))
	if errno <= 0 || errno > maxErrno {
		return nil // other families put other things there
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if flags&flagAckTLVs != 0 {
		e.extend(b[4:])
	}
	return e
}

// extend adds the extended acknowledgement attributes.
func (e *Error) extend(b []byte) {
	for a := Walk(b); a.Next(); {
		switch a.Type {
		case errAttrMsg:
			e.Text = strings.ToValidUTF8(a.String(), "?")
		case errAttrOffset:
			e.Offset = int(a.HostU32())
		}
	}
}
