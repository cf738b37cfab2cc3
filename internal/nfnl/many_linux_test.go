package nfnl_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestDoMany: answers that came one a datagram are told in order, up to the
// acknowledgement, an overrun, or one that is too large.
func TestDoMany(t *testing.T) {
	answer := func(r nfnltest.Request, n int) (all [][]byte) {
		for i := range n {
			all = append(all, nfnltest.Message(0x100, 0, r.Seq, []byte{byte(i)}))
		}
		return all
	}
	for name, tt := range map[string]struct {
		handle nfnltest.Handler
		told   int
		want   error
	}{
		"all": {func(r nfnltest.Request) [][]byte { return append(answer(r, 100), nfnltest.Acknowledge(r, 0, "", 0)) }, 100, nil},
		"refused": {func(r nfnltest.Request) [][]byte {
			return append(answer(r, 7), nfnltest.Acknowledge(r, syscall.ENOENT, "", 0))
		}, 7, syscall.ENOENT},
		"overrun": {func(r nfnltest.Request) [][]byte { return append(answer(r, 3), nil) }, 3, nfnl.ErrOverrun},
		"too long": {func(r nfnltest.Request) [][]byte {
			return append(answer(r, 2), nfnltest.Message(0x100, 0, r.Seq, make([]byte, 1<<10)))
		}, 2, nfnl.ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := nfnltest.Dial(tt.handle)
			defer c.Close()
			var got []byte
			err := c.DoMany(t.Context(), request, func(m nfnl.Message) error {
				got = append(got, m.Data...)
				return nil
			})
			if !errors.Is(err, tt.want) || err != nil && tt.want == nil || len(got) != tt.told || !slices.IsSorted(got) {
				t.Errorf("%d answers, %v; want %d, %v", len(got), err, tt.told, tt.want)
			}
		})
	}
}

// TestDoManyRoute asks the kernel: for the route to this host, and for its loopback
// interface, of which there is more to tell than has room.
func TestDoManyRoute(t *testing.T) {
	c, err := nfnl.Dial(nfnl.Route, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	told := 0
	count := func(m nfnl.Message) error {
		if told++; m.Type != syscall.RTM_NEWROUTE {
			t.Errorf("answered with type %d", m.Type)
		}
		return nil
	}
	route := nfnl.NewBuilder(syscall.RTM_GETROUTE, 0)
	route.Raw([]byte{syscall.AF_INET, 32, 11: 0}) // struct rtmsg
	route.Bytes(syscall.RTA_DST, []byte{127, 0, 0, 1})
	for range 3 { // in the same memory
		if err := c.DoMany(t.Context(), route.Message(), count); err != nil {
			t.Fatal(err)
		}
	}
	if told != 3 {
		t.Errorf("3 questions were answered %d times", told)
	}
	link := nfnl.NewBuilder(syscall.RTM_GETLINK, 0)
	link.Raw(append(binary.NativeEndian.AppendUint32(make([]byte, 4), 1), make([]byte, 8)...)) // struct ifinfomsg: interface 1
	if err := c.DoMany(t.Context(), link.Message(), count); !errors.Is(err, nfnl.ErrTruncated) {
		t.Errorf("a large answer: %v", err)
	}
}
