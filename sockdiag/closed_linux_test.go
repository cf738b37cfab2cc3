package sockdiag

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

const (
	portClosed4 = 8500 + iota
	portClosed6
	portClosedUDP
	portYoung
)

// closings collects what Closed yields, once do has run, until there are n.
func closings(t *testing.T, c *Conn, opts ClosedOptions, n int, do func()) []ClosedSocket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opts.Ready = do
	var got []ClosedSocket
	for s, err := range c.Closed(ctx, &opts) {
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(got), n, err)
		}
		if got = append(got, s); len(got) == n {
			break
		}
	}
	return got
}

// closedAt returns the one with a local port.
func closedAt(t *testing.T, sockets []ClosedSocket, port uint16) ClosedSocket {
	t.Helper()
	for _, s := range sockets {
		if s.Socket.Local.Port() == port {
			return s
		}
	}
	t.Fatalf("no closed socket at port %d: %+v", port, sockets)
	return ClosedSocket{}
}

// TestClosed: each end of a connection tells of its whole life, and who had it.
func TestClosed(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	client, server := s.pair(portClosed4, loopback4, "tcp4")
	client6, server6 := s.pair(portClosed6, loopback6, "tcp6")
	_, err := client.Write([]byte("hello"))
	s.check(err)
	udp := s.bound(unix.IPPROTO_UDP, portClosedUDP, loopback6)
	before := snapshot(t, c, Query{})
	want := 4
	if supported(t, c, Query{Protocol: UDP}) != nil {
		want++
	}
	got := closings(t, c, ClosedOptions{Processes: "/proc"}, want, func() {
		for _, c := range []interface{ Close() error }{client, server, client6, server6} {
			s.check(c.Close())
		}
		s.check(unix.Close(udp))
	})
	was := one(t, before, portClosed4, Established, true)
	end := closedAt(t, got, portClosed4)
	if end.Socket.State != Close || end.Socket.Cookie != was.Cookie || end.Socket.Protocol != TCP ||
		end.Socket.Remote != was.Remote || !end.Socket.Has(FieldInfo) || end.Socket.Has(FieldRawProtocol) ||
		end.Socket.Info.BytesReceived < 5 || end.Socket.HasOwner() {
		t.Errorf("%+v", end.Socket)
	}
	o := end.Owner
	if o.Inode != was.Inode || o.CgroupID != was.CgroupID || o.State != Established || o.UID != was.UID ||
		o.Process.PID != os.Getpid() || o.Seen.IsZero() {
		t.Errorf("owner %+v of %+v", o, was)
	}
	if end := closedAt(t, got, portClosed6); end.Socket.Family != IPv6 || end.Owner.Inode == 0 {
		t.Errorf("%+v", end)
	}
	if want == 4 {
		return
	}
	if end := closedAt(t, got, portClosedUDP); end.Socket.Protocol != UDP || end.Owner.Inode == 0 || end.Socket.Has(FieldInfo) {
		t.Errorf("%+v", end)
	}
}

// TestClosedSelection: only one protocol and family, and no owners.
func TestClosedSelection(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	client, server := s.pair(portClosed4, loopback4, "tcp4")
	client6, server6 := s.pair(portClosed6, loopback6, "tcp6")
	udp := s.bound(unix.IPPROTO_UDP, portClosedUDP, loopback6)
	got := closings(t, c, ClosedOptions{Protocol: TCP, Family: IPv6, Remember: -1}, 2, func() {
		s.check(unix.Close(udp))
		for _, c := range []interface{ Close() error }{client, server, client6, server6} {
			s.check(c.Close())
		}
	})
	for _, s := range got {
		if s.Socket.Protocol != TCP || s.Socket.Family != IPv6 || s.Owner != (Owner{}) {
			t.Errorf("%+v", s)
		}
	}
	for _, opts := range []ClosedOptions{{Protocol: Raw}, {Family: 1}} {
		for _, err := range c.Closed(t.Context(), &opts) {
			var op *OpError
			if !errors.As(err, &op) || op.Op != "closed" {
				t.Errorf("%+v: %v", opts, err)
			}
		}
	}
}

