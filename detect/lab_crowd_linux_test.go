package detect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// crowdPatience is how long anything of the lab is waited for.
const crowdPatience = 20 * time.Second

// crowd is a server, and a host that has all addresses of 198.18.0.0/24 and of
// 2001:db8:18::/48 for its own.
type crowd struct {
	t              *testing.T
	client, server *lab.Host
	diag           *sockdiag.Conn
}

var (
	crowd4 = netip.MustParsePrefix("198.18.0.0/24")
	crowd6 = netip.MustParsePrefix("2001:db8:18::/48")
)

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	n := lab.New(t)
	c := &crowd{t: t, client: n.MustHost(t, "crowd"), server: n.MustHost(t, "server")}
	noError(t, n.Link(c.client, c.server, lab.Near4, lab.Near6))
	noError(t, n.Route(c.server, c.client, crowd4, crowd6))
	var err error
	c.diag, err = sockdiag.Dial(&sockdiag.Config{NetNS: c.server.NetNS()})
	noError(t, err)
	t.Cleanup(func() { noError(t, c.diag.Close()) })
	return c
}

// own gives the client the addresses.
func (c *crowd) own() {
	c.t.Helper()
	ip := lab.Tool(c.t, "ip")
	noError(c.t, c.client.SetSysctl("net.ipv6.ip_nonlocal_bind", "1")) // a local route suffices over IPv4 only
	for _, p := range []netip.Prefix{crowd4, crowd6} {
		_, err := c.client.Exec(c.t.Context(), ip, "route", "add", "local", p.String(), "dev", "lo")
		noError(c.t, err)
	}
}

// mute has the addresses answer nothing, not even that they are nobody's.
func (c *crowd) mute() {
	c.t.Helper()
	noError(c.t, c.client.Rules(c.t.Context(), nft.Table{Family: nft.INet, Name: "mute", Chains: []nft.Chain{
		{Name: "prerouting", Hook: nft.Prerouting, Rules: []nft.Rule{{Dst: crowd4, Verdict: nft.Drop}, {Dst: crowd6, Verdict: nft.Drop}}},
	}}))
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// member is the address of a member of the crowd; those of IPv6 are sources of
// their own.
func member(ipv6 bool, i int) netip.Addr {
	text := fmt.Sprintf("198.18.0.%d", i)
	if ipv6 {
		text = fmt.Sprintf("2001:db8:18:%x::1", i)
	}
	return netip.MustParseAddr(text)
}

func (c *crowd) listen(port uint16) net.Listener {
	c.t.Helper()
	l, err := c.server.Listen("tcp", netip.AddrPortFrom(netip.Addr{}, port))
	noError(c.t, err)
	c.t.Cleanup(func() { noError(c.t, l.Close()) })
	return l
}

// bothEnds are the two ends of a connection.
type bothEnds struct{ client, server net.Conn }

// connect makes n connections from an address, each of which sends a request.
func (c *crowd) connect(l net.Listener, from netip.Addr, n int, request string) (pairs []bothEnds) {
	c.t.Helper()
	to := c.server.Addr4()
	if from.Is6() {
		to = c.server.Addr6()
	}
	d := net.Dialer{KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: crowdPatience}
	d.SetMultipathTCP(false)
	noError(c.t, c.client.Do(func() error {
		for range n {
			conn, err := d.DialContext(c.t.Context(), "tcp", netip.AddrPortFrom(to, uint16(l.Addr().(*net.TCPAddr).Port)).String())
			if err != nil {
				return err
			}
			pairs = append(pairs, bothEnds{client: conn})
		}
		return nil
	}))
	for i := range pairs {
		var err error
		pairs[i].server, err = l.Accept()
		noError(c.t, err)
		_, err = io.WriteString(pairs[i].client, request)
		noError(c.t, err)
		c.t.Cleanup(func() { _, _ = pairs[i].client.Close(), pairs[i].server.Close() })
	}
	return pairs
}

// over closes connections, the server first.
func over(t *testing.T, pairs []bothEnds) {
	t.Helper()
	for _, p := range pairs {
		noError(t, p.server.SetReadDeadline(time.Now().Add(crowdPatience)))
		_, err := p.server.Read(make([]byte, 64)) // unread, it would make a RST of the FIN
		noError(t, err)
		noError(t, p.server.Close())
	}
	for _, p := range pairs {
		noError(t, p.client.Close())
	}
}

func (c *crowd) sockets() []sockdiag.Socket {
	c.t.Helper()
	s, err := c.diag.Snapshot(c.t.Context(), sockdiag.Query{Info: true})
	noError(c.t, err)
	return s.Sockets
}

// sourceDetectors are those that look at sources.
var sourceDetectors = []Detector{PerSource{}, IdleFlood{Limit: 30, Silence: 20 * time.Millisecond}, SynFlood{}, OutboundScan{}}

// quiet checks that nothing is found.
func (c *crowd) quiet() {
	c.t.Helper()
	if found := Find(Host{Now: now, Sockets: c.sockets()}, sourceDetectors...); len(found) != 0 {
		c.t.Errorf("on a healthy host: %v", found)
	}
}

// finds waits until something is found, and checks that it is this alone.
func (c *crowd) finds(detector, subject string, count uint64, words ...string) Finding {
	c.t.Helper()
	var found []Finding
	for end := time.Now().Add(crowdPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		found = Find(Host{Now: now, Sockets: c.sockets()}, sourceDetectors...)
		if len(found) > 0 && found[0].Count >= count {
			break
		}
	}
	if len(found) != 1 || found[0].Detector != detector || found[0].Subject != subject || found[0].Count != count ||
		found[0].Confidence != Likely || !mentions(found[0].Cause, words...) || len(found[0].Evidence.Sockets) == 0 {
		c.t.Fatalf("got %v, want %s about %s with %d", found, detector, subject, count)
	}
	return found[0]
}

// eachCrowd runs a test in a crowd of each family.
func eachCrowd(t *testing.T, test func(t *testing.T, c *crowd, ipv6 bool)) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newCrowd(t), ipv6)
		})
	}
}

// memberSource is the source of a member.
func memberSource(ipv6 bool, i int) string {
	var s Sources
	return bare(s.prefix(s.source(member(ipv6, i))))
}

// begin begins n connections to each of the first members.
func (c *crowd) begin(port, n int, ipv6 bool, members int) error {
	for i := range n * members {
		fd, err := unix.Socket(socketDomain(ipv6), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		c.t.Cleanup(func() { noError(c.t, unix.Close(fd)) })
		err = unix.Connect(fd, socketAddr(netip.AddrPortFrom(member(ipv6, i%members+1), uint16(port))))
		if !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}

func socketDomain(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func socketAddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// forgeSYN opens a handshake that src, whoever it is, will never finish.
func forgeSYN(src, dst netip.AddrPort) error {
	fd, err := unix.Socket(socketDomain(dst.Addr().Is6()), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	addrs := slices.Concat(src.Addr().AsSlice(), dst.Addr().AsSlice())
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[12], tcp[13], tcp[14] = 5<<4, 0x02, 0x40 // data offset, SYN, window
	binary.BigEndian.PutUint16(tcp[16:], internetSum(slices.Concat(addrs, []byte{0, 6, 0, 20}, tcp)))
	ip := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0} // the kernel sums it
	if dst.Addr().Is6() {
		ip = []byte{0x60, 0, 0, 0, 0, 20, 6, 64}
	}
	return unix.Sendto(fd, slices.Concat(ip, addrs, tcp), 0, socketAddr(netip.AddrPortFrom(dst.Addr(), 0)))
}

// internetSum is that of RFC 1071.
func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}
