package detect

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// inStage plays on a stage, over both families.
func inStage(play func(*stage), detectors ...Detector) func(*testing.T) *slowScene {
	return func(t *testing.T) *slowScene {
		s := slowStage(t)
		return &slowScene{t, s.server, func() { play(s) }, func() []Finding { return s.find(detectors...) }}
	}
}

func slowStage(t *testing.T) *stage {
	s := &stage{crowd: newCrowd(t)}
	s.own()
	return s
}

// find reads the sockets and their settings. Each detector looks by itself: of
// two findings of the same connections Find leaves one.
func (s *stage) find(detectors ...Detector) (found []Finding) {
	s.t.Helper()
	settings, err := sockdiag.ReadSettings(s.server.FS())
	noError(s.t, err)
	h := Host{Now: time.Now(), Sockets: s.sockets(), Sysctls: settings}
	for _, d := range detectors {
		found = append(found, Find(h, d)...)
	}
	return found
}

// both plays over IPv4, and then over IPv6.
func (s *stage) both(play func()) {
	for _, s.ipv6 = range []bool{false, true} {
		play()
	}
}

// six are six connections from a member over each family.
func (s *stage) six(l net.Listener, who int, request string) (pairs []bothEnds) {
	s.both(func() { pairs = append(pairs, s.enter(l, who, 6, request)...) })
	return pairs
}

// all waits until so many are in a state.
func (s *stage) all(n int, state sockdiag.State) {
	s.t.Helper()
	for range 100 {
		if s.count(state) >= n {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.t.Fatalf("want %d in %v, got %v", n, state, s.sockets())
}

func (s *stage) count(state sockdiag.State) (n int) {
	for _, row := range s.sockets() {
		if row.State == state {
			n++
		}
	}
	return n
}

// shut closes the server's half.
func (s *stage) shut(pairs []bothEnds) {
	s.t.Helper()
	for _, p := range pairs {
		noError(s.t, p.server.(*net.TCPConn).CloseWrite())
	}
}

func (s *stage) closeServers(pairs []bothEnds) {
	s.t.Helper()
	for _, p := range pairs {
		noError(s.t, p.server.Close())
	}
}

// deadPeers vanish. The application asks for probes, and says not when.
func deadPeers(s *stage) {
	idle, half := s.six(s.serve(5060), 77, "\n"), s.six(s.serve(9102), 78, "")
	for _, p := range slices.Concat(idle, half) {
		noError(s.t, p.server.(*net.TCPConn).SetKeepAlive(true))
	}
	s.shut(half)
	s.all(12, sockdiag.FinWait2)
	s.mute()
}

func unansweredOpen(s *stage) {
	pairs := s.six(s.serve(9102), 1, "")
	s.mute()
	s.shut(pairs)
}

func halfClosed(s *stage) { s.closeServers(s.six(s.serve(9102), 1, "")) }

// unanswered3 are in three states.
func unanswered3(s *stage) {
	finWait, lastAck, closing := s.six(s.serve(9101), 1, ""), s.six(s.serve(9102), 2, ""), s.six(s.serve(9103), 3, "")
	for _, p := range lastAck {
		noError(s.t, p.client.(*net.TCPConn).CloseWrite())
	}
	s.all(12, sockdiag.CloseWait)
	s.mute()
	s.closeServers(slices.Concat(finWait, lastAck, closing))
	for _, p := range closing {
		noError(s.t, p.client.Close())
	}
	s.all(12, sockdiag.Closing)
}

// full have data to send that their peers do not read.
func (s *stage) full(port uint16) []bothEnds {
	s.t.Helper()
	pairs := s.six(s.serve(port), 1, "")
	var writing sync.WaitGroup
	for _, p := range pairs {
		noError(s.t, p.server.(*net.TCPConn).SetWriteBuffer(16384))
		writing.Go(func() {
			for err := error(nil); err == nil; { // until nothing is taken for a while
				_ = p.server.SetWriteDeadline(time.Now().Add(time.Second))
				_, err = p.server.Write(make([]byte, 4096))
			}
		})
	}
	writing.Wait()
	return pairs
}

func handshakes(s *stage) {
	s.mute()
	s.serve(443)
	s.both(func() {
		s.flood(15, func(i int) netip.AddrPort { return netip.AddrPortFrom(member(s.ipv6, i+1), 4321) })
	})
}

// flood begins handshakes that nobody ends.
func (s *stage) flood(n int, from func(i int) netip.AddrPort) {
	s.t.Helper()
	noError(s.t, s.client.Do(func() error {
		for i := range n {
			if err := forgeSYN(from(i), netip.AddrPortFrom(s.serverAddr(), 443)); err != nil {
				return err
			}
		}
		return nil
	}))
}

func attempted(s *stage) {
	s.mute()
	s.both(func() { noError(s.t, s.server.Do(func() error { return s.begin(5432, 21, s.ipv6, 1) })) })
}

// letIn fills the queue of a listener, which a setting makes short, so that no
// client gets in. With the fix one does, while the flood is there as before, or
// more of it.
func letIn(t *testing.T, setting, narrow string, more bool, want ...string) {
	for _, mended := range []bool{false, true} {
		s := slowStage(t)
		scene := slowScene{t, s.server, nil, func() []Finding {
			return s.find(SynFlood{Limit: 5}, PerSource{Limit: 5}, Census{Limit: 5})
		}}
		s.set(syncookies, "0")
		s.set(narrow, "12")
		s.mute()
		l := s.serve(443)
		s.floodOfOne(2000)
		fixes := scene.until(setting, want)
		if mended {
			scene.obey(fixes)
		}
		for i, ipv6 := range []bool{false, true} {
			s.floodOfOne(uint16(3000 + 100*i)) // in place of what has ended, which is soon in a full queue
			s.ipv6 = ipv6
			if err := s.knock(l); mended == (err != nil) {
				t.Errorf("IPv6 %t, with %s %t: %v", ipv6, setting, mended, err)
			}
		}
		if n := s.count(sockdiag.SynRecv); n > 16 != (mended && more) {
			t.Errorf("with %s %t, %d are half-open", setting, mended, n)
		}
		provedRemedies(t, fixes)
	}
}

// floodOfOne begins ten handshakes over each family.
func (s *stage) floodOfOne(port uint16) {
	s.t.Helper()
	for i := range uint16(10) {
		s.both(func() {
			s.flood(1, func(int) netip.AddrPort { return netip.AddrPortFrom(member(s.ipv6, 77), port+i) })
		})
	}
}

// knock connects from an address that has nothing to do with the flood.
func (s *stage) knock(l net.Listener) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 900*time.Millisecond) // one SYN
	defer cancel()
	near, err := s.client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(s.serverAddr(), 443), nil)
	if err != nil {
		return err
	}
	defer near.Close() //nolint:errcheck // at the end
	far, err := l.Accept()
	noError(s.t, err)
	defer far.Close() //nolint:errcheck // at the end
	exchange(s.t, near, far)
	return nil
}

