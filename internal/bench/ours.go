package main

import (
	"context"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/conntrack"
)

// discard asks for the whole table and throws the answer away.
func discard() (outcome, error) {
	return outcome{}, discardAnswer(unix.NETLINK_NETFILTER, dumpRequest())
}

func discardAnswer(protocol int, request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is owed to it
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || endsDump(buf[:n]) {
			return err
		}
	}
}

// dumpRequest is IPCTNL_MSG_CT_GET with NLM_F_DUMP for all families.
func dumpRequest() []byte {
	const size = unix.NLMSG_HDRLEN + 4
	b := binary.NativeEndian.AppendUint32(nil, size)
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_CTNETLINK<<8|1)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	return append(b, make([]byte, size-len(b))...)
}

// endsDump reports whether the last message is an NLMSG_DONE, which has an
// errno of 4 bytes.
func endsDump(b []byte) bool {
	const size = unix.NLMSG_HDRLEN + 4
	if len(b) < size {
		return false
	}
	last := b[len(b)-size:]
	return binary.NativeEndian.Uint32(last) == size && binary.NativeEndian.Uint16(last[4:]) == unix.NLMSG_DONE
}

// with does something with a Conn of the process's own namespace.
func with(do func(context.Context, *conntrack.Conn) (int, error)) (outcome, error) {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close() //nolint:errcheck // nothing under way
	n, err := do(context.Background(), c)
	return outcome{entries: n}, err
}

func count[T any](all iter.Seq2[T, error]) (n int, err error) {
	for _, err := range all {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func dumpAll() (outcome, error) {
	return with(func(ctx context.Context, c *conntrack.Conn) (int, error) { return count(c.All(ctx, nil)) })
}

func dumpParallel() (outcome, error) {
	return with(func(ctx context.Context, c *conntrack.Conn) (int, error) { return count(c.Parallel(ctx, nil)) })
}

func dumpSnapshot() (outcome, error) {
	return with(func(ctx context.Context, c *conntrack.Conn) (int, error) {
		s, err := c.Snapshot(ctx, nil)
		if err != nil {
			return 0, err
		}
		return len(s.Flows), nil
	})
}

// deleteInBatches deletes while it dumps.
func deleteInBatches() (outcome, error) {
	return with(func(ctx context.Context, c *conntrack.Conn) (int, error) {
		var failed error
		report, err := c.DeleteAll(ctx, func(yield func(conntrack.Flow) bool) {
			for f, err := range c.All(ctx, nil) {
				if failed = err; err != nil || !yield(f) {
					return
				}
			}
		}, nil)
		if err == nil {
			err = failed
		}
		return report.Deleted, err
	})
}

func deleteOneByOne() (outcome, error) {
	return with(func(ctx context.Context, c *conntrack.Conn) (n int, err error) {
		for f, err := range c.All(ctx, nil) {
			if err == nil {
				err = c.Delete(ctx, f)
			}
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}
