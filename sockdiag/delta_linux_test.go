package sockdiag

import (
	"io"
	"maps"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// info takes a snapshot with Info.
func info(t *testing.T, c *Conn) *Snapshot {
	t.Helper()
	s, err := c.Snapshot(t.Context(), Query{Info: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// changeOf returns what became of the socket of a port.
func changeOf(t *testing.T, d Delta, port uint16, local bool) Change {
	t.Helper()
	var found []Change
	for c := range d.Kept() {
		at := c.Before.Remote.Port()
		if local {
			at = c.Before.Local.Port()
		}
		if at == port && c.Before.State != Listen {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("port %d: %d sockets, want 1", port, len(found))
	}
	return found[0]
}

// TestDeltaTraffic sends a known number of bytes between snapshots, and closes.
func TestDeltaTraffic(t *testing.T) {
	const sent, answered = 54321, 1234
	s := &scene{t, lab.New(t).MustHost(t, "host")}
	client, server := s.pair(portQuiet, loopback4, "tcp4")
	c := dialHost(t, s.h)
	before := info(t, c)
	exchange(t, client, server, sent)
	exchange(t, server, client, answered)
	s.pair(portDual, loopback4, "tcp4")

	d, traffic := Delta{}, Traffic{}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		d = Compare(before, info(t, c))
		// The last acknowledgement may be late.
		if traffic = changeOf(t, d, portQuiet, false).Traffic(); traffic.BytesAcked == sent {
			break
		}
	}
	if traffic.BytesAcked != sent || traffic.BytesReceived != answered || d.Interval <= 0 {
		t.Errorf("%+v in %v, want %d and %d bytes", traffic, d.Interval, sent, answered)
	}
	if got := changeOf(t, d, portQuiet, true).Traffic(); got.BytesReceived != sent {
		t.Errorf("the server: %+v, want %d bytes received", got, sent)
	}
	if n := len(cookies(d.Opened())); n != 3 {
		t.Errorf("%d sockets opened, want a listener and two ends", n)
	}

	before = d.after
	s.check(client.Close())
	s.check(server.Close())
	s.await(map[State]int{TimeWait: 1})
	d = Compare(before, info(t, c))
	over := changeOf(t, d, portQuiet, false)
	if over.Before.State != Established || over.After.State != TimeWait || over.Traffic() != (Traffic{}) || over.Restarted() {
		t.Errorf("closed: %v to %v, %+v", over.Before.State, over.After.State, over.Traffic())
	}
	if gone := cookies(d.Closed()); len(gone) != 1 || gone[0] == over.After.Cookie {
		t.Errorf("closed: %v, want the server's end", gone)
	}
}

// exchange sends n bytes and reads them.
func exchange(t *testing.T, from io.Writer, to io.Reader, n int) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		failed <- err
	}()
	if _, err := io.CopyN(io.Discard, to, int64(n)); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// TestDeltaStalled waits until the kernel has asked again a receiver that is
// full, one that has closed its window over what was under way, and one that is
// not there.
func TestDeltaStalled(t *testing.T) {
	h := newScene(t)
	s := &scene{t, h}
	const portUnread = 9000
	client, _ := s.pair(portUnread, loopback4, "tcp4")
	s.fill(client)
	want := map[uint16]Stall{
		portUnread: StalledZeroWindow, portFull: StalledZeroWindow, portSilent: StalledUnanswered,
	}
	c := dialHost(t, h)
	before, got := info(t, c), make(map[uint16]Stall)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !maps.Equal(got, want); time.Sleep(10 * time.Millisecond) {
		after := info(t, c)
		for change := range Compare(before, after).Kept() {
			if stall := change.Stalled(1); stall != NotStalled {
				got[change.After.Remote.Port()] = stall
				if change.After.Remote.Port() == portFull { // old kernels keep a window that they do not honour
					want[portFull] = stall
				}
			}
		}
		before = after
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestDeltaRestarted connects a socket, disconnects it and connects it again:
// it keeps its cookie, and counts anew.
func TestDeltaRestarted(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "host")}
	for _, port := range []uint16{portQuiet, portDual} {
		s.listen("tcp4", netip.AddrPortFrom(loopback4, port))
	}
	c := dialHost(t, s.h)
	var before, after *Snapshot
	s.check(s.h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing to lose
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: portQuiet, Addr: loopback4.As4()}); err != nil {
			return err
		}
		if _, err := unix.Write(fd, make([]byte, 1000)); err != nil {
			return err
		}
		before = awaitAcked(t, c, portQuiet, 1001)
		if err := disconnect(fd); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: portDual, Addr: loopback4.As4()}); err != nil {
			return err
		}
		after = awaitAcked(t, c, portDual, 1)
		return nil
	}))
	change := changeOf(t, Compare(before, after), portQuiet, false)
	if !change.Restarted() || change.After.Remote.Port() != portDual || change.Traffic().BytesAcked != 1 {
		t.Errorf("restarted %v, %v to %v, %+v",
			change.Restarted(), change.Before.Remote, change.After.Remote, change.Traffic())
	}
}

// disconnect is connect(2) with AF_UNSPEC, for which x/sys has no address.
func disconnect(fd int) error {
	unspec := &unix.RawSockaddrInet4{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT,
		uintptr(fd), reflect.ValueOf(unspec).Pointer(), unix.SizeofSockaddrInet4)
	runtime.KeepAlive(unspec)
	if errno != 0 {
		return errno
	}
	return nil
}

// awaitAcked returns a snapshot in which the client of a port has had n bytes
// acknowledged.
func awaitAcked(t *testing.T, c *Conn, port uint16, n uint64) *Snapshot {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		snap := info(t, c)
		for _, s := range snap.Sockets {
			if s.Remote.Port() == port && s.Info.BytesAcked == n {
				return snap
			}
		}
	}
	t.Fatalf("port %d: no client has %d bytes acknowledged", port, n)
	return nil
}
