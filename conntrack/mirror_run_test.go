package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestMirrorRun ends Run in every way, and begins it again.
func TestMirrorRun(t *testing.T) {
	tcp, udp := parse(t, lineTCP), parse(t, lineUDP)
	c, peer := fake(t, table(tcp, udp))
	m := NewMirror(c, &MirrorOptions{Reconcile: -1})
	if m.Stats() != (MirrorStats{}) || m.Len() != 0 {
		t.Errorf("before: %+v", m.Stats())
	}
	cause := errors.New("the operator's reason")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		must(t, m.Wait(within(t)))
		if err := m.Run(t.Context()); !isOp(err, "mirror") || !errors.Is(err, errRunning) {
			t.Errorf("twice: %v", err)
		}
		if s := m.Stats(); !s.InStep || s.OutOfStep <= 0 || m.Len() != 2 {
			t.Errorf("%d entries, %+v", m.Len(), s)
		}
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("cancelled: %v", err)
		}
		if m.Stats().InStep || m.Len() != 2 {
			t.Errorf("after: %d entries, %+v", m.Len(), m.Stats())
		}
		ended, cancel2 := context.WithTimeout(t.Context(), time.Millisecond)
		if err := m.Wait(ended); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited for one that does not run: %v", err)
		}
		cancel2()
	}
	done := make(chan error)
	go func() { done <- m.Run(t.Context()) }()
	must(t, m.Wait(within(t)))
	peer.Multicast(3, nfnltest.Message(subsystem<<8, 0, 0, []byte{2}))
	if err := <-done; !errors.Is(err, errShort) {
		t.Errorf("malformed: %v", err)
	}
	go func() { done <- m.Run(t.Context()) }()
	must(t, m.Wait(within(t)))
	must(t, c.Close())
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestMirrorRefused has the dump fail, at once and later.
func TestMirrorRefused(t *testing.T) {
	c, _ := fake(t, refuse(syscall.EPERM))
	if err := NewMirror(c, nil).Run(t.Context()); !errors.Is(err, fs.ErrPermission) || errors.Is(err, context.Canceled) || !isOp(err, "dump") {
		t.Errorf("got %v", err)
	}
	dumps := 0
	c, _ = fake(t, func(r nfnltest.Request) [][]byte {
		if dumps++; dumps == 1 {
			return table(parse(t, lineTCP))(r)
		}
		return refuse(syscall.ENOMEM)(r)
	})
	m := NewMirror(c, &MirrorOptions{Reconcile: time.Millisecond})
	if err := m.Run(t.Context()); !errors.Is(err, syscall.ENOMEM) || !isOp(err, "dump") || m.Len() != 1 {
		t.Errorf("got %v, %d entries", err, m.Len())
	}
}

// TestMirrorOverrun loses events: the mirror dumps again, and what the loss hid
// is seen.
func TestMirrorOverrun(t *testing.T) {
	rows := make(chan []Flow, 2)
	rows <- []Flow{parse(t, lineTCP)}
	rows <- []Flow{parse(t, lineUDP)}
	c, peer := fake(t, func(r nfnltest.Request) [][]byte { return table(<-rows...)(r) })
	m := runMirror(t, c, &MirrorOptions{Reconcile: -1})
	peer.Multicast(1, nil)
	for end := time.Now().Add(patience); m.Stats().Dumps < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", m.Stats())
		}
	}
	want := map[Flow]int{shown(parse(t, lineUDP)): 1}
	s := m.Stats()
	if got := shownBy(m); !maps.Equal(got, want) || s.Overruns != 1 || s.Dropped != 1 || !s.InStep || s.Vanished != 1 || s.Appeared != 1 || s.Unannounced != 1 {
		t.Errorf("%v, %+v", got, s)
	}
}

// TestMirrorOverrunInDump loses events while a dump goes by, which then does
// not make up for them.
func TestMirrorOverrunInDump(t *testing.T) {
	m := NewMirror(nil, nil)
	inStep := func() bool { return m.Stats().InStep }
	m.start()
	m.beginDump()
	m.overrun(&Overrun{Drops: 3})
	m.endDump(time.Now())
	if inStep() {
		t.Error("in step though events were lost")
	}
	m.beginDump()
	m.endDump(time.Now())
	if !inStep() || m.Stats().Dropped != 3 {
		t.Errorf("%+v", m.Stats())
	}
	m.overrun(&Overrun{Drops: 5})
	if inStep() || m.Stats().Dropped != 5 {
		t.Errorf("%+v", m.Stats())
	}
}

// runMirror runs a mirror until the test ends, and waits until it is in step.
func runMirror(t testing.TB, c *Conn, opts *MirrorOptions) *Mirror {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m, done := NewMirror(c, opts), make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the mirror ended with %v", err)
		}
	})
	must(t, m.Wait(within(t)))
	return m
}
