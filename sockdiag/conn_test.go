package sockdiag

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// kernel returns a Conn to a fake kernel that answers the dump of each family
// with datagrams.
func kernel(t *testing.T, answer func(f Family, seq uint32) [][]byte) *Conn {
	t.Helper()
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Type != byFamily || r.Flags&nfnl.DumpAll != nfnl.DumpAll || len(r.Data) != requestLen {
			t.Errorf("request of type %d, flags %#x, %d bytes", r.Type, r.Flags, len(r.Data))
		}
		return answer(Family(r.Data[0]), r.Seq)
	})
	c := &Conn{nl: nl}
	t.Cleanup(func() { _ = c.Close() }) // some tests have closed it
	return c
}

// row frames a socket as the kernel does in a dump.
func row(seq uint32, s Socket) []byte {
	return nfnltest.Message(byFamily, nfnl.Multi, seq, encodeSocket(s))
}

func done(seq uint32) []byte { return nfnltest.Done(seq, 0) }

// numbered returns an established socket of family f with cookie n.
func numbered(f Family, n uint64) Socket {
	local := netip.MustParseAddr("192.0.2.1")
	if f == IPv6 {
		local = netip.MustParseAddr("2001:db8::1")
	}
	return Socket{
		Protocol: TCP, Family: f, State: Established, Cookie: n, Inode: uint32(n),
		Local: netip.AddrPortFrom(local, 80), Remote: netip.AddrPortFrom(local.Next(), uint16(n)),
	}
}

// collect ranges over All to its end.
func collect(ctx context.Context, c *Conn, q Query) (sockets []Socket, last error) {
	for s, err := range c.All(ctx, q) {
		if last != nil {
			panic("ranging went on after an error")
		}
		if last = err; err == nil {
			sockets = append(sockets, s)
		}
	}
	return sockets, last
}

func TestAllFamilies(t *testing.T) {
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		one := append(row(seq, numbered(f, 1)), row(seq, numbered(f, 2))...)
		return [][]byte{one, row(seq, numbered(f, 3)), done(seq)}
	})
	v4 := []Socket{numbered(IPv4, 1), numbered(IPv4, 2), numbered(IPv4, 3)}
	v6 := []Socket{numbered(IPv6, 1), numbered(IPv6, 2), numbered(IPv6, 3)}
	for f, want := range map[Family][]Socket{0: slices.Concat(v4, v6), IPv4: v4, IPv6: v6} {
		got, err := collect(t.Context(), c, Query{Family: f})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("family %d: %v, %v", f, got, err)
		}
	}
	var op *OpError
	if got, err := collect(t.Context(), c, Query{Family: 1}); len(got) != 0 || !errors.As(err, &op) {
		t.Errorf("AF_UNIX: %v, %v; want an *OpError", got, err)
	}
}

// TestAllForeign answers with rows nobody asked for: an old kernel that knows
// no filter, or an answer of another kind.
func TestAllForeign(t *testing.T) {
	want := numbered(IPv4, 443)
	c := kernel(t, func(_ Family, seq uint32) [][]byte {
		state, local := want, want
		state.State = Closing
		local.Local = netip.AddrPortFrom(want.Local.Addr(), 81)
		return [][]byte{
			row(seq, numbered(IPv6, 443)), // family
			row(seq, state),
			row(seq, local),
			row(seq, numbered(IPv4, 444)), // remote port
			nfnltest.Message(99, nfnl.Multi, seq, encodeSocket(want)),
			row(seq+1, want), // another request's
			row(seq, want),
			done(seq),
		}
	})
	q := Query{Family: IPv4, States: Connected &^ States(Closing), LocalPort: 80, RemotePort: 443}
	got, err := collect(t.Context(), c, q)
	if err != nil || !slices.Equal(got, []Socket{want}) {
		t.Errorf("%v, %v; want %v alone", got, err, want)
	}
}

