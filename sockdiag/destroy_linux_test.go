package sockdiag

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// The ports of what is destroyed.
const (
	portTarget4 = 8400 + iota
	portTarget6
	portTargetMapped
	portStale
	portOrphan
)

// TestDestroy ends connections of IPv4, of IPv6, and of IPv4 in IPv6, at the
// server's end.
func TestDestroy(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	for name, tt := range map[string]struct {
		port    uint16
		addr    netip.Addr
		network string
	}{
		"IPv4":   {portTarget4, loopback4, "tcp4"},
		"IPv6":   {portTarget6, loopback6, "tcp6"},
		"mapped": {portTargetMapped, loopback4, "tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scene{t, s.h}
			client, server := s.connected(tt.network, tt.port, tt.addr)
			target := one(t, snapshot(t, c, Query{States: States(Established)}), tt.port, Established, true)
			if target.Mapped() != (name == "mapped") {
				t.Errorf("%+v", target)
			}
			if !supportsDestroy(t, c.Destroy(t.Context(), target)) {
				return
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
				t.Errorf("the owner got %v, want ECONNABORTED", err)
			}
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the peer got %v, want ECONNRESET", err)
			}
			if err := c.Destroy(t.Context(), target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the second time: %v, want fs.ErrNotExist", err)
			}
			for _, r := range ssOf(t, s.h, "-tanOeH", "state", "established") {
				t.Errorf("ss shows %+v", r)
			}
		})
	}
}

// connected makes a connection to a new listener, which may be for both
// families.
func (s *scene) connected(network string, port uint16, addr netip.Addr) (client, server net.Conn) {
	s.t.Helper()
	at := netip.AddrPortFrom(addr, port)
	if network == "tcp" {
		at = netip.AddrPortFrom(netip.Addr{}, port)
	}
	l := s.listen(network, at)
	client = s.dial(netip.AddrPortFrom(addr, port))
	server, err := l.Accept()
	s.check(err)
	s.keep(server)
	return client, server
}

