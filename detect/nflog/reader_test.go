package nflog

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// fake is a source that logs one packet for each number it is given.
type fake struct {
	numbers chan uint32
	stopped chan struct{} // closed when its goroutine has ended
	once    sync.Once
}

func (f *fake) Close() error {
	f.once.Do(func() { close(f.numbers) })
	return nil
}

// overrunMark among the numbers is an overrun.
const overrunMark = 1 << 31

func newFake(numbers ...uint32) (*fake, *Reader) {
	f := &fake{numbers: make(chan uint32, max(len(numbers), 1)), stopped: make(chan struct{})}
	for _, n := range numbers {
		f.numbers <- n
	}
	r := newReader()
	r.source = f
	go func() {
		defer close(f.stopped)
		for n := range f.numbers {
			ok := false
			if n == overrunMark {
				ok = r.overrun()
			} else {
				ok = r.deliver(Packet{Seq: n}, true)
			}
			if !ok {
				return
			}
		}
	}()
	return f, r
}

func (f *fake) waitStopped(t *testing.T) {
	t.Helper()
	select {
	case <-f.stopped:
	case <-time.After(5 * time.Second):
		t.Fatal("the source's goroutine did not end")
	}
}

func closeReader(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestPacketsAndLosses(t *testing.T) {
	f, r := newFake(0, 1, overrunMark, 4, 5)
	var got []any
	for p, err := range r.Packets(t.Context()) {
		var lost *Lost
		switch {
		case errors.As(err, &lost):
			got = append(got, *lost)
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, p.Seq)
		}
		if p.Seq == 5 {
			break
		}
	}
	want := []any{uint32(0), uint32(1), Lost{Overrun: true}, Lost{Count: 2}, uint32(4), uint32(5)}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("event %d: got %v, want %v", i, got[i], want[i])
		}
	}
	closeReader(t, r)
	f.waitStopped(t)
}

// Breaking off loses nothing: the next range goes on with the next packet.
func TestBreakAndGoOn(t *testing.T) {
	f, r := newFake(0, 1, 2, 3, 4, 5, 6, 7)
	for want := range uint32(8) {
		for p, err := range r.Packets(t.Context()) {
			if err != nil || p.Seq != want {
				t.Fatalf("got packet %d, %v, want %d", p.Seq, err, want)
			}
			break
		}
	}
	closeReader(t, r)
	f.waitStopped(t)
}

// Nothing is taken from the source that was not asked for, but for the one
// packet in its hand.
func TestBackPressure(t *testing.T) {
	f, r := newFake(0, 1, 2, 3, 4, 5, 6, 7)
	for range r.Packets(t.Context()) {
		break
	}
	time.Sleep(20 * time.Millisecond)
	if n := len(f.numbers); n != 6 {
		t.Errorf("%d packets are left in the source, want 6", n)
	}
	closeReader(t, r)
	f.waitStopped(t)
}

func TestCancel(t *testing.T) {
	f, r := newFake()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	for range 2 { // the second time, it is cancelled from the start
		wantLast(t, ctx, r, cause)
	}
	f.numbers <- 0 // the reader is as good as before
	for p, err := range r.Packets(t.Context()) {
		if err != nil {
			t.Fatalf("after a cancelled range: %v, %v", p, err)
		}
		break
	}
	closeReader(t, r)
	f.waitStopped(t)
}

// wantLast ranges and expects one error and the end.
func wantLast(t *testing.T, ctx context.Context, r *Reader, want error) {
	t.Helper()
	n := 0
	for _, err := range r.Packets(ctx) {
		if n++; n > 1 {
			t.Fatalf("ranging went on after a final error, with %v", err)
		}
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if n != 1 {
		t.Errorf("the range ended without an error, want %v", want)
	}
}

func TestClose(t *testing.T) {
	f, r := newFake()
	time.AfterFunc(10*time.Millisecond, func() { closeReader(t, r) })
	for range 2 {
		wantLast(t, t.Context(), r, net.ErrClosed)
	}
	if err := r.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want net.ErrClosed", err)
	}
	f.waitStopped(t)
}

// Close lets a source go that waits for its packet to be taken.
func TestCloseWithPacketInHand(t *testing.T) {
	f, r := newFake(0, 1)
	for len(f.numbers) > 1 {
		runtime.Gosched()
	}
	closeReader(t, r)
	f.waitStopped(t)
	wantLast(t, t.Context(), r, net.ErrClosed)
}

func TestSourceFails(t *testing.T) {
	f, r := newFake(0)
	cause := errors.New("no more")
	for _, err := range r.Packets(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	r.fail(cause)
	r.fail(errors.New("a later reason"))
	for range 2 {
		wantLast(t, t.Context(), r, cause)
	}
	closeReader(t, r)
	wantLast(t, t.Context(), r, net.ErrClosed)
	f.waitStopped(t)
}

// Ranges side by side share the packets.
func TestConcurrentRanges(t *testing.T) {
	const n = 1000
	numbers := make([]uint32, n)
	for i := range numbers {
		numbers[i] = uint32(i)
	}
	f, r := newFake(numbers...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	seen := make(map[uint32]int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for p, err := range r.Packets(ctx) {
				if err != nil {
					return
				}
				mu.Lock()
				if seen[p.Seq]++; len(seen) == n {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for seq, times := range seen {
		if times != 1 {
			t.Errorf("packet %d was given %d times", seq, times)
		}
	}
	closeReader(t, r)
	f.waitStopped(t)
}

func TestConfigDefaults(t *testing.T) {
	want := Config{Snaplen: 256, ReadBuffer: 4 << 20, Threshold: 1, FlushInterval: 100 * time.Millisecond}
	for _, c := range []*Config{nil, {}, {ReadBuffer: -1, FlushInterval: -time.Second}} {
		if got := c.withDefaults(); got != want {
			t.Errorf("%+v: got %+v, want %+v", c, got, want)
		}
	}
	own := Config{NetNS: "/x", Group: 7, Snaplen: 1, ReadBuffer: 2, Threshold: 3, FlushInterval: 4, Conntrack: true}
	if got := own.withDefaults(); got != own {
		t.Errorf("got %+v, want %+v", got, own)
	}
}

func TestCentiseconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		1: 1, 10 * time.Millisecond: 1, 10*time.Millisecond + 1: 2, 95 * time.Millisecond: 10,
		time.Second: 100, time.Hour: 360000, 1<<63 - 1: 360000,
	} {
		c := Config{FlushInterval: d}
		if got := c.centiseconds(); got != want {
			t.Errorf("%v: got %d, want %d", d, got, want)
		}
	}
}
