package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/bouncer/replay"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	service    = 9102
	clientPort = 51522
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refuse lets in what is established, and new connections to the service.
func refuse(t *testing.T, h *lab.Host, ports ...uint16) {
	t.Helper()
	rules := []nft.Rule{{CTState: nft.Established | nft.Related, Verdict: nft.Accept}}
	for _, port := range ports {
		rules = append(rules, nft.Rule{CTState: nft.New, Proto: nft.TCP, DstPort: port,
			TCPFlags: nft.TCPFlags{Mask: nft.FIN | nft.SYN | nft.RST | nft.ACK, Value: nft.SYN}, Verdict: nft.Accept})
	}
	rules = append(rules, nft.Rule{Verdict: nft.RejectAdminProhibited})
	ok(t, h.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "refuse", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: rules},
	}}))
}

// scene is a server that answers late a client that went away.
type scene struct {
	*testing.T
	server     *lab.Host
	client     *replay.Visitor
	from, to   netip.AddrPort
	listener   net.Listener
	fromClient conntrack.Tuple
}

func newScene(t *testing.T, ipv6 bool) *scene {
	t.Helper()
	w := replay.New(t, "memory")
	s := &scene{T: t, server: w.Server, client: w.Visitor(1)}
	s.from, s.to = netip.AddrPortFrom(s.client.Addr4(), clientPort), netip.AddrPortFrom(s.server.Addr4(), service)
	if ipv6 {
		s.from, s.to = netip.AddrPortFrom(s.client.Addr6(), clientPort), netip.AddrPortFrom(s.server.Addr6(), service)
	}
	s.fromClient = conntrack.Tuple{Src: s.from.Addr(), Dst: s.to.Addr(), SrcPort: clientPort, DstPort: service, Proto: conntrack.ProtoTCP}
	refuse(t, s.server, service)
	refuse(t, s.client.Host)
	ok(t, s.server.SetSysctl("net.ipv4.tcp_retries2", "1"))
	ok(t, s.client.SetSysctl("net.ipv4.tcp_fin_timeout", "1"))
	var err error
	s.listener, err = s.server.Listen("tcp", s.to)
	ok(t, err)
	t.Cleanup(func() { _ = s.listener.Close() })
	return s
}

// connect connects from a port, 0 for any, and returns both ends.
func (s *scene) connect(port uint16) (c, d net.Conn, err error) {
	ctx, cancel := context.WithTimeout(s.Context(), replay.Patience)
	defer cancel()
	c, err = s.client.Host.Dial(ctx, "tcp", netip.AddrPortFrom(s.from.Addr(), port), s.to, &lab.DialOptions{ReuseAddr: true})
	if err != nil {
		return nil, nil, err
	}
	s.Cleanup(func() { _ = c.Close() })
	if d, err = s.listener.Accept(); err == nil {
		s.Cleanup(func() { _ = d.Close() })
	}
	return c, d, err
}

// eventually waits for something.
func (s *scene) eventually(what string, done func() bool) {
	s.Helper()
	for end := time.Now().Add(replay.Patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not in time: %s", what)
		}
	}
}

// ct opens the tracker of a host.
func (s *scene) ct(h *lab.Host) *conntrack.Conn {
	s.Helper()
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	ok(s, err)
	s.Cleanup(func() { ok(s, ct.Close()) })
	return ct
}

// none reports that a host has no socket of the connection.
func (s *scene) none(h *lab.Host, local, remote uint16) bool {
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
	ok(s, err)
	defer diag.Close()
	for row, err := range diag.All(s.Context(), sockdiag.Query{LocalPort: local, RemotePort: remote}) {
		ok(s, err)
		if row.State != sockdiag.Listen {
			return false
		}
	}
	return true
}

