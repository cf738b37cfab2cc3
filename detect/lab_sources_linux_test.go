package detect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// patience is how long anything of the lab is waited for.
const patience = 20 * time.Second

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
	check(t, n.Link(c.client, c.server, lab.Near4, lab.Near6))
	check(t, n.Route(c.server, c.client, crowd4, crowd6))
	var err error
	c.diag, err = sockdiag.Dial(&sockdiag.Config{NetNS: c.server.NetNS()})
	check(t, err)
	t.Cleanup(func() { check(t, c.diag.Close()) })
	return c
}

// own gives the client the addresses.
func (c *crowd) own() {
	c.t.Helper()
	ip := lab.Tool(c.t, "ip")
	check(c.t, c.client.SetSysctl("net.ipv6.ip_nonlocal_bind", "1")) // a local route suffices over IPv4 only
	for _, p := range []netip.Prefix{crowd4, crowd6} {
		_, err := c.client.Exec(c.t.Context(), ip, "route", "add", "local", p.String(), "dev", "lo")
		check(c.t, err)
	}
}

// mute has the addresses answer nothing, not even that they are nobody's.
func (c *crowd) mute() {
	c.t.Helper()
	check(c.t, c.client.Rules(c.t.Context(), nft.Table{Family: nft.INet, Name: "mute", Chains: []nft.Chain{
		{Name: "prerouting", Hook: nft.Prerouting, Rules: []nft.Rule{{Dst: crowd4, Verdict: nft.Drop}, {Dst: crowd6, Verdict: nft.Drop}}},
	}}))
}

func check(t testing.TB, err error) {
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
	check(c.t, err)
	c.t.Cleanup(func() { check(c.t, l.Close()) })
	return l
}

// pair is the two ends of a connection.
type pair struct{ client, server net.Conn }

// connect makes n connections from an address, each of which sends a request.
func (c *crowd) connect(l net.Listener, from netip.Addr, n int, request string) (pairs []pair) {
	c.t.Helper()
	to := c.server.Addr4()
	if from.Is6() {
		to = c.server.Addr6()
	}
	d := net.Dialer{KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	d.SetMultipathTCP(false)
	check(c.t, c.client.Do(func() error {
		for range n {
			conn, err := d.DialContext(c.t.Context(), "tcp", netip.AddrPortFrom(to, uint16(l.Addr().(*net.TCPAddr).Port)).String())
			if err != nil {
				return err
			}
			pairs = append(pairs, pair{client: conn})
		}
		return nil
	}))
	for i := range pairs {
		var err error
		pairs[i].server, err = l.Accept()
		check(c.t, err)
		_, err = io.WriteString(pairs[i].client, request)
		check(c.t, err)
		c.t.Cleanup(func() { _, _ = pairs[i].client.Close(), pairs[i].server.Close() })
	}
	return pairs
}

// over closes connections, the server first.
func over(t *testing.T, pairs []pair) {
	t.Helper()
	for _, p := range pairs {
		check(t, p.server.SetReadDeadline(time.Now().Add(patience)))
		_, err := p.server.Read(make([]byte, 64)) // unread, it would make a RST of the FIN
		check(t, err)
		check(t, p.server.Close())
	}
	for _, p := range pairs {
		check(t, p.client.Close())
	}
}

func (c *crowd) sockets() []sockdiag.Socket {
	c.t.Helper()
	s, err := c.diag.Snapshot(c.t.Context(), sockdiag.Query{Info: true})
	check(c.t, err)
	return s.Sockets
}

// all are the detectors that look at sources.
var all = []Detector{PerSource{}, IdleFlood{Limit: 30, Silence: 20 * time.Millisecond}, SynFlood{}, OutboundScan{}}

// quiet checks that nothing is found.
func (c *crowd) quiet() {
	c.t.Helper()
	if found := Find(Host{Now: now, Sockets: c.sockets()}, all...); len(found) != 0 {
		c.t.Errorf("on a healthy host: %v", found)
	}
}

// finds waits until something is found, and checks that it is this alone.
func (c *crowd) finds(detector, subject string, count uint64, words ...string) Finding {
	c.t.Helper()
	var found []Finding
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		found = Find(Host{Now: now, Sockets: c.sockets()}, all...)
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

// families runs a test in a crowd of each family.
func families(t *testing.T, test func(t *testing.T, c *crowd, ipv6 bool)) {
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

func TestLabTimeWait(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(443)
		c.quiet()
		for i := range 7 { // a busy host
			over(t, c.connect(l, member(ipv6, i+1), 12, "GET /"))
		}
		c.quiet()
		over(t, c.connect(l, member(ipv6, 77), 40, "GET /"))
		f := c.finds("PerSource", memberSource(ipv6, 77), 40, "in TIME_WAIT, on port 443")
		if f.Evidence.Sockets[0].State != sockdiag.TimeWait {
			t.Errorf("evidence %v", f.Evidence.Sockets)
		}
	})
}

func TestLabEstablished(t *testing.T) {
	families(t, func(_ *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(5060)
		request := strings.Repeat("INVITE ", 20)
		c.connect(l, member(ipv6, 1), 43, request) // the database
		c.connect(l, member(ipv6, 2), 20, "\n")
		c.quiet()
		c.connect(l, member(ipv6, 77), 61, request)
		c.finds("PerSource", memberSource(ipv6, 77), 61, "in ESTABLISHED, on port 5060")
	})
}

func TestLabIdle(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(5060)
		c.connect(l, member(ipv6, 1), 43, strings.Repeat("INVITE ", 20))
		c.quiet()
		c.connect(l, member(ipv6, 77), 28, "\n")
		for _, p := range c.connect(l, member(ipv6, 77), 3, "") {
			check(t, p.server.(*net.TCPConn).SetKeepAlive(true))
		}
		c.connect(l, member(ipv6, 77), 4, strings.Repeat("INVITE ", 20))
		f := c.finds("IdleFlood", memberSource(ipv6, 77), 31, "31 idle", "of 35", "on 28 of them")
		if len(f.Evidence.Missing) != 0 {
			t.Errorf("missing %q", f.Evidence.Missing)
		}
	})
}

