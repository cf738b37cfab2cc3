package conntrack

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ErrOverrun tells that events were lost because the receive buffer was full.
// It is reported among the events, by an *Overrun, and the stream goes on after
// it.
var ErrOverrun = nfnl.ErrOverrun

// Overrun is the error that answers to ErrOverrun. It comes where the loss was,
// after all events from before it. Its Drops is how many events the kernel has
// dropped on this socket so far, for all losses together; those that it had no
// memory for at all are not counted.
type Overrun = nfnl.Overrun

// OpError is a failed operation. What it wraps answers errors.Is for
//
//   - fs.ErrNotExist: no such entry, or Config.NetNS is gone
//   - fs.ErrExist: Create met an entry of the same tuple
//   - fs.ErrPermission: CAP_NET_ADMIN is missing
//   - errors.ErrUnsupported: the kernel has no ctnetlink, or not this part
//   - net.ErrClosed: the Conn was closed
//   - the context's error, and the kernel's errno
type OpError struct {
	Op  string // "dump", "get", "delete", …
	Err error
}

func (e *OpError) Error() string { return "conntrack: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// opError wraps err; nil stays nil. It adds what the errno alone does not
// tell: the capability, or the module.
func opError(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case op != "dial" && errors.Is(err, syscall.EPERM): // that of dial names its own capability
		err = fmt.Errorf("%w: needs CAP_NET_ADMIN in the user namespace that owns the network namespace "+
			"(run as root, or: setcap cap_net_admin+ep PROGRAM)", err)
	case plainRequests[op] && errors.Is(err, syscall.EINVAL):
		// nfnetlink_rcv_msg answers EINVAL for a subsystem that is not there.
		err = fmt.Errorf("%w: no ctnetlink in this kernel: %w (modprobe nf_conntrack_netlink)",
			err, errors.ErrUnsupported)
	}
	return &OpError{Op: op, Err: err}
}

// plainRequests are the operations whose requests hold nothing that could be
// invalid.
var plainRequests = map[string]bool{
	"dump": true, "explain": true, "zero counters": true, "flush": true,
	"stats": true, "usage": true, "dying": true, "unconfirmed": true,
	"expectations": true, "flush expectations": true,
}