// TestClosedRefresh: the owner of a socket that was opened later becomes known;
// and no more are remembered than was asked for.
func TestClosedRefresh(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	l := s.listen("tcp4", netip.AddrPortFrom(loopback4, portYoung))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// A connection lives until its owner was seen, which a shorter one's is not.
	opts := &ClosedOptions{Protocol: TCP, Refresh: 5 * time.Millisecond}
	begin := func(life time.Duration) {
		client := s.dial(netip.AddrPortFrom(loopback4, portYoung))
		server, err := l.Accept()
		s.check(err)
		go func() {
			time.Sleep(life)
			_ = client.SetLinger(0)
			_ = client.Close()
			_ = server.Close()
		}()
	}
	life := 20 * time.Millisecond
	opts.Ready = func() { begin(life) }
	seen := 0
	for end, err := range c.Closed(ctx, opts) {
		if err != nil {
			t.Fatalf("after %d: %v", seen, err)
		}
		if end.Owner.Inode != 0 && end.Owner.State == Established {
			return
		}
		if seen++; seen%2 == 0 {
			life *= 2
			begin(life)
		}
	}
}

func TestClosedBounded(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	w := newWatch(t.Context(), c, &ClosedOptions{Remember: 3})
	defer w.stop()
	for range 5 {
		s.listen("tcp4", netip.AddrPortFrom(loopback4, 0))
	}
	for range 2 {
		s.check(w.refresh())
	}
	for i, generation := range w.owners.Load() {
		if n := len(generation); n != 3 {
			t.Errorf("%d owners in generation %d, want 3", n, i)
		}
	}
}

// TestClosedUnprivileged listens on a thread without any capability.
func TestClosedUnprivileged(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	client, server := s.pair(portClosed4, loopback4, "tcp4")
	s.check(s.h.Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		c, err := Dial(nil)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // nothing under way
		got := closings(t, c, ClosedOptions{}, 2, func() { s.check(errors.Join(client.Close(), server.Close())) })
		if end := closedAt(t, got, portClosed4); end.Owner.Inode == 0 || end.Owner.Process != (Process{}) {
			t.Errorf("%+v", end)
		}
		return nil
	}))
}

// TestClosedOverrun: with the smallest buffer and many that close at once, loss
// is told, and what closes later is seen.
func TestClosedOverrun(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	var crowd crowded
	defer crowd.close()
	s.check(s.h.Do(func() error { return crowd.fill(600) }))
	l := s.listen("tcp4", netip.AddrPortFrom(loopback4, portClosed4))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	later := func() {
		for ctx.Err() == nil {
			client, err := s.h.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(loopback4, portClosed4), nil)
			if err != nil {
				return
			}
			server, err := l.Accept()
			if err != nil {
				return
			}
			_ = errors.Join(client.Close(), server.Close())
			time.Sleep(10 * time.Millisecond)
		}
	}
	var after sync.WaitGroup
	defer after.Wait()
	defer cancel()
	opts := &ClosedOptions{ReadBuffer: 1, Remember: -1, Ready: crowd.close}
	var drops uint32
	for end, err := range c.Closed(ctx, opts) {
		var o *Overrun
		switch {
		case errors.As(err, &o):
			if drops == 0 {
				after.Go(later)
			}
			drops = o.Drops
			if !errors.Is(err, ErrOverrun) || drops == 0 {
				t.Errorf("%v: %d drops", err, drops)
			}
		case err != nil:
			t.Fatalf("%v after %d drops", err, drops)
		case drops > 0 && end.Socket.Local.Port() == portClosed4:
			return
		}
	}
}

// BenchmarkClosed closes sockets as fast as it can, and tells how many a second
// were told of, and how many were lost.
func BenchmarkClosed(b *testing.B) {
	h := lab.New(b).MustHost(b, "crowd")
	c := dialHost(b, h)
	told, lost := 0, 0
	var took time.Duration
	for b.Loop() {
		var crowd crowded
		if err := h.Do(func() error { return crowd.fill(8000) }); err != nil {
			b.Fatal(err)
		}
		want := len(crowd.fds)
		var start time.Time
		opts := &ClosedOptions{Protocol: TCP, Ready: func() { start = time.Now(); go crowd.close() }}
		got := 0
		for _, err := range c.Closed(b.Context(), opts) {
			var o *Overrun
			switch {
			case errors.As(err, &o):
				lost, got = lost+int(o.Drops), got+int(o.Drops)
			case err != nil:
				b.Fatal(err)
			default:
				told, got = told+1, got+1
			}
			if got >= want {
				break
			}
		}
		took += time.Since(start)
	}
	b.ReportMetric(float64(told)/took.Seconds(), "events/s")
	b.ReportMetric(float64(lost), "lost")
}
