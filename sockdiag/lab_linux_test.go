package sockdiag

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// dialHost opens a Conn to a host's sockets, from outside of it.
func dialHost(t testing.TB, h *lab.Host) *Conn {
	t.Helper()
	c, err := Dial(&Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func snapshot(t testing.TB, c *Conn, q Query) []Socket {
	t.Helper()
	snap, err := c.Snapshot(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return snap.Sockets
}

// one returns the socket of a port and state, of which there must be one.
func one(t *testing.T, sockets []Socket, port uint16, state State, local bool) Socket {
	t.Helper()
	var found []Socket
	for _, s := range sockets {
		at := s.Remote.Port()
		if local {
			at = s.Local.Port()
		}
		if at == port && s.State == state {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("port %d, %v: %d sockets, want 1: %+v", port, state, len(found), found)
	}
	return found[0]
}

// TestScene reads sockets in every state from the kernel.
func TestScene(t *testing.T) {
	sockets := snapshot(t, dialHost(t, newScene(t)), Query{Info: true})
	const local, remote = true, false
	for name, c := range map[string]struct {
		s  Socket
		ok func(s Socket) bool
	}{
		"established": {one(t, sockets, portQuiet, Established, remote), func(s Socket) bool {
			return s.Family == IPv4 && s.RecvQueue == 5 && s.Mark == 42 && s.Has(FieldMark|FieldInfo) &&
				s.HasOwner() && s.Timer == TimerKeepalive && s.Expires > 0 &&
				s.Info.BytesAcked == 5001 && s.Info.BytesReceived == 5 && s.Info.RTT > 0 && s.Info.SndMSS > 0
		}},
		"IPv6": {one(t, sockets, portIPv6, Established, remote), func(s Socket) bool {
			return s.Family == IPv6 && s.Local.Addr() == loopback6 && !s.Mapped()
		}},
		"IPv6 only": {one(t, sockets, portIPv6, Listen, local), func(s Socket) bool {
			return s.V6Only && s.Remote == netip.MustParseAddrPort("[::]:0")
		}},
		"dual stack": {one(t, sockets, portDual, Listen, local), func(s Socket) bool {
			return s.Family == IPv6 && s.Has(FieldV6Only) && !s.V6Only && !s.Mapped()
		}},
		"mapped": {one(t, sockets, portDual, Established, local), func(s Socket) bool {
			return s.Family == IPv6 && s.Mapped() && s.Local.Addr() == loopback4 && s.Remote.Addr() == loopback4
		}},
		"its client": {one(t, sockets, portDual, Established, remote), func(s Socket) bool {
			return s.Family == IPv4 && !s.Mapped()
		}},
		"accept queue": {one(t, sockets, portQueued, Listen, local), func(s Socket) bool {
			return s.AcceptQueue == 2 && s.Backlog > 0 && s.RecvQueue == 0 && s.SendQueue == 0 && s.Info.Unacked == 0
		}},
		"half closed": {one(t, sockets, portHalf, FinWait2, remote), func(s Socket) bool {
			return s.Shutdown == ShutdownSend && s.HasOwner()
		}},
		"its peer": {one(t, sockets, portHalf, CloseWait, local), func(s Socket) bool {
			return s.Shutdown == ShutdownReceive && s.HasOwner() && s.Info.State == CloseWait
		}},
		"left": {one(t, sockets, portLeft, FinWait2, remote), func(s Socket) bool {
			return !s.HasOwner() && s.Expires > 0
		}},
		"over": {one(t, sockets, portOver, TimeWait, remote), func(s Socket) bool {
			return !s.HasOwner() && s.Timer == TimerTimeWait && s.Expires > 50*time.Second && !s.Has(FieldInfo) &&
				s.Info == (TCPInfo{})
		}},
		"full": {one(t, sockets, portFull, Established, remote), func(s Socket) bool {
			return s.SendQueue > 10000 && (s.Timer == TimerProbe || s.Timer == TimerOn)
		}},
		"device": {one(t, sockets, portDevice, Listen, local), func(s Socket) bool { return s.Interface == 1 }},
		"no answer": {one(t, sockets, portSilent, SynSent, remote), func(s Socket) bool {
			return s.SendQueue == 1 && s.Timer == TimerOn && s.Remote.Addr() == silent
		}},
		"flood": {one(t, sockets, portFlood, SynRecv, local), func(s Socket) bool {
			return s.Remote == netip.AddrPortFrom(silent, 4321) && !s.HasOwner() && s.Timer == TimerOn
		}},
	} {
		if !c.ok(c.s) {
			t.Errorf("%s: %+v", name, c.s)
		}
	}
	unaccepted := 0
	for _, s := range sockets {
		if s.Local.Port() == portQueued && s.State == Established && !s.HasOwner() {
			unaccepted++
		}
	}
	if unaccepted != 2 {
		t.Errorf("%d connections without an owner wait for accept, want 2", unaccepted)
	}
}

// TestQuery compares what the kernel selects with a selection made here.
func TestQuery(t *testing.T) {
	c := dialHost(t, newScene(t))
	all := snapshot(t, c, Query{})
	ephemeral := one(t, all, portQuiet, Established, false).Local.Port()
	for _, q := range []Query{
		{States: States(Listen)},
		{States: States(TimeWait, CloseWait)},
		{States: States(NewSynRecv)},
		{States: States(Close)},
		{States: Connected},
		{States: Synchronized, Family: IPv6},
		{Family: IPv4},
		{LocalPort: portQueued},
		{RemotePort: portQueued},
		{LocalPort: ephemeral, RemotePort: portQuiet},
		{LocalPort: portQueued, States: States(Established)},
		{LocalPort: 1},
	} {
		var want []uint64
		for _, s := range all {
			if q.matches(&s, q.rowStates()) && (q.Family == 0 || q.Family == s.Family) {
				want = append(want, s.Cookie)
			}
		}
		var got []uint64
		for _, s := range snapshot(t, c, q) {
			got = append(got, s.Cookie)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%+v: cookies %x, want %x", q, got, want)
		}
	}
}

// TestBoundInactive finds a socket that only has a port.
func TestBoundInactive(t *testing.T) {
	h := lab.New(t).MustHost(t, "a")
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4(), Port: 6060})
	})
	if err != nil {
		t.Fatal(err)
	}
	c := dialHost(t, h)
	if got := snapshot(t, c, Query{}); len(got) != 0 {
		t.Errorf("the zero Query shows %+v, want nothing", got)
	}
	got := snapshot(t, c, Query{States: States(BoundInactive)})
	if len(got) == 0 {
		t.Skip("needs Linux 6.8")
	}
	if s := one(t, got, 6060, Close, true); !s.HasOwner() {
		t.Errorf("%+v: want an owner", s)
	}
}

