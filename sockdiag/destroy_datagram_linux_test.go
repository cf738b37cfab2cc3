package sockdiag

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestDestroyDatagrams: sockets of UDP and UDPLite lose their peer and are told;
// those without a peer are left alone, and one that is behind another of the same
// address is not taken for gone.
func TestDestroyDatagrams(t *testing.T) {
	for p, proto := range map[Protocol]int{UDP: unix.IPPROTO_UDP, UDPLite: unix.IPPROTO_UDPLITE} {
		t.Run(p.String(), func(t *testing.T) {
			if !creatable(t, p.String(), unix.SOCK_DGRAM, proto) {
				return
			}
			s := &scene{t, lab.New(t).MustHost(t, "a")}
			s.datagrams(proto)
			c := dialHost(t, s.h)
			if supported(t, c, Query{Protocol: p}) == nil {
				return
			}
			dry, _, _ := destroyAll(t, c, Query{Protocol: p}, DestroyOptions{DryRun: true})
			if dry.WouldDestroy != 2 || dry.Protected != 4 {
				t.Errorf("dry run: %v", dry)
			}
			wet, _, errs := destroyAll(t, c, Query{Protocol: p}, DestroyOptions{})
			if len(errs) == 2 && errors.Is(errs[0], errors.ErrUnsupported) {
				t.Logf("SUPPORT: SOCK_DESTROY of %v: no", p)
				return
			}
			t.Logf("SUPPORT: SOCK_DESTROY of %v: yes", p)
			if wet.Destroyed != 2 || wet.Protected != 4 {
				t.Errorf("%v", wet)
			}
			if left := snapshot(t, c, Query{Protocol: p, States: States(Established)}); len(left) != 0 {
				t.Errorf("connected still: %+v", left)
			}
			q := Query{Protocol: p, LocalPort: portReuse}
			dry, _, _ = destroyAll(t, c, q, DestroyOptions{DryRun: true, Unconnected: true})
			all, _, errs := destroyAll(t, c, q, DestroyOptions{Unconnected: true})
			if dry.WouldDestroy != 1 || all.Destroyed != 1 || all.Refused != 1 || !errors.Is(errs[0], errShadowed) {
				t.Errorf("two of one address: %v, %v; dry run: %v", all, errs, dry)
			}
		})
	}
}

// TestDestroyDatagram: the owner is told once, and keeps the socket without its
// peer.
func TestDestroyDatagram(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	fd := s.bound(unix.IPPROTO_UDP, portPeer, loopback6)
	s.check(unix.Connect(fd, &unix.SockaddrInet6{Addr: loopback6.As16(), Port: portPlain}))
	c := dialHost(t, s.h)
	sockets := supported(t, c, Query{Protocol: UDP})
	if sockets == nil {
		return
	}
	was := one(t, sockets, portPeer, Established, true)
	if !supportsDestroy(t, c.Destroy(t.Context(), was)) {
		return
	}
	if _, err := unix.Read(fd, make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the owner got %v, want ECONNABORTED", err)
	}
	if _, err := unix.Write(fd, []byte("x")); !errors.Is(err, unix.EDESTADDRREQ) {
		t.Errorf("writing without a peer: %v, want EDESTADDRREQ", err)
	}
	now := one(t, snapshot(t, c, Query{Protocol: UDP}), portPeer, Close, true)
	if now.Cookie != was.Cookie || now.Inode != was.Inode {
		t.Errorf("%+v, was %+v", now, was)
	}
}

// TestDestroyRaw: the same of raw sockets.
func TestDestroyRaw(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	peer := s.socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	s.check(unix.Connect(peer, &unix.SockaddrInet4{Addr: loopback4.As4()}))
	c := dialHost(t, s.h)
	if supported(t, c, Query{Protocol: Raw}) == nil {
		return
	}
	dry, _, _ := destroyAll(t, c, Query{Protocol: Raw}, DestroyOptions{DryRun: true})
	wet, _, errs := destroyAll(t, c, Query{Protocol: Raw}, DestroyOptions{})
	if len(errs) == 1 && errors.Is(errs[0], errors.ErrUnsupported) {
		t.Log("SUPPORT: SOCK_DESTROY of raw: no")
		return
	}
	t.Log("SUPPORT: SOCK_DESTROY of raw: yes")
	if dry.WouldDestroy != 1 || wet.Destroyed != 1 || wet.Protected != 1 {
		t.Errorf("%v; dry run: %v; %v", wet, dry, snapshot(t, c, Query{Protocol: Raw}))
	}
	if _, err := unix.Read(peer, make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the owner got %v, want ECONNABORTED", err)
	}
	all, _, errs := destroyAll(t, c, Query{Protocol: Raw}, DestroyOptions{Unconnected: true})
	if all.Destroyed != 1 { // the other one is out of the table since it was destroyed (__udp_disconnect)
		t.Errorf("%v, %v", all, errs)
	}
}