// answering are peers that take nothing, and answer. The settings end no such
// connection sooner, tcp_retries2 has the closed ones never end, and the timeout of
// an application ends its own.
func answering(t *testing.T) {
	closed, both := slowStage(t), slowStage(t)
	closed.closeServers(closed.full(9103))
	both.closeServers(both.full(9103))
	open := both.full(9102)
	both.shut(open)
	time.Sleep(4 * time.Second) // the first probes come too fast for answers (tcp_invalid_ratelimit)
	for setting, s := range map[string]*stage{orphanRetries + "=1": closed, "net.ipv4.tcp_retries2=8": both} {
		scene := slowScene{t, s.server, nil, func() []Finding { return s.find(Leaks{FinWait1: 5}) }}
		scene.obey(scene.until(setting, []string{"Leaks"}))
	}
	left := func(when string, s *stage, services int) {
		if found := s.find(Leaks{FinWait1: 5}); len(found) != services {
			t.Errorf("%s: %v", when, found)
		}
	}
	time.Sleep(210 * time.Second)
	left("no sooner", closed, 1)
	time.Sleep(210 * time.Second)
	left("after seven minutes", closed, 0)
	time.Sleep(time.Hour)
	left("never", both, 2)
	for _, p := range open {
		raw, err := p.server.(*net.TCPConn).SyscallConn()
		noError(t, err)
		noError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000) }))
		noError(t, err)
	}
	time.Sleep(2 * timerLate(2*time.Minute)) // the longest between two probes
	left("with TCP_USER_TIMEOUT", both, 1)
}

// timeWaits are more than may be: with the fix all are kept.
func timeWaits(t *testing.T) {
	s := slowStage(t)
	s.set(maxTimeWait, "12")
	l := s.serve(443)
	s.both(func() { over(t, s.connect(l, member(s.ipv6, 1), 12, "GET /")) })
	scene := slowScene{t, s.server, nil, func() []Finding { return s.find(Audit{}) }}
	fixes := scene.until(maxTimeWait+"=180000", []string{"Audit"})
	if n := s.count(sockdiag.TimeWait); n != 12 {
		t.Errorf("there are %d", n)
	}
	scene.obey(fixes)
	s.both(func() { over(t, s.connect(l, member(s.ipv6, 2), 12, "GET /")) })
	s.all(36, sockdiag.TimeWait)
	if left := scene.left(fixes); len(left) > 0 {
		t.Errorf("%v", left)
	}
	provedRemedies(t, fixes)
}

// behindRouter takes 8 of 10 ports of each family, by connections that are over.
func behindRouter(t *testing.T) *slowScene {
	client, router, server := lab.Three(t)
	noError(t, router.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
		{Name: "post", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
			{OutIface: "server", Verdict: nft.Masquerade},
		}},
	}}))
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: router.NetNS()})
	noError(t, err)
	t.Cleanup(func() { noError(t, ct.Close()) })
	return &slowScene{t, router, func() {
		for _, to := range []netip.Addr{server.Addr4(), server.Addr6()} {
			comeAndGo(t, client, server, netip.AddrPortFrom(to, 443))
		}
	}, func() []Finding {
		flows, err := ct.Snapshot(t.Context(), nil)
		noError(t, err)
		return Find(Host{Now: time.Now(), Flows: flows.Flows}, PortSpace{Ports: conntrack.PortRange{First: 30_000, Last: 30_009}})
	}}
}

func comeAndGo(t *testing.T, client, server *lab.Host, to netip.AddrPort) {
	t.Helper()
	l, err := server.Listen("tcp", to)
	noError(t, err)
	defer l.Close() //nolint:errcheck // at the end
	for i := range uint16(8) {
		near, err := client.Dial(t.Context(), "tcp", netip.AddrPortFrom(netip.Addr{}, 30_000+i), to, &lab.DialOptions{ReuseAddr: true})
		noError(t, err)
		far, err := l.Accept()
		noError(t, err)
		noError(t, near.Close())
		noError(t, far.Close())
	}
}
