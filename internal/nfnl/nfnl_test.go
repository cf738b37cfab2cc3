package nfnl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

var request = nfnl.Message{Type: 0x101, Data: []byte{2, 0, 0, 0}}

// TestDoWithMultiAnswer is the conversation that hangs mdlayher/netlink from
// v1.10 on: a reply flagged NLM_F_MULTI, and no NLMSG_DONE.
func TestDoWithMultiAnswer(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		return [][]byte{nfnltest.Message(0x100, nfnl.Multi, r.Seq, []byte("row")), nfnltest.Acknowledge(r, 0, "", 0)}
	})
	defer c.Close()
	var got []string
	err := c.Do(t.Context(), request, func(m nfnl.Message) error {
		got = append(got, string(m.Data))
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"row"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExtendedAcknowledge(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		return [][]byte{nfnltest.Acknowledge(r, syscall.EINVAL, "bad attribute", 68)}
	})
	defer c.Close()
	err := c.Do(t.Context(), request, nil)
	kernel, ok := errors.AsType[*nfnl.Error](err)
	if !ok || *kernel != (nfnl.Error{Errno: syscall.EINVAL, Text: "bad attribute", Offset: 68}) {
		t.Fatalf("got %#v", err)
	}
	if want := "invalid argument: bad attribute (at byte 68 of the request)"; kernel.Error() != want {
		t.Errorf("got %q, want %q", kernel, want)
	}
}

// TestUncappedAcknowledge is what a kernel without NETLINK_CAP_ACK sends: the
// whole request comes back before the extended acknowledgement.
func TestUncappedAcknowledge(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		data := binary.NativeEndian.AppendUint32(nil, ^uint32(syscall.EEXIST)+1)
		data = append(data, nfnltest.Message(r.Type, r.Flags, r.Seq, r.Data)...)
		ext := nfnl.NewBuilder(0, 0)
		ext.String(1, "there already")
		return [][]byte{nfnltest.Message(2, 0x200, r.Seq, append(data, ext.Message().Data...))}
	})
	defer c.Close()
	err := c.Do(t.Context(), request, nil)
	if kernel, ok := errors.AsType[*nfnl.Error](err); !ok || kernel.Text != "there already" || !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func TestBatch(t *testing.T) {
	const n = 1000
	sends := 0
	lastSeq := uint32(0)
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Seq != lastSeq+1 {
			sends++
		}
		lastSeq = r.Seq
		if r.Data[0]%10 == 3 {
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		}
		return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
	})
	defer c.Close()
	reqs := make([]nfnl.Message, n)
	for i := range reqs {
		reqs[i] = nfnl.Message{Type: 1, Flags: nfnl.Request, Data: []byte{byte(i % 250)}}
	}
	told := make([]int, n)
	err := c.Batch(t.Context(), reqs, func(i int, err error) {
		told[i]++
		if (i%250)%10 == 3 != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("request %d: %v", i, err)
		}
	})
	if err != nil || slices.Min(told) != 1 || slices.Max(told) != 1 {
		t.Errorf("err %v; told between %d and %d times, want once", err, slices.Min(told), slices.Max(told))
	}
}

func TestBatchBreaksOff(t *testing.T) {
	c, _ := nfnltest.Dial(func(nfnltest.Request) [][]byte { return [][]byte{nil} })
	defer c.Close()
	err := c.Batch(t.Context(), []nfnl.Message{request}, func(int, error) { t.Error("told an outcome") })
	if !errors.Is(err, nfnl.ErrOverrun) || !strings.Contains(err.Error(), "after 0 of 1 requests") {
		t.Errorf("got %v", err)
	}
}

func TestTransaction(t *testing.T) {
	begin, end := nfnl.Message{Type: 0x10}, nfnl.Message{Type: 0x11}
	body := nfnl.Message{Type: 0xa00, Flags: nfnl.Request | nfnl.Ack}
	for name, tt := range map[string]struct {
		fail  uint16
		index int
	}{"whole": {fail: 0x10, index: 0}, "one message": {fail: 0xa00, index: 1}} {
		t.Run(name, func(t *testing.T) {
			c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
				switch {
				case r.Type == tt.fail:
					return [][]byte{nfnltest.Acknowledge(r, syscall.EOPNOTSUPP, "", 0)}
				case r.Flags&nfnl.Ack != 0 && tt.fail != 0x10:
					return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
				}
				return nil
			})
			defer c.Close()
			err := c.Transaction(t.Context(), []nfnl.Message{begin, body, body, end})
			batch, ok := errors.AsType[*nfnl.BatchError](err)
			if !ok || batch.Index != tt.index || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestOverrunKeepsAnswers checks that the answers before an overrun are told,
// and the overrun too.
func TestOverrunKeepsAnswers(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		switch r.Data[0] {
		case 0:
			return [][]byte{nil, nfnltest.Acknowledge(r, 0, "", 0)}
		case 1:
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0), nil}
		}
		return nil
	})
	defer c.Close()
	reqs := []nfnl.Message{{Flags: nfnl.Ack, Data: []byte{0}}, {Flags: nfnl.Ack, Data: []byte{1}}, {Flags: nfnl.Ack, Data: []byte{2}}}
	err := c.Transaction(t.Context(), reqs)
	batch, ok := errors.AsType[*nfnl.BatchError](err)
	if !ok || batch.Index != 1 || !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, nfnl.ErrOverrun) {
		t.Errorf("got %v", err)
	}
}

// TestCloseAndCancel ends every kind of conversation while it waits.
func TestCloseAndCancel(t *testing.T) {
	cause := errors.New("the operator's reason")
	talks := map[string]func(context.Context, *nfnl.Conn) error{
		"do": func(ctx context.Context, c *nfnl.Conn) error { return c.Do(ctx, request, nil) },
		"dump": func(ctx context.Context, c *nfnl.Conn) (last error) {
			for _, err := range c.Dump(ctx, request) {
				last = err
			}
			return last
		},
		"listen": func(ctx context.Context, c *nfnl.Conn) (last error) {
			for _, err := range c.Listen(ctx, nfnl.ListenConfig{Groups: []uint32{1}}) {
				last = err
			}
			return last
		},
		"batch": func(ctx context.Context, c *nfnl.Conn) error {
			return c.Batch(ctx, []nfnl.Message{request}, func(int, error) {})
		},
	}
	for name, talk := range talks {
		t.Run(name, func(t *testing.T) {
			silent := func(nfnltest.Request) [][]byte { return nil }

			c, _ := nfnltest.Dial(silent)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
			if err := talk(ctx, c); !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled while waiting: %v", err)
			}
			if err := talk(ctx, c); !errors.Is(err, cause) {
				t.Errorf("cancelled before: %v", err)
			}

			time.AfterFunc(10*time.Millisecond, func() { _ = c.Close() })
			if err := talk(t.Context(), c); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed while waiting: %v", err)
			}
			if err := talk(t.Context(), c); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed before: %v", err)
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
}
