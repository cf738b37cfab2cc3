package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Unix streams the UNIX sockets that q selects, as the kernel tells them: in no
// order. Those of other network namespaces are not told, though a path of the
// file system may lead to them.
//
// A nil error goes with a UnixSocket; a non-nil one, an *OpError, is the last:
// it answers errors.ErrUnsupported where the kernel has no unix_diag. Breaking
// off is free.
func (c *Conn) Unix(ctx context.Context, q UnixQuery) iter.Seq2[UnixSocket, error] {
	return func(yield func(UnixSocket, error) bool) {
		for m, err := range c.nl.Dump(ctx, q.request()) {
			if err == nil && foreign(m, familyUnix) {
				continue
			}
			var s UnixSocket
			if err == nil {
				s, err = decodeUnix(m.Data)
			}
			if err != nil {
				yield(UnixSocket{}, unixError(err))
				return
			}
			if q.matches(&s) && !yield(s, nil) {
				return
			}
		}
	}
}

// unixError explains the kernel's refusals of a dump.
func unixError(err error) error {
	var refused *nfnl.Error
	switch {
	case !errors.As(err, &refused):
	case refused.Errno == syscall.ENOENT: // sock_diag_lock_handler
		err = fmt.Errorf("no sock_diag for UNIX sockets in this kernel (modprobe unix_diag): %w", errors.ErrUnsupported)
	case errors.Is(err, fs.ErrPermission):
		err = refusedByPolicy(err)
	}
	return &OpError{Op: "dump unix", Err: err}
}
