package main

import (
	"context"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/sockdiag"
)

func discardSockets() (outcome, error) { return discardDumps(0) }

// discardInfo asks for INET_DIAG_INFO, too.
func discardInfo() (outcome, error) { return discardDumps(1 << (2 - 1)) }

// discardDumps asks for the TCP sockets of both families and throws the answers
// away.
func discardDumps(extensions byte) (outcome, error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := discardAnswer(unix.NETLINK_SOCK_DIAG, socketRequest(family, extensions)); err != nil {
			return outcome{}, err
		}
	}
	return outcome{}, nil
}

// socketRequest is SOCK_DIAG_BY_FAMILY with NLM_F_DUMP and struct
// inet_diag_req_v2.
func socketRequest(family, extensions byte) []byte {
	const size = unix.NLMSG_HDRLEN + 56
	b := binary.NativeEndian.AppendUint32(nil, size)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, family, unix.IPPROTO_TCP, extensions, 0)
	b = binary.NativeEndian.AppendUint32(b, 0xfff&^1)
	return append(b, make([]byte, size-len(b))...)
}

// withSockets does something with a Conn of the process's own namespace.
func withSockets(do func(context.Context, *sockdiag.Conn) (int, error)) (outcome, error) {
	c, err := sockdiag.Dial(nil)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close() //nolint:errcheck // nothing under way
	n, err := do(context.Background(), c)
	return outcome{entries: n}, err
}

func countSockets(sockets iter.Seq2[sockdiag.Socket, error]) (n int, err error) {
	for _, err := range sockets {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func dumpSockets(q sockdiag.Query) (outcome, error) {
	return withSockets(func(ctx context.Context, c *sockdiag.Conn) (int, error) { return countSockets(c.All(ctx, q)) })
}

func allSockets() (outcome, error) { return dumpSockets(sockdiag.Query{}) }

func allInfo() (outcome, error) { return dumpSockets(sockdiag.Query{Info: true}) }

func collectSockets(q sockdiag.Query) (outcome, error) {
	return withSockets(func(ctx context.Context, c *sockdiag.Conn) (int, error) {
		s, err := c.Snapshot(ctx, q)
		if err != nil {
			return 0, err
		}
		return len(s.Sockets), nil
	})
}

func snapshotSockets() (outcome, error) { return collectSockets(sockdiag.Query{}) }

func snapshotInfo() (outcome, error) { return collectSockets(sockdiag.Query{Info: true}) }

func aggregateSockets() (outcome, error) {
	return withSockets(func(ctx context.Context, c *sockdiag.Conn) (int, error) {
		by := sockdiag.By{Keys: sockdiag.KeyState | sockdiag.KeyPeer}
		g, err := sockdiag.Aggregate(c.All(ctx, sockdiag.Query{}), by)
		if err != nil {
			return 0, err
		}
		return int(g.Total().Sockets), nil
	})
}

// isClient reports whether a connection leads to one of the crowd's listeners.
func isClient(remotePort uint16) bool {
	return remotePort >= firstPort && remotePort < firstPort+listeners
}

// clients yields the clients' ends of the connections.
func clients(ctx context.Context, c *sockdiag.Conn) iter.Seq2[sockdiag.Socket, error] {
	return func(yield func(sockdiag.Socket, error) bool) {
		q := sockdiag.Query{States: sockdiag.States(sockdiag.Established), Family: sockdiag.IPv4}
		for s, err := range c.All(ctx, q) {
			if (err != nil || isClient(s.Remote.Port())) && !yield(s, err) {
				return
			}
		}
	}
}

// destroyInBatches destroys while it dumps.
func destroyInBatches() (outcome, error) {
	return withSockets(func(ctx context.Context, c *sockdiag.Conn) (int, error) {
		var failed error
		report, err := c.DestroyAll(ctx, func(yield func(sockdiag.Socket) bool) {
			for s, err := range clients(ctx, c) {
				if failed = err; err != nil || !yield(s) {
					return
				}
			}
		}, nil)
		if err == nil {
			err = failed
		}
		return report.Destroyed, err
	})
}

func destroyOneByOne() (outcome, error) {
	return withSockets(func(ctx context.Context, c *sockdiag.Conn) (n int, err error) {
		for s, err := range clients(ctx, c) {
			if err == nil {
				err = c.Destroy(ctx, s)
			}
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}