// supportsDestroy reports whether err is the success of a kernel that can
// destroy. One that cannot must say so.
func supportsDestroy(t *testing.T, err error) bool {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Log("SUPPORT: SOCK_DESTROY: no")
		if !strings.Contains(err.Error(), "CONFIG_INET_DIAG_DESTROY") {
			t.Errorf("%v: want the name of the option", err)
		}
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log("SUPPORT: SOCK_DESTROY: yes")
	return true
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// TestDestroyStale: a connection is over when it is to be destroyed. Without its
// cookie, the listener would be.
func TestDestroyStale(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	client, server := s.pair(portStale, loopback4, "tcp4")
	stale := one(t, snapshot(t, c, Query{}), portStale, Established, true)
	s.check(client.SetLinger(0))
	s.check(client.Close())
	_, _ = server.Read(make([]byte, 1)) // the RST is here
	s.check(server.Close())
	if err := c.Destroy(t.Context(), stale); !errors.Is(err, fs.ErrNotExist) {
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	s.dial(netip.AddrPortFrom(loopback4, portStale))

	var b [requestLen]byte
	trap := stale.exact(destroySocket, b[:])
	for i := range 8 {
		b[48+i] = 0xff // INET_DIAG_NOCOOKIE
	}
	err := c.nl.Do(t.Context(), trap, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	s.check(err)
	_, err = s.h.Dial(t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(loopback4, portStale), nil)
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without the cookie: %v, want the listener to be dead", err)
	}
}

// destroyAll destroys what c shows, and counts the outcomes by state.
func destroyAll(t *testing.T, c *Conn, q Query, opts DestroyOptions) (DestroyReport, map[DestroyOutcome][]Socket, []error) {
	t.Helper()
	outcomes := make(map[DestroyOutcome][]Socket)
	var errs []error
	opts.Outcome = func(s Socket, o DestroyOutcome, err error) {
		outcomes[o] = append(outcomes[o], s)
		if (err != nil) != (o == Refused || o == Protected) {
			t.Errorf("%v %v: %v", s.State, o, err)
		}
		if o == Refused {
			errs = append(errs, err)
		}
	}
	report, err := c.DestroyAll(t.Context(), slices.Values(snapshot(t, c, q)), &opts)
	if err != nil {
		t.Fatal(err)
	}
	for o, sockets := range outcomes {
		if n := *report.count(o); n != len(sockets) {
			t.Errorf("%d %v, %d reported", len(sockets), o, n)
		}
	}
	return report, outcomes, errs
}

// TestDestroyStates destroys a scene: what a dry run tells, and nothing else,
// comes true.
func TestDestroyStates(t *testing.T) {
	c := dialHost(t, newScene(t))
	dry, would, _ := destroyAll(t, c, Query{}, DestroyOptions{DryRun: true})
	if dry.WouldDestroy < 10 || dry.Protected < 5 || dry.Total() != dry.WouldDestroy+dry.Protected {
		t.Fatalf("dry run: %v", dry)
	}
	wet, did, refused := destroyAll(t, c, Query{}, DestroyOptions{})
	for _, err := range refused {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	}
	if wet.Destroyed == 0 {
		t.Log("SUPPORT: SOCK_DESTROY: no")
		return
	}
	// What is local at both ends loses the other one first.
	states := func(sockets []Socket) (set StateSet) {
		for _, s := range sockets {
			set |= 1 << s.State
		}
		return set
	}
	t.Logf("SUPPORT: SOCK_DESTROY of TIME_WAIT: %s", yesNo(states(did[Destroyed]).Has(TimeWait)))
	want := states(would[WouldDestroy])
	if got := states(did[Destroyed]) | states(did[Gone]) | states(did[Refused]); got != want || wet.Protected != dry.Protected {
		t.Errorf("%v (%v), dry run: %v (%v)", wet, got, dry, want)
	}
	for _, s := range snapshot(t, c, Query{}) {
		if s.State != Listen && !(s.State == TimeWait && wet.Refused > 0) {
			t.Errorf("left: %+v", s)
		}
	}
	again, left, _ := destroyAll(t, c, Query{}, DestroyOptions{Listeners: true, Limit: 2})
	if again.Destroyed != 2 || !again.Limited {
		t.Errorf("%v, %v; want the limit", again, left)
	}
}

// TestDestroyListener: only DestroyAny takes it.
func TestDestroyListener(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	c := dialHost(t, s.h)
	l := s.listen("tcp6", netip.AddrPortFrom(loopback6, portTarget6))
	target := one(t, snapshot(t, c, Query{}), portTarget6, Listen, true)
	if err := c.Destroy(t.Context(), target); !errors.Is(err, ErrProtected) {
		t.Errorf("got %v, want ErrProtected", err)
	}
	s.dial(netip.AddrPortFrom(loopback6, portTarget6))
	if !supportsDestroy(t, c.DestroyAny(t.Context(), target)) {
		return
	}
	if _, err := l.Accept(); err == nil { // the one that waited
		_, err = l.Accept()
		if err == nil {
			t.Error("the listener accepts")
		}
	}
	if err := c.DestroyAny(t.Context(), target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second time: %v, want fs.ErrNotExist", err)
	}
}

// TestDestroyMultipath: a listener of MPTCP cannot be destroyed.
func TestDestroyMultipath(t *testing.T) {
	if !creatable(t, "mptcp", unix.SOCK_STREAM, unix.IPPROTO_MPTCP) {
		return
	}
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.multipath()
	c := dialHost(t, s.h)
	target := one(t, snapshot(t, c, Query{}), portMPTCP, Listen, true)
	err := c.DestroyAny(t.Context(), target)
	t.Logf("SUPPORT: SOCK_DESTROY of a listener of MPTCP: %s", yesNo(err == nil))
	if err != nil && (!errors.Is(err, errors.ErrUnsupported) ||
		!strings.Contains(err.Error(), "MPTCP") && !strings.Contains(err.Error(), "CONFIG_")) {
		t.Errorf("got %v, want errors.ErrUnsupported and a word about MPTCP", err)
	}
	target.Protocol = MPTCP
	if err := c.DestroyAny(t.Context(), target); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestDestroyOrphan: a socket that was closed with more to send than the peer
// takes.
func TestDestroyOrphan(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	client, _ := s.pair(portOrphan, loopback4, "tcp4")
	s.fill(client)
	s.check(client.Close())
	c := dialHost(t, s.h)
	s.await(map[State]int{FinWait1: 1})
	q := Query{States: States(FinWait1)}
	if first, _, _ := destroyAll(t, c, q, DestroyOptions{}); first.Protected != 1 {
		t.Errorf("%v, want it protected", first)
	}
	report, _, errs := destroyAll(t, c, q, DestroyOptions{Orphans: true})
	left := len(snapshot(t, c, q))
	switch {
	case report.Destroyed == 1 && left == 0:
		t.Log("SUPPORT: SOCK_DESTROY of orphans: yes")
	case len(errs) == 1 && errors.Is(errs[0], errors.ErrUnsupported) && left == 1:
		t.Log("SUPPORT: SOCK_DESTROY of orphans: no")
	default:
		t.Errorf("%v, %v, %d left", report, errs, left)
	}
}

// TestDestroyDenied asks on a thread without any capability.
func TestDestroyDenied(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.pair(portTarget4, loopback4, "tcp4")
	sockets := snapshot(t, dialHost(t, s.h), Query{States: States(Established)})
	var single, all error
	var report DestroyReport
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
		single = c.Destroy(t.Context(), sockets[0])
		many := slices.Repeat(sockets, 100)
		report, all = c.DestroyAll(t.Context(), slices.Values(many), nil)
		return nil
	}))
	if errors.Is(single, errors.ErrUnsupported) {
		t.Log("SUPPORT: SOCK_DESTROY: no")
		return
	}
	for _, err := range []error{single, all} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("got %v", err)
		}
	}
	if report.Refused != destroyChunk || report.Total() != destroyChunk {
		t.Errorf("%v, want it to stop after the first %d", report, destroyChunk)
	}
}
