package nflog

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

func closeReader(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// wired returns a Reader on a wire that delivers packets of group 0 with these
// numbers, a datagram each.
func wired(t *testing.T, goNflog bool, numbers ...uint32) (*wire, *Reader) {
	t.Helper()
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	w.log(numbers...)
	return w, r
}

// log delivers packets of group 0.
func (w *wire) log(numbers ...uint32) {
	for _, n := range numbers {
		w.datagrams <- []netlink.Message{numbered(n)}
	}
}

func TestLossesInPlace(t *testing.T) { readers(t, testLossesInPlace) }

func testLossesInPlace(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog, 0, 1)
	next := pull(t, r)
	wantSeq(t, next, 0, 1)
	w.overrun()
	wantLost(t, next, Lost{Overrun: true})
	w.log(4, 5)
	wantLost(t, next, Lost{Count: 2})
	wantSeq(t, next, 4, 5)
}

func wantSeq(t *testing.T, next func() (Packet, error), want ...uint32) {
	t.Helper()
	for _, n := range want {
		if p, err := next(); err != nil || p.Seq != n {
			t.Fatalf("got packet %d, %v, want %d", p.Seq, err, n)
		}
	}
}

// Breaking off loses nothing: the next range goes on with the next packet, in
// the middle of a batch and behind a loss too.
func TestBreakAndGoOn(t *testing.T) { readers(t, testBreakAndGoOn) }

func testBreakAndGoOn(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog, 0, 1, 2)
	w.datagrams <- []netlink.Message{numbered(3), numbered(4), numbered(7), numbered(8)}
	w.log(9)
	const missing = 1000
	for _, want := range []uint32{0, 1, 2, 3, 4, missing, 7, 8, 9} {
		for p, err := range r.Packets(t.Context()) {
			var lost *Lost
			switch {
			case want == missing && (!errors.As(err, &lost) || *lost != Lost{Count: 2}):
				t.Fatalf("got packet %d, %v, want a loss of 2", p.Seq, err)
			case want != missing && (err != nil || p.Seq != want):
				t.Fatalf("got packet %d, %v, want %d", p.Seq, err, want)
			}
			break
		}
	}
}

// Nothing is taken from the socket that was not asked for, but for the one
// datagram in go-nflog's hand.
func TestBackPressure(t *testing.T) { readers(t, testBackPressure) }

func testBackPressure(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog, 0, 1, 2, 3, 4, 5, 6, 7)
	for range r.Packets(t.Context()) {
		break
	}
	want := 7
	if goNflog {
		want--
	}
	time.Sleep(20 * time.Millisecond) // for one that would take more
	if n := len(w.datagrams); n < want {
		t.Errorf("%d packets are left in the socket, want %d", n, want)
	}
}

func TestCancel(t *testing.T) { readers(t, testCancel) }

func testCancel(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	for range 2 { // the second time, it is cancelled from the start
		wantLast(t, ctx, r, cause)
		wantLast(t, ctx, r, context.Canceled)
	}
	w.log(0) // the reader is as good as before
	wantSeq(t, pull(t, r), 0)
}

// No packet follows a cancel or a Close in the loop's body, and a cancel loses
// none.
func TestEndInTheBody(t *testing.T) { readers(t, testEndInTheBody) }

func testEndInTheBody(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog)
	w.datagrams <- []netlink.Message{numbered(0), numbered(1), numbered(2), numbered(3)}
	body := func(want error, end func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		var last error
		for _, err := range r.Packets(ctx) {
			if n++; n == 1 && end == nil {
				cancel()
			} else if n == 1 {
				end()
			}
			last = err
		}
		if n != 2 || !errors.Is(last, want) {
			t.Errorf("%d turns, the last with %v; want a packet and %v", n, last, want)
		}
	}
	body(context.Canceled, nil)
	for p, err := range r.Packets(t.Context()) {
		if err != nil || p.Seq != 1 {
			t.Errorf("after a cancelled range: packet %d, %v, want 1", p.Seq, err)
		}
		break
	}
	body(net.ErrClosed, func() { closeReader(t, r) })
}

// wantLast ranges and expects one error and the end.
func wantLast(t testing.TB, ctx context.Context, r *Reader, want error) {
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

func TestClose(t *testing.T) { readers(t, testClose) }

func testClose(t *testing.T, goNflog bool) {
	w, r := wired(t, goNflog)
	time.AfterFunc(10*time.Millisecond, func() { r.Close() })
	for range 2 {
		wantLast(t, t.Context(), r, net.ErrClosed)
	}
	if err := r.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want net.ErrClosed", err)
	}
	select {
	case <-w.closed:
	case <-time.After(10 * time.Second):
		t.Error("the socket was left open")
	}
}

// A range beside another one is refused, and does not disturb it.
func TestSecondRange(t *testing.T) { readers(t, testSecondRange) }

func testSecondRange(t *testing.T, goNflog bool) {
	_, r := wired(t, goNflog, 0, 1)
	var got []uint32
	for p, err := range r.Packets(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		wantLast(t, t.Context(), r, errRanging)
		if got = append(got, p.Seq); len(got) == 2 {
			break
		}
	}
	if got[0] != 0 || got[1] != 1 {
		t.Errorf("got packets %d, want 0 and 1", got)
	}
}