// Handshakes that nobody ends, from forged addresses, and then from one.
func TestLabSynFlood(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		c.listen(443)
		c.listen(80)
		to := c.server.Addr4()
		if ipv6 {
			to = c.server.Addr6()
		}
		check(t, c.client.Do(func() error {
			for i := range 66 {
				if err := sendSYN(netip.AddrPortFrom(member(ipv6, i+1), 4321), netip.AddrPortFrom(to, 443)); err != nil {
					return err
				}
			}
			return nil
		}))
		f := c.finds("SynFlood", "port 443", 66, "of 66 sources", "forged")
		if f.Sources != nil || f.Evidence.Sockets[0].State != sockdiag.SynRecv {
			t.Errorf("got %+v", f)
		}
	})
}

func TestLabSynFloodOfOne(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		c.listen(443)
		to := c.server.Addr4()
		if ipv6 {
			to = c.server.Addr6()
		}
		check(t, c.client.Do(func() error {
			var errs []error
			for i := range 66 {
				errs = append(errs, sendSYN(netip.AddrPortFrom(member(ipv6, 77), uint16(2000+i)), netip.AddrPortFrom(to, 443)))
			}
			return errors.Join(errs...)
		}))
		// PerSource sees the same, at once.
		var found []Finding
		for end := time.Now().Add(patience); len(found) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			found = Find(Host{Now: now, Sockets: c.sockets()}, all...)
		}
		if len(found) != 2 || found[0].Detector != "PerSource" || found[1].Detector != "SynFlood" {
			t.Fatalf("got %v", found)
		}
		for _, f := range found {
			if len(f.Sources) != 1 || bare(f.Sources[0]) != memberSource(ipv6, 77) {
				t.Errorf("got %+v", f)
			}
		}
	})
}

// SYNs of the server to where nobody answers.
func TestLabOutboundScan(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		check(t, c.server.Do(func() error { return c.begin(23, 1, ipv6, 41) }))
		c.finds("OutboundScan", "this host, to port 23", 41, "41 destinations", "none of them answers")
	})
}

func TestLabDeadPeer(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		check(t, c.server.Do(func() error { return c.begin(5432, 21, ipv6, 1) }))
		c.finds("OutboundScan", "this host, to "+member(ipv6, 1).String(), 21, "does not answer")
	})
}