// TestAgainstSS compares every row with what ss makes of it.
func TestAgainstSS(t *testing.T) {
	h := newScene(t)
	c := dialHost(t, h)
	for _, info := range []bool{false, true} {
		flags := "-tanOeH"
		if info {
			flags = "-tanOeiH"
		}
		before, lines, elapsed := settled(t, c, h, Query{Info: info}, flags)
		states := make(map[State]bool)
		for _, r := range lines {
			s, ok := before[r.Cookie]
			if !ok {
				t.Errorf("ss shows %+v, All does not", r)
				continue
			}
			delete(before, r.Cookie)
			r.compare(t, s, elapsed)
			states[s.State] = true
		}
		for _, s := range before {
			t.Errorf("ss does not show %+v", s)
		}
		if len(states) < 7 {
			t.Errorf("states compared: %v", slices.Collect(maps.Keys(states)))
		}
	}
}

// TestSSSets compares the sets of states that ss has words for.
func TestSSSets(t *testing.T) {
	h := newScene(t)
	c := dialHost(t, h)
	for word, set := range map[string]StateSet{"connected": Connected, "synchronized": Synchronized} {
		before, lines, _ := settled(t, c, h, Query{States: set}, "-tanOeH", "state", word)
		for _, r := range lines {
			delete(before, r.Cookie)
		}
		if len(before) != 0 || len(lines) == 0 {
			t.Errorf("%s: ss shows %d rows, not %v", word, len(lines), before)
		}
	}
}

// settled reads sockets before and after ss does, until nothing but the clocks
// changes in between. elapsed is how long it took.
func settled(t *testing.T, c *Conn, h *lab.Host, q Query, args ...string) (before map[uint64]Socket, lines []ssRow, elapsed time.Duration) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		start := time.Now()
		before = byCookie(snapshot(t, c, q), false)
		lines = ssOf(t, h, args...)
		elapsed = time.Since(start)
		still := byCookie(slices.Collect(maps.Values(before)), true)
		if maps.Equal(still, byCookie(snapshot(t, c, q), true)) {
			return before, lines, elapsed
		}
	}
	t.Fatal("the sockets did not come to rest")
	return nil, nil, 0
}

// byCookie indexes sockets, without what time alone changes if asked.
func byCookie(sockets []Socket, timeless bool) map[uint64]Socket {
	m := make(map[uint64]Socket)
	for _, s := range sockets {
		if timeless {
			s.Expires = 0
			s.Info.LastDataSent, s.Info.LastDataRecv, s.Info.LastAckRecv = 0, 0, 0
			s.Info.BusyTime, s.Info.RwndLimited, s.Info.SndbufLimited = 0, 0, 0
		}
		m[s.Cookie] = s
	}
	return m
}

// TestUnprivileged reads on a thread without any capability: the same sockets,
// without marks.
func TestUnprivileged(t *testing.T) {
	h := newScene(t)
	want := snapshot(t, dialHost(t, h), Query{States: States(Listen, Established, CloseWait)})
	var got []Socket
	err := h.Do(func() error {
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
		got = snapshot(t, c, Query{States: States(Listen, Established, CloseWait)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !want[i].Has(FieldMark) {
			t.Fatalf("%+v: want a mark with all capabilities", want[i])
		}
		want[i].Fields &^= FieldMark
		want[i].Mark = 0
	}
	if !maps.Equal(byCookie(got, true), byCookie(want, true)) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDialErrors(t *testing.T) {
	var op *OpError
	_, err := Dial(&Config{NetNS: "/run/netns/there is no such"})
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &op) || !strings.HasPrefix(err.Error(), "sockdiag: dial: ") {
		t.Errorf("no such namespace: %v", err)
	}
	_, err = Dial(&Config{NetNS: "/proc/self/exe"})
	if err == nil || !errors.As(err, &op) {
		t.Errorf("no namespace: %v", err)
	}
	err = dialError(&fs.PathError{Op: "open", Path: "/proc/1/ns/net", Err: unix.EACCES})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("another user's namespace: %v", err)
	}
}

// TestClosedUnderWay closes while another goroutine reads dumps.
func TestClosedUnderWay(t *testing.T) {
	c, err := Dial(&Config{NetNS: newScene(t).NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	last := make(chan error)
	begun := make(chan bool, 1)
	go func() {
		for {
			_, err := collect(t.Context(), c, Query{})
			select {
			case begun <- true:
			default:
			}
			if err != nil {
				last <- err
				return
			}
		}
	}()
	<-begun
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-last; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}
