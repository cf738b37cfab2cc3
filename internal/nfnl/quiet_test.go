package nfnl_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestBatchQuiet answers as the kernel does: refusals always, successes when
// asked to.
func TestBatchQuiet(t *testing.T) {
	const n = 1000
	acks := 0
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		switch {
		case r.Data[0]%10 == 3:
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		case r.Flags&nfnl.Ack != 0:
			acks++
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}
		return [][]byte{nfnltest.Message(1, 0, r.Seq, []byte("a row"))}
	})
	defer c.Close() //nolint:errcheck // nothing under way
	reqs := make([]nfnl.Message, n)
	for i := range reqs {
		reqs[i] = nfnl.Message{Type: 1, Flags: nfnl.Request | nfnl.Ack, Data: []byte{byte(i % 250)}}
	}
	told := make([]int, n)
	err := c.BatchQuiet(t.Context(), reqs, func(i int, err error) {
		told[i]++
		if (i%250)%10 == 3 != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("request %d: %v", i, err)
		}
	})
	if err != nil || slices.Min(told) != 1 || slices.Max(told) != 1 {
		t.Errorf("err %v; told between %d and %d times, want once", err, slices.Min(told), slices.Max(told))
	}
	if acks == 0 || acks > 8 {
		t.Errorf("%d acknowledgements for %d requests, want one for each datagram of 128", acks, n)
	}
}

// TestBatchQuietBreaksOff: silence is no success before the acknowledgement.
func TestBatchQuietBreaksOff(t *testing.T) {
	c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Data[0] == 1 {
			return [][]byte{nfnltest.Acknowledge(r, syscall.EPERM, "", 0), nil}
		}
		return nil
	})
	defer c.Close() //nolint:errcheck // nothing under way
	var reqs []nfnl.Message
	for i := range 3 {
		reqs = append(reqs, nfnl.Message{Type: 1, Flags: nfnl.Request, Data: []byte{byte(i)}})
	}
	var told []int
	err := c.BatchQuiet(t.Context(), reqs, func(i int, err error) {
		told = append(told, i)
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("request %d: %v", i, err)
		}
	})
	if !errors.Is(err, nfnl.ErrOverrun) || !strings.Contains(err.Error(), "after 0 of 3 requests") || !slices.Equal(told, []int{1}) {
		t.Errorf("got %v, told %v", err, told)
	}
}
