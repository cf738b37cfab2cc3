package nfnl_test

import (
	"context"
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

func note(s string) []byte { return nfnltest.Message(0x100, 0, 0, []byte(s)) }

// noted ranges over n messages and losses.
func noted(t *testing.T, s *nfnl.Stream, n int) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for m, err := range s.All(ctx) {
		switch {
		case errors.Is(err, nfnl.ErrOverrun):
			got = append(got, "overrun")
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, string(m.Data))
		}
		if len(got) == n {
			break
		}
	}
	return got
}

// What comes before the answers is kept, and ranges go on where the last one
// was broken off: among early messages, within a datagram, after a cancel.
func TestStream(t *testing.T) {
	c, peer := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		errno := syscall.Errno(r.Data[0])
		return [][]byte{slices.Concat(note("a"), note("b")), nfnltest.Acknowledge(r, errno, "", 0)}
	})
	defer c.Close()
	s, err := c.Stream(nfnl.ListenConfig{Groups: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Do(nfnl.Message{Data: []byte{0}}); err != nil {
		t.Error(err)
	}
	if err := s.Do(nfnl.Message{Data: []byte{byte(syscall.ENOENT)}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	peer.Multicast(1, slices.Concat(note("c"), note("d")), nil, note("e"))
	if got := append(noted(t, s, 3), noted(t, s, 2)...); !slices.Equal(got, []string{"a", "b", "a", "b", "c"}) {
		t.Errorf("got %q", got)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var got []string
	var last error
	for m, err := range s.All(ctx) {
		if got, last = append(got, string(m.Data)), err; string(m.Data) == "e" {
			time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
		}
	}
	if !slices.Equal(got, []string{"d", "", "e", ""}) || !errors.Is(last, cause) {
		t.Errorf("got %q, %v", got, last)
	}
	for _, err := range s.All(ctx) {
		if !errors.Is(err, cause) {
			t.Errorf("cancelled before: %v", err)
		}
	}
	peer.Multicast(1, note("f"))
	if got := noted(t, s, 1); got[0] != "f" {
		t.Errorf("after a cancelled range: %q", got)
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = c.Close() })
	for range 2 {
		for _, err := range s.All(t.Context()) {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		}
	}
	if n := peer.Sockets(); n != 1 {
		t.Errorf("%d sockets", n)
	}
}

// A loss stays where it was when the range is broken off or cancelled before.
func TestStreamTellsLossInPlace(t *testing.T) {
	c, peer := nfnltest.Dial(nil)
	defer c.Close()
	peer.Crowd()
	s, err := c.Stream(nfnl.ListenConfig{Groups: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	peer.Multicast(1, nil, note("a"), slices.Concat(note("b"), note("c")), note("d"))
	got := append(noted(t, s, 1), noted(t, s, 1)...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for m, err := range s.All(ctx) {
		if err == nil {
			got = append(got, string(m.Data))
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if got = append(got, noted(t, s, 2)...); !slices.Equal(got, []string{"a", "b", "c", "d", "overrun"}) {
		t.Errorf("got %q", got)
	}
}

func TestStreamDatagram(t *testing.T) {
	long := note(strings.Repeat("x", 60_000))
	for _, size := range []int{0, 60_016} {
		c, peer := nfnltest.Dial(nil)
		s, err := c.Stream(nfnl.ListenConfig{Groups: []uint32{1}, Datagram: size})
		if err != nil {
			t.Fatal(err)
		}
		peer.Multicast(1, long)
		for m, err := range s.All(t.Context()) {
			if errors.Is(err, nfnl.ErrTruncated) != (size == 0) || size != 0 && len(m.Data) != 60_000 {
				t.Errorf("Datagram %d: %d bytes, %v", size, len(m.Data), err)
			}
			break
		}
		_ = c.Close()
	}
}