// begin begins n connections to each of the first members.
func (c *crowd) begin(port, n int, ipv6 bool, members int) error {
	for i := range n * members {
		fd, err := unix.Socket(domain(ipv6), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		c.t.Cleanup(func() { check(c.t, unix.Close(fd)) })
		err = unix.Connect(fd, sockaddr(netip.AddrPortFrom(member(ipv6, i%members+1), uint16(port))))
		if !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}

func domain(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// sendSYN opens a handshake that src, whoever it is, will never finish.
func sendSYN(src, dst netip.AddrPort) error {
	fd, err := unix.Socket(domain(dst.Addr().Is6()), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	addrs := slices.Concat(src.Addr().AsSlice(), dst.Addr().AsSlice())
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[12], tcp[13], tcp[14] = 5<<4, 0x02, 0x40 // data offset, SYN, window
	binary.BigEndian.PutUint16(tcp[16:], checksum(slices.Concat(addrs, []byte{0, 6, 0, 20}, tcp)))
	ip := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0} // the kernel sums it
	if dst.Addr().Is6() {
		ip = []byte{0x60, 0, 0, 0, 0, 20, 6, 64}
	}
	return unix.Sendto(fd, slices.Concat(ip, addrs, tcp), 0, sockaddr(netip.AddrPortFrom(dst.Addr(), 0)))
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

// The kernel's own events of connections that are over at once.
func TestLabRate(t *testing.T) {
	families(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		check(t, c.server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
			{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Accept}}},
		}}))
		found := c.rates(Rate{Limits: []Limit{{20, 5 * time.Minute}}})
		l := c.listen(443)
		for i := range 5 {
			over(t, c.connect(l, member(ipv6, i+1), 19, "GET /"))
		}
		over(t, c.connect(l, member(ipv6, 77), 25, "GET /"))
		over(t, c.connect(l, member(ipv6, 78), 20, "GET /"))
		var got []string
		for len(got) < 2 {
			select {
			case f := <-found:
				got = append(got, bare(f.Sources[0]))
			case <-time.After(patience):
				t.Fatalf("found %v", got)
			}
		}
		if want := []string{memberSource(ipv6, 77), memberSource(ipv6, 78)}; !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
	})
}

// rates counts the events of the server until the test ends.
func (c *crowd) rates(d Rate) <-chan Finding {
	c.t.Helper()
	conn, err := conntrack.Dial(&conntrack.Config{NetNS: c.server.NetNS()})
	check(c.t, err)
	ctx, cancel := context.WithCancel(c.t.Context())
	ready, found := make(chan struct{}), make(chan Finding, 100)
	var done sync.WaitGroup
	done.Go(func() {
		r := d.Start(c.server.Addr4(), c.server.Addr6())
		for e, err := range conn.Events(ctx, &conntrack.EventOptions{Ready: func() { close(ready) }}) {
			if err != nil && ctx.Err() == nil {
				c.t.Error(err)
			} else if f, ok := r.Add(time.Now(), &e); ok {
				found <- f
			}
		}
	})
	c.t.Cleanup(func() {
		cancel()
		done.Wait()
		check(c.t, conn.Close())
	})
	select {
	case <-ready:
	case <-time.After(patience):
		c.t.Fatal("no events")
	}
	return found
}

// The commands of the remedies are such as nft takes, in a table that has what
// they name.
func TestLabFixes(t *testing.T) {
	tool, h := lab.Tool(t, "nft"), lab.New(t).MustHost(t, "host")
	run := func(args ...string) error {
		_, err := h.Exec(t.Context(), args[0], args[1:]...)
		return err
	}
	for _, set := range []string{
		"add table inet filter", "add chain inet filter input { type filter hook input priority 0; }",
		"add set inet filter banned4 { type ipv4_addr; flags interval; }", "add set inet filter banned6 { type ipv6_addr; flags interval; }",
	} {
		check(t, run(tool, set))
	}
	for _, p := range prefixes("192.0.2.7/32", "198.51.100.0/24", "2001:db8:7::/64", "2001:db8::7/128") {
		r := Rate{Sources: Sources{IPv4: p.Bits(), IPv6: p.Bits()}}.Start()
		f := r.finding(now, sourceKey{source: source(p.Addr().As16()), port: uint16(p.Bits())}, r.windows[0], &conntrack.Flow{})
		for _, text := range []string{banFix(p), f.Fix[1]} {
			command := strings.Split(text, "`")[1]
			if err := run("sh", "-c", command); err != nil {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
}
