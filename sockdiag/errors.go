package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// OpError is the error of a call of this package. It answers errors.Is for
//
//   - net.ErrClosed after Close;
//   - the context's error when that ended the call;
//   - fs.ErrNotExist when the network namespace's path is gone, or the socket to
//     destroy, or the process;
//   - fs.ErrPermission when the kernel refuses, the text naming what it takes;
//   - errors.ErrUnsupported when the kernel has no sock_diag for the protocol, the
//     text naming the module to load, or cannot destroy such a socket, and on every
//     system but Linux;
//   - ErrProtected when a socket may be destroyed only if asked for;
//   - ErrOverrun, among closed sockets, when some were lost.
type OpError struct {
	// Op is what was tried: "dial", "dump tcp IPv4", "destroy", "closed",
	// "owners", "cgroups", "descriptors", "close".
	Op string
	// Err is why it failed.
	Err error
}

func (e *OpError) Error() string { return "sockdiag: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *OpError) Unwrap() error { return e.Err }

// dialError says which capability a refused namespace takes. That of entering
// it is named by nfnl; a path is refused before.
func dialError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (another user's process takes CAP_SYS_PTRACE)", err)
	}
	return &OpError{Op: "dial", Err: err}
}

// dumpError explains the kernel's refusals of a dump.
func dumpError(q Query, f Family, err error) error {
	var refused *nfnl.Error
	var explained *permission
	switch {
	case errors.As(err, &explained), !errors.As(err, &refused):
	case refused.Errno == syscall.ENOENT:
		// inet_diag_lock_handler and sock_diag_lock_handler, when the module
		// is missing. The errno is hidden: it would answer fs.ErrNotExist,
		// which is a namespace's.
		err = fmt.Errorf("no sock_diag for %v in this kernel (modprobe %s): %w",
			q.protocol(), q.protocol().module(), errors.ErrUnsupported)
	case errors.Is(err, fs.ErrPermission):
		err = refusedByPolicy(err)
	}
	return &OpError{Op: q.op() + " " + f.String(), Err: err}
}

// explain says what the kernel's refusal of bytecode with a condition on marks
// means: without the capability it tells no marks either, so that the condition
// would find nothing (inet_diag_bc_audit).
func (d *DumpPlan) explain(err error) error {
	if d.used&optionalMark != 0 && errors.Is(err, fs.ErrPermission) {
		return &permission{fmt.Errorf("%w: a condition on marks takes CAP_NET_ADMIN in the user namespace "+
			"that owns the network namespace", err)}
	}
	return err
}

// permission is a refusal that is explained.
type permission struct{ error }

func (e *permission) Unwrap() error { return e.error }

// refusedByPolicy explains a dump that was refused: the kernel itself lets
// everybody dump.
func refusedByPolicy(err error) error {
	return fmt.Errorf("%w (refused by a security module or seccomp filter: "+
		"allow netlink_tcpdiag_socket nlmsg_read, or run with CAP_NET_ADMIN)", err)
}

// module names the kernel module that dumps a protocol.
func (p Protocol) module() string {
	switch p {
	case UDPLite:
		return "udp_diag"
	case Raw, UDP, SCTP, MPTCP, TCP:
		return p.String() + "_diag"
	}
	return "inet_diag"
}