// raise makes a ghost on the server: the client went away, both trackers forgot,
// and then the server answered. It is internal/incidents' ghost, with entries that
// are deleted and not waited for.
//
// FIN_WAIT2 may end with a RST (tcp_keepalive_timer), where the ACK of the FIN came
// while close(2) had the socket: then it is tried again.
func (s *scene) raise(ct *conntrack.Conn) {
	s.Helper()
	err := s.answerLate(ct)
	for try := 1; try < 3 && errors.Is(err, syscall.EPIPE); try++ {
		err = s.answerLate(ct)
	}
	ok(s, err)
	s.eventually("the server's socket to go away", func() bool { return s.none(s.server, service, clientPort) })
	f, err := ct.Get(s.Context(), s.fromClient.Invert(), 0)
	ok(s, err)
	if f.TCP.State != conntrack.TCPEstablished || !f.Unreplied() {
		s.Fatalf("no ghost: %v", f)
	}
}

// answerLate has the server answer when the client and both trackers have
// forgotten the connection.
func (s *scene) answerLate(ct *conntrack.Conn) error {
	s.Helper()
	c, d, err := s.connect(clientPort)
	ok(s, err)
	ok(s, c.Close())
	s.eventually("the client's socket to go away", func() bool { return s.none(s.client.Host, clientPort, service) })
	for _, ct := range []*conntrack.Conn{ct, s.ct(s.client.Host)} {
		f, err := ct.Get(s.Context(), s.fromClient, 0)
		ok(s, err)
		ok(s, ct.Delete(s.Context(), f))
	}
	_, err = io.WriteString(d, "late answer\n")
	return err
}

// TestSweep is S2: the ghost is told and left alone without -apply, and deleted
// with it, and nothing else is; then the same port connects.
func TestSweep(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprint("IPv6 ", ipv6), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, ipv6)
			ct := s.ct(s.server)
			neighbour, _, err := s.connect(0)
			ok(t, err)
			s.raise(ct)
			dry := replay.Start(t, s.server, "-json", "-every", "50ms")
			l := dry.Await("would delete", "")
			if want := fmt.Sprintf("%v > %v", s.to, s.from); l.Subject != want || !strings.Contains(l.Cause, "tcp_loose") || len(l.Fix) == 0 {
				t.Errorf("%+v; want %s", l, want)
			}
			s.eventually("another sweep", func() bool { return len(dry.Lines()) > 1 })
			dry.Stop(syscall.SIGTERM)
			if _, _, err := s.connect(clientPort); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) {
				t.Errorf("past the ghost: %v", err)
			}

			p := replay.Start(t, s.server, "-json", "-apply")
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d", status)
			}
			if lines := p.Lines(); len(lines) != 1 || lines[0].Action != "deleted" || lines[0].Subject != l.Subject {
				t.Errorf("%+v", lines)
			}
			if f, err := ct.Get(t.Context(), s.fromClient.Invert(), 0); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the ghost: %v: %v", f, err)
			}
			c, d, err := s.connect(clientPort)
			ok(t, err)
			go replay.Echo(d)
			ok(t, replay.Talk(c, "hello"))
			tuple := s.fromClient
			tuple.SrcPort = neighbour.LocalAddr().(*net.TCPAddr).AddrPort().Port()
			_, err = ct.Get(t.Context(), tuple, 0)
			ok(t, err)

			p = replay.Start(t, s.server, "-apply", "-rounds", "2", "-every", "1ms")
			status := p.Wait()
			if out, log := p.Text(); status != 0 || strings.Count(out, "ghosts: nothing") != 2 || log != "" {
				t.Errorf("of no ghosts: status %d: %q, %q", status, out, log)
			}
		})
	}
}

// TestNotPermitted says what it takes.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	w := replay.New(t, "memory")
	p := replay.StartPlain(t, w.Server)
	status := p.Wait()
	if _, log := p.Text(); status != 1 || !strings.Contains(log, "CAP_NET_ADMIN") {
		t.Errorf("status %d: %q", status, log)
	}
}
