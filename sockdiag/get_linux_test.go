package sockdiag

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestGet looks up what takes a packet: a connection, a listener, nothing. An
// IPv6 listener takes connections of IPv4.
func TestGet(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	c := dialHost(t, server)
	l, err := server.Listen("tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := server.ListenPacket("udp", netip.AddrPortFrom(netip.Addr{}, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, addr := range []func(*lab.Host) netip.Addr{(*lab.Host).Addr4, (*lab.Host).Addr6} {
		testGet(t, c, l, client, server, addr)
	}
}

func testGet(t *testing.T, c *Conn, l net.Listener, client, server *lab.Host, addr func(*lab.Host) netip.Addr) {
	t.Helper()
	to := netip.AddrPortFrom(addr(server), 80)
	from := netip.AddrPortFrom(addr(client), 40000)
	conn, err := client.Dial(t.Context(), "tcp", from, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	s, err := c.Get(t.Context(), TCP, to, from)
	if err != nil || s.State != Established || s.Local != to || s.Remote != from || !s.Has(FieldInfo) || !s.HasOwner() {
		t.Errorf("the connection: %v, %+v", err, s)
	}
	stranger := netip.AddrPortFrom(addr(client), 40001)
	for _, remote := range []netip.AddrPort{stranger, unspecified(addr(client))} {
		s, err = c.Get(t.Context(), TCP, to, remote)
		if err != nil || s.State != Listen || s.Local.Port() != 80 || s.Family != IPv6 {
			t.Errorf("the listener for %v: %v, %+v", remote, err, s)
		}
	}
	s, err = c.Get(t.Context(), UDP, netip.AddrPortFrom(addr(server), 53), stranger)
	if err != nil || s.Protocol != UDP || s.State != Close || s.Local.Port() != 53 {
		t.Errorf("UDP: %v, %+v", err, s)
	}
	for _, p := range []Protocol{TCP, UDP} {
		s, err = c.Get(t.Context(), p, netip.AddrPortFrom(addr(server), 81), stranger)
		if !errors.Is(err, fs.ErrNotExist) || s != (Socket{}) {
			t.Errorf("%v: nothing is there: %v, %+v", p, err, s)
		}
	}
}

// unspecified is the remote address of what has no peer.
func unspecified(like netip.Addr) netip.AddrPort {
	if like.Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// What cannot be asked for is not sent.
func TestGetRefused(t *testing.T) {
	c := kernel(t, func(Family, uint32) [][]byte { return nil })
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:80")
	for _, tt := range []struct {
		p             Protocol
		local, remote netip.AddrPort
	}{{Raw, v4, v4}, {TCP, v4, v6}, {TCP, v6, v4}, {TCP, netip.AddrPort{}, netip.AddrPort{}}} {
		if s, err := c.Get(t.Context(), tt.p, tt.local, tt.remote); err == nil || errors.Is(err, fs.ErrNotExist) || s != (Socket{}) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