func TestAllErrors(t *testing.T) {
	errorMessage := func(seq uint32, errno syscall.Errno) []byte {
		return nfnltest.Acknowledge(nfnltest.Request{Seq: seq}, errno, "", 0)
	}
	good := func(seq uint32) []byte { return row(seq, numbered(IPv4, 1)) }
	for name, c := range map[string]struct {
		answer func(seq uint32) [][]byte
		rows   int
		is     error
		isNot  error
		text   string
	}{
		"module missing": {
			answer: func(seq uint32) [][]byte { return [][]byte{errorMessage(seq, syscall.ENOENT)} },
			is:     errors.ErrUnsupported, isNot: fs.ErrNotExist, text: "modprobe tcp_diag",
		},
		"module missing, told at the end": {
			answer: func(seq uint32) [][]byte { return [][]byte{nfnltest.Done(seq, syscall.ENOENT)} },
			is:     errors.ErrUnsupported, isNot: fs.ErrNotExist, text: "modprobe tcp_diag",
		},
		"refused": {
			answer: func(seq uint32) [][]byte { return [][]byte{errorMessage(seq, syscall.EPERM)} },
			is:     fs.ErrPermission, text: "CAP_NET_ADMIN",
		},
		"refused by SELinux": {
			answer: func(seq uint32) [][]byte { return [][]byte{errorMessage(seq, syscall.EACCES)} },
			is:     fs.ErrPermission, text: "netlink_tcpdiag_socket",
		},
		"ended by an errno": {
			answer: func(seq uint32) [][]byte { return [][]byte{good(seq), nfnltest.Done(seq, syscall.ENOMEM)} },
			rows:   1, is: syscall.ENOMEM,
		},
		"message longer than its datagram": {
			answer: func(seq uint32) [][]byte { return [][]byte{good(seq), good(seq)[:50]} },
			rows:   1, is: nfnl.ErrTruncated,
		},
		"datagram longer than the buffer": {
			answer: func(seq uint32) [][]byte { return [][]byte{bytes.Repeat(good(seq), 400)} },
			is:     nfnl.ErrTruncated,
		},
		"short row": {
			answer: func(seq uint32) [][]byte {
				return [][]byte{good(seq), nfnltest.Message(byFamily, nfnl.Multi, seq, encodeSocket(established)[:20])}
			},
			rows: 1, is: nfnl.ErrTruncated,
		},
		"empty row": {
			answer: func(seq uint32) [][]byte { return [][]byte{nfnltest.Message(byFamily, nfnl.Multi, seq, nil)} },
			is:     nfnl.ErrTruncated,
		},
		"overrun": {
			answer: func(uint32) [][]byte { return [][]byte{nil} },
			is:     nfnl.ErrOverrun,
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := kernel(t, func(_ Family, seq uint32) [][]byte { return c.answer(seq) })
			got, err := collect(t.Context(), conn, Query{})
			if len(got) != c.rows || !errors.Is(err, c.is) {
				t.Errorf("%d rows, %v; want %d rows, %v", len(got), err, c.rows, c.is)
			}
			var op *OpError
			if !errors.As(err, &op) || !strings.HasPrefix(err.Error(), "sockdiag: dump tcp IPv4: ") {
				t.Errorf("%v: want an *OpError of dump tcp IPv4", err)
			}
			if !strings.Contains(err.Error(), c.text) || c.isNot != nil && errors.Is(err, c.isNot) {
				t.Errorf("%v: want %q and not %v", err, c.text, c.isNot)
			}
			if snap, err := conn.Snapshot(t.Context(), Query{}); snap != nil || !errors.Is(err, c.is) {
				t.Errorf("Snapshot: %v, %v", snap, err)
			}
		})
	}
}

// TestAllSecondFamilyFails: what came before the error stays told.
func TestAllSecondFamilyFails(t *testing.T) {
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		if f == IPv6 {
			return [][]byte{nfnltest.Done(seq, syscall.ENOENT)}
		}
		return [][]byte{row(seq, numbered(f, 1)), done(seq)}
	})
	got, err := collect(t.Context(), c, Query{})
	if len(got) != 1 || !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("%v, %v", got, err)
	}
}

// unfinished answers with one row and never an end.
func unfinished(f Family, seq uint32) [][]byte { return [][]byte{row(seq, numbered(f, 1))} }

func TestAllCancelled(t *testing.T) {
	c := kernel(t, unfinished)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rows := 0
	for _, err := range c.All(ctx, Query{}) {
		if err == nil {
			rows++
			cancel()
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
	if rows != 1 {
		t.Errorf("%d rows, want 1", rows)
	}
	if got, err := collect(ctx, c, Query{}); len(got) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("begun cancelled: %v, %v", got, err)
	}
}

func TestAllClosed(t *testing.T) {
	c := kernel(t, unfinished)
	rows := 0
	for _, err := range c.All(t.Context(), Query{}) {
		if err == nil {
			rows++
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			continue
		}
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed under way: %v, want net.ErrClosed", err)
		}
	}
	if rows != 1 {
		t.Errorf("%d rows, want 1", rows)
	}
	if _, err := collect(t.Context(), c, Query{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("All after Close: %v", err)
	}
	if _, err := c.Snapshot(t.Context(), Query{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Snapshot after Close: %v", err)
	}
	var op *OpError
	if err := c.Close(); !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
		t.Errorf("second Close: %v", err)
	}
}

// TestAllBroken breaks off in the first family: the second is not asked for,
// and the rest of the first does not reach the next call.
func TestAllBroken(t *testing.T) {
	asked := make(chan Family, 8)
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		asked <- f
		return [][]byte{row(seq, numbered(f, 1)), row(seq, numbered(f, 2)), done(seq)}
	})
	for range 2 {
		for s, err := range c.All(t.Context(), Query{}) {
			if err != nil || s != numbered(IPv4, 1) {
				t.Errorf("%v, %v", s, err)
			}
			break
		}
	}
	if len(asked) != 2 || <-asked != IPv4 || <-asked != IPv4 {
		t.Error("want two dumps, both of IPv4")
	}
}

// TestAllNested makes a call inside the loop over another.
func TestAllNested(t *testing.T) {
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		return [][]byte{row(seq, numbered(f, 1)), row(seq, numbered(f, 2)), done(seq)}
	})
	rows := 0
	for _, err := range c.All(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		inner, err := collect(t.Context(), c, Query{Family: IPv6})
		if err != nil {
			t.Fatal(err)
		}
		rows += len(inner)
	}
	if rows != 8 {
		t.Errorf("%d rows of the inner loops, want 8", rows)
	}
}
