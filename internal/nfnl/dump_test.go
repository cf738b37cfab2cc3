package nfnl_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

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
