package nfnl_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// terse answers as kernels do: refusals always, and success where it is asked
// for.
func terse(errno func(i byte) syscall.Errno) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte {
		if e := errno(r.Data[0]); e != 0 || r.Flags&nfnl.Ack != 0 {
			return [][]byte{nfnltest.Acknowledge(r, e, "", 0)}
		}
		return nil
	}
}

// numbered are requests that tell their number, below 256.
func numbered(n int) []nfnl.Message {
	reqs := make([]nfnl.Message, n)
	for i := range reqs {
		reqs[i] = nfnl.Message{Type: 1, Flags: nfnl.Request, Data: []byte{byte(i)}}
	}
	return reqs
}

// outcomes runs a batch and returns what was told, in order.
func outcomes(ctx context.Context, c *nfnl.Conn, n int) (order []int, errs []error, err error) {
	errs = make([]error, n)
	err = c.Batch(ctx, numbered(n), func(i int, err error) {
		order = append(order, i)
		errs[i] = err
	})
	return order, errs, err
}

func upTo(n int) []int {
	var v []int
	for i := range n {
		v = append(v, i)
	}
	return v
}

// TestBatchOfTerseKernel checks that silence is success, wherever the refusals
// are.
func TestBatchOfTerseKernel(t *testing.T) {
	const n = 250
	for name, refused := range map[string]func(i byte) bool{
		"none":         func(byte) bool { return false },
		"all":          func(byte) bool { return true },
		"some":         func(i byte) bool { return i%7 == 3 },
		"first":        func(i byte) bool { return i == 0 },
		"last of one":  func(i byte) bool { return i == 127 },
		"first of two": func(i byte) bool { return i == 128 },
		"last":         func(i byte) bool { return i == n-1 },
	} {
		for _, errno := range []syscall.Errno{syscall.ENOENT, syscall.EPERM} {
			answer, asked := terse(func(i byte) syscall.Errno {
				if refused(i) {
					return errno
				}
				return 0
			}), 0
			c, peer := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
				if r.Flags&nfnl.Ack != 0 {
					asked++
				}
				return answer(r)
			})
			order, errs, err := outcomes(t.Context(), c, n)
			if !slices.Equal(order, upTo(n)) || err != nil {
				t.Errorf("%s, %v: told %v, %v", name, errno, order, err)
			}
			if asked != 2 {
				t.Errorf("%s: %d requests ask for an answer, want the last of each datagram", name, asked)
			}
			// A socket that was waited on with a deadline is not used again.
			if n := peer.Sockets(); errno == syscall.EPERM && refused(0) != (n > 1) {
				t.Errorf("%s, %v: %d sockets", name, errno, n)
			}
			for i, err := range errs {
				if refused(byte(i)) != errors.Is(err, errno) || !refused(byte(i)) && err != nil {
					t.Errorf("%s, %v: request %d: %v", name, errno, i, err)
				}
			}
			_ = c.Close()
		}
	}
}

// TestBatchRefusedAsAWhole has a kernel answer the first message alone, as for
// lack of CAP_NET_ADMIN.
func TestBatchRefusedAsAWhole(t *testing.T) {
	seen := 0
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if seen++; r.Data[0] > 0 {
			return nil
		}
		return [][]byte{nfnltest.Acknowledge(r, syscall.EPERM, "", 0)}
	})
	defer c.Close()
	order, errs, err := outcomes(t.Context(), c, 200)
	if !slices.Equal(order, upTo(128)) || !errors.Is(err, fs.ErrPermission) || seen != 128 {
		t.Errorf("told %v, %v, and sent %d", order, err, seen)
	}
	for i := range 128 {
		if !errors.Is(errs[i], fs.ErrPermission) {
			t.Errorf("request %d: %v", i, errs[i])
		}
	}
}

// TestBatchOverrunIsNoSuccess loses answers: those before a refusal that was
// read may be among them.
func TestBatchOverrunIsNoSuccess(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		switch r.Data[0] {
		case 0:
			return [][]byte{nil}
		case 5, 6:
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		}
		return nil
	})
	defer c.Close()
	order, _, err := outcomes(t.Context(), c, 10)
	if !slices.Equal(order, []int{5, 6}) || !errors.Is(err, nfnl.ErrOverrun) {
		t.Errorf("told %v, %v", order, err)
	}
}

// TestBatchCancelled checks that what was answered is told even so.
func TestBatchCancelled(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Data[0] == 3 {
			time.AfterFunc(5*time.Millisecond, func() { cancel(cause) })
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		}
		return nil
	})
	defer c.Close()
	order, errs, err := outcomes(ctx, c, 10)
	if !slices.Equal(order, upTo(4)) || errs[2] != nil || !errors.Is(errs[3], fs.ErrNotExist) || !errors.Is(err, cause) {
		t.Errorf("told %v %v, %v", order, errs, err)
	}
}

// TestBatchRows checks that each row comes with the number of its request, before
// the outcome.
func TestBatchRows(t *testing.T) {
	const n = 200
	c, _ := nfnltest.Dial(func(r nfnltest.Request) (answer [][]byte) {
		if r.Data[0]%3 == 0 {
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		}
		answer = append(answer, nfnltest.Message(7, nfnl.Multi, r.Seq, r.Data))
		if r.Flags&nfnl.Ack != 0 {
			answer = append(answer, nfnltest.Acknowledge(r, 0, "", 0))
		}
		return answer
	})
	defer c.Close()
	rows := make([]int, n)
	err := c.BatchRows(t.Context(), numbered(n), func(i int, m nfnl.Message) error {
		if rows[i]++; m.Type != 7 || m.Data[0] != byte(i) {
			t.Errorf("request %d: %v", i, m)
		}
		return nil
	}, func(i int, err error) {
		if errors.Is(err, fs.ErrNotExist) != (i%3 == 0) || (rows[i] == 1) != (i%3 != 0) {
			t.Errorf("request %d: %v, %d rows", i, err, rows[i])
		}
	})
	if err != nil {
		t.Error(err)
	}
	unread := errors.New("unreadable")
	err = c.BatchRows(t.Context(), numbered(n), func(int, nfnl.Message) error { return unread }, func(int, error) {})
	if !errors.Is(err, unread) {
		t.Errorf("got %v", err)
	}
}

// TestBuilderAgain makes requests in the memory of an earlier one.
func TestBuilderAgain(t *testing.T) {
	var b nfnl.Builder
	for i := range 3 {
		b.Netfilter(1, uint8(i), nfnl.Create, 2)
		b.Nested(4, func() { b.U16(5, 6) })
		want := nfnl.NewNetfilter(1, uint8(i), nfnl.Create, 2)
		want.Nested(4, func() { want.U16(5, 6) })
		if got, want := b.Message(), want.Message(); !slices.Equal(got.Data, want.Data) || got.Type != want.Type || got.Flags != want.Flags {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	b.Bytes(1, make([]byte, 1<<16))
	b.Netfilter(1, 0, 0, 2)
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte { return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)} })
	defer c.Close()
	if err := c.Do(t.Context(), b.Message(), nil); err != nil {
		t.Errorf("an earlier request's fault: %v", err)
	}
}
