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

// collect runs a sequence to its end and returns the payloads and the error.
func collect(t *testing.T, c *nfnl.Conn) (payloads []string, last error) {
	t.Helper()
	for m, err := range c.Dump(t.Context(), request) {
		if err != nil {
			last = err
			continue
		}
		payloads = append(payloads, string(m.Data))
	}
	return payloads, last
}

func TestDump(t *testing.T) {
	data := func(r nfnltest.Request, s string) []byte {
		return nfnltest.Message(0x100, nfnl.Multi, r.Seq, []byte(s))
	}
	tests := []struct {
		name   string
		answer nfnltest.Handler
		want   []string
		err    error
	}{
		{
			name: "several messages in several datagrams",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{slices.Concat(data(r, "a"), data(r, "bb")), data(r, "ccccc"), nfnltest.Done(r.Seq, 0)}
			},
			want: []string{"a", "bb", "ccccc"},
		},
		{
			name: "messages of another conversation are skipped",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{nfnltest.Done(r.Seq-1, 0), nfnltest.Message(0x100, 0, r.Seq+7, []byte("x")),
					slices.Concat(data(r, "a"), nfnltest.Done(r.Seq, 0))}
			},
			want: []string{"a"},
		},
		{
			name: "errno inside DONE",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{data(r, "a"), nfnltest.Done(r.Seq, syscall.ENOENT)}
			},
			want: []string{"a"}, err: fs.ErrNotExist,
		},
		{
			name: "the table changed, as only DONE tells",
			answer: func(r nfnltest.Request) [][]byte {
				done := nfnltest.Done(r.Seq, 0)
				binary.NativeEndian.PutUint16(done[6:], nfnl.Multi|0x10) // NLM_F_DUMP_INTR
				return [][]byte{data(r, "a"), done}
			},
			want: []string{"a"}, err: nfnl.ErrInterrupted,
		},
		{
			name: "refused",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{nfnltest.Acknowledge(r, syscall.EPERM, "", 0)}
			},
			err: fs.ErrPermission,
		},
		{
			name: "a message longer than its datagram",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{slices.Concat(data(r, "a"), data(r, "bbbbbbbb")[:20])}
			},
			want: []string{"a"}, err: nfnl.ErrTruncated,
		},
		{
			name: "a header cut short",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{data(r, "")[:12]}
			},
			err: nfnl.ErrTruncated,
		},
		{
			name: "a datagram larger than the buffer",
			answer: func(r nfnltest.Request) [][]byte {
				return [][]byte{data(r, strings.Repeat("x", nfnl.BufferSize))}
			},
			err: nfnl.ErrTruncated,
		},
		{
			name:   "overrun",
			answer: func(nfnltest.Request) [][]byte { return [][]byte{nil} },
			err:    nfnl.ErrOverrun,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := nfnltest.Dial(tt.answer)
			defer c.Close()
			got, err := collect(t, c)
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) || (tt.err == nil) != (err == nil) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestRequestInsideDump makes a request while a dump is being read: the two
// must not wait for each other, and a socket is used again afterwards.
func TestRequestInsideDump(t *testing.T) {
	c, peer := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == nfnl.DumpAll {
			return [][]byte{nfnltest.Message(0x100, 0, r.Seq, nil), nfnltest.Message(0x100, 0, r.Seq, nil), nfnltest.Done(r.Seq, 0)}
		}
		return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
	})
	defer c.Close()
	rows := 0
	for range 3 {
		for _, err := range c.Dump(t.Context(), request) {
			if err != nil {
				t.Fatal(err)
			}
			rows++
			if err := c.Do(t.Context(), request, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if rows != 6 || peer.Sockets() != 2 {
		t.Errorf("%d rows over %d sockets, want 6 over 2", rows, peer.Sockets())
	}
}

func TestBreakingOffADumpLeavesNothing(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		return [][]byte{nfnltest.Message(0x100, 0, r.Seq, nil), nfnltest.Message(0x100, 0, r.Seq, []byte("late")), nfnltest.Done(r.Seq, 0)}
	})
	defer c.Close()
	for range c.Dump(t.Context(), request) {
		break
	}
	if got, err := collect(t, c); err != nil || len(got) != 2 {
		t.Errorf("after a broken-off dump: %q, %v; want 2 rows", got, err)
	}
}

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

func TestListen(t *testing.T) {
	c, peer := nfnltest.Dial(nil)
	defer c.Close()
	event := func(s string) []byte { return nfnltest.Message(0x100, 0, 0, []byte(s)) }
	cfg := nfnl.ListenConfig{Groups: []uint32{1, 3}, Ready: func() {
		go peer.Multicast(3, event("a"), nil, slices.Concat(event("b"), event("c")))
	}}
	var got []string
	for m, err := range c.Listen(t.Context(), cfg) {
		if over, ok := errors.AsType[*nfnl.Overrun](err); ok && errors.Is(err, nfnl.ErrOverrun) {
			got = append(got, over.Error())
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.Data))
		if len(got) == 4 {
			break
		}
	}
	want := []string{"a", "netlink receive buffer overrun: messages were lost (1 datagrams so far)", "b", "c"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestListenTellsLossInPlace has messages wait in the buffer when it overruns:
// those were sent before the loss. That it fills again means the loss is over.
func TestListenTellsLossInPlace(t *testing.T) {
	event := func(s string) []byte { return nfnltest.Message(0x100, 0, 0, []byte(s)) }
	for name, tt := range map[string]struct {
		meanwhile string // sent when that was read
		want      []string
	}{
		"emptied":      {"", []string{"a", "b", "c", "overrun"}},
		"filled again": {"b", []string{"a", "b", "overrun", "c", "d", "e"}},
		"lost again":   {"c", []string{"a", "b", "c", "overrun", "d", "e"}},
	} {
		c, peer := nfnltest.Dial(nil)
		peer.Crowd()
		cfg := nfnl.ListenConfig{Groups: []uint32{1}, Ready: func() { peer.Multicast(1, nil, event("a"), event("b"), event("c")) }}
		var got []string
		for m, err := range c.Listen(t.Context(), cfg) {
			text := string(m.Data)
			if errors.Is(err, nfnl.ErrOverrun) {
				text = "overrun"
			} else if err != nil {
				t.Fatal(err)
			}
			if text == tt.meanwhile {
				peer.Multicast(1, event("d"), event("e"))
			}
			if got = append(got, text); len(got) == len(tt.want) {
				break
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		_ = c.Close()
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

func TestDumpAllocatesNothingPerMessage(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		var d []byte
		for range 500 {
			d = append(d, nfnltest.Message(0x100, 0, r.Seq, []byte("some payload"))...)
		}
		return [][]byte{d, d, nfnltest.Done(r.Seq, 0)}
	})
	defer c.Close()
	dump := func(limit int) float64 {
		return testing.AllocsPerRun(5, func() {
			n := 0
			for _, err := range c.Dump(t.Context(), request) {
				if n++; err != nil || n == limit {
					break
				}
			}
		})
	}
	if few, all := dump(1), dump(1001); all > few {
		t.Errorf("%v allocations for 1000 messages, %v for 1", all, few)
	}
}
