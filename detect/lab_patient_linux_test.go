package detect

import (
	"context"
	"maps"
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

// slowFix is a setting that takes its time. It is seen to help beside the same
// scene without it.
type slowFix struct {
	name    string
	setting string // as printed, with its value
	// scene is made twice, and played in both.
	scene func(t *testing.T) *slowScene
	// want are the detectors that print the setting, once for each finding.
	want []string
	// later says that it is for what comes after it: what was there already
	// stays, for as long as without it.
	later bool
	// gone is after how long nothing is found any more, which without it is.
	gone time.Duration
}

// slowScene is a host, and what detectors find of it.
type slowScene struct {
	*testing.T
	host  *lab.Host
	play  func()
	found func() []Finding
}

// Fixes that take a minute or more, at the value that is printed.
func TestLabPatient(t *testing.T) {
	if !lab.Emulated() {
		t.Skip("waits for hours, over which the clock of internal/ci/kernels leaps")
	}
	for _, fix := range slowFixes {
		t.Run(fix.name, func(t *testing.T) {
			t.Parallel()
			fix.test(t)
		})
	}
	t.Run("syncookies", func(t *testing.T) {
		t.Parallel()
		letIn(t, syncookies+"=1", map[string]string{somaxconn: "12"}, "Census", "PerSource", "PerSource", "SynFlood")
	})
	t.Run("backlog", func(t *testing.T) {
		t.Parallel()
		letIn(t, synBacklog+"=65536", map[string]string{synBacklog: "16"}, "SynFlood")
	})
	t.Run("no window", func(t *testing.T) {
		t.Parallel()
		noWindow(t)
	})
	t.Run("time wait", func(t *testing.T) {
		t.Parallel()
		timeWaits(t)
	})
}

func (x *slowFix) test(t *testing.T) {
	without, with := x.scene(t), x.scene(t)
	without.play()
	fixes := without.until(x.setting, x.want)
	if x.later {
		without.obey(fixes)
		with.obey(fixes)
	}
	with.play()
	with.awaits(fixes)
	if !x.later {
		with.obey(fixes)
	}
	time.Sleep(x.gone)
	if left := with.left(fixes); len(left) > 0 {
		t.Errorf("%v after %s: %v", x.gone, x.setting, left)
	}
	if left := without.left(fixes); len(left) != len(fixes) {
		t.Errorf("without %s there is only %v after %v", x.setting, left, x.gone)
	}
	provedRemedies(t, fixes)
}

// about is what a finding is about, and its detector.
type about struct{ detector, subject string }

// until waits until detectors print a setting, and returns what they print.
func (s *slowScene) until(setting string, detectors []string) map[about]string {
	s.Helper()
	var found []Finding
	for range 30 {
		fixes := make(map[about]string)
		found = s.found()
		for _, f := range found {
			for _, fix := range f.Fix {
				if strings.Contains(fix, "`sysctl -w "+setting+"`") {
					fixes[about{f.Detector, f.Subject}] = fix
				}
			}
		}
		var names []string
		for a := range fixes {
			names = append(names, a.detector)
		}
		if slices.Sort(names); slices.Equal(names, detectors) {
			return fixes
		}
		time.Sleep(4 * time.Second)
	}
	s.Fatalf("want %s by %v, found %v", setting, detectors, found)
	return nil
}

// awaits waits until the same is found, which no longer may print the setting.
func (s *slowScene) awaits(fixes map[about]string) {
	s.Helper()
	for range 30 {
		if len(s.left(fixes)) == len(fixes) {
			return
		}
		time.Sleep(4 * time.Second)
	}
	s.Fatalf("want %v, found %v", fixes, s.found())
}

// left are those that are still found.
func (s *slowScene) left(fixes map[about]string) map[about]string {
	left := make(map[about]string)
	for _, f := range s.found() {
		if fix, ok := fixes[about{f.Detector, f.Subject}]; ok {
			left[about{f.Detector, f.Subject}] = fix
		}
	}
	return left
}

func (s *slowScene) obey(fixes map[about]string) {
	s.Helper()
	for fix := range maps.Values(fixes) {
		for _, command := range commandsOf(fix) {
			if out, err := s.host.Exec(s.Context(), "sh", "-c", command); err != nil {
				s.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
}

func provedRemedies(t *testing.T, fixes map[about]string) {
	for a, fix := range fixes {
		t.Logf("%s of %s: %s", a.detector, a.subject, fix)
		provedOf(t, a.detector, fix)
	}
}

// slowFixes are those after which it takes a while until nothing is found.
var slowFixes = []slowFix{
	// Without it the first probe comes after two hours. Nine go unanswered.
	{"dead peers", keepaliveTime + "=1200", inStage(deadPeers, IdleFlood{Limit: 5}, PerSource{Limit: 5}, Leaks{FinWait2: 5}),
		[]string{"IdleFlood", "IdleFlood", "Leaks", "PerSource", "PerSource"}, true, timerLate(1200*time.Second) + 9*timerLate(75*time.Second)},
	{"unanswered, and open", "net.ipv4.tcp_retries2=8", inStage(unansweredOpen, Leaks{FinWait1: 5}), // else 15 minutes
		[]string{"Leaks"}, false, 210 * time.Second},
	{"ports", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=30", behindRouter, // else two minutes
		[]string{"PortSpace", "PortSpace"}, true, timerLate(30 * time.Second)},
	{"half closed", finTimeout + "=30", inStage(halfClosed, Leaks{Orphans: 5}, Census{Limit: 5}, PerSource{Limit: 5}), // else a minute
		[]string{"Census", "Leaks", "PerSource", "PerSource"}, true, timerLate(30 * time.Second)},
	{"handshakes", synAckRetries + "=3", inStage(handshakes, SynFlood{Limit: 20}, Census{Limit: 20}), // else 63 s
		[]string{"Census", "SynFlood"}, false, timerLate(15 * time.Second)},
	{"attempts", synRetries + "=3", inStage(attempted, OutboundScan{}), // else two minutes
		[]string{"OutboundScan", "OutboundScan"}, false, 20 * time.Second},
	{"unanswered", orphanRetries + "=1", inStage(unanswered3, Leaks{FinWait1: 5, LastAck: 5, Closing: 5}, // else 100 s
		Census{Limit: 5, Share: 0.1}, PerSource{Limit: 5}),
		[]string{"Census", "Census", "Leaks", "Leaks", "Leaks", "PerSource", "PerSource", "PerSource", "PerSource"}, false, 10 * time.Second},
	{"unanswered, and full", orphanRetries + "=1", inStage(closedFull, Leaks{FinWait1: 5}), // else minutes
		[]string{"Leaks"}, false, 20 * time.Second},
}

// timerLate is when a timer of the kernel has surely fired: an eighth late at most
// (kernel/time/timer.c).
func timerLate(d time.Duration) time.Duration { return d + d/8 }

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

// find reads the sockets and their settings.
func (s *stage) find(detectors ...Detector) []Finding {
	s.t.Helper()
	settings, err := sockdiag.ReadSettings(s.server.FS())
	noError(s.t, err)
	return Find(Host{Now: time.Now(), Sockets: s.sockets(), Sysctls: settings}, detectors...)
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
	s.waits(func() bool { return s.count(state) >= n })
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

// closedFull are closed with data that the peers take none of. They answer.
func closedFull(s *stage) {
	pairs := s.six(s.serve(9102), 1, "")
	s.fillWindows(pairs)
	s.closeServers(pairs)
}

// fillWindows writes until nothing is taken for a while.
func (s *stage) fillWindows(pairs []bothEnds) {
	s.t.Helper()
	var writing sync.WaitGroup
	for _, p := range pairs {
		noError(s.t, p.server.(*net.TCPConn).SetWriteBuffer(16384))
		writing.Go(func() {
			for err := error(nil); err == nil; {
				_ = p.server.SetWriteDeadline(time.Now().Add(time.Second))
				_, err = p.server.Write(make([]byte, 4096))
			}
		})
	}
	writing.Wait()
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

// letIn fills the queue of a listener, so that no client gets in. With the fix
// one does, while the flood is there as before.
func letIn(t *testing.T, setting string, narrow map[string]string, want ...string) {
	for _, mended := range []bool{false, true} {
		s := slowStage(t)
		scene := slowScene{t, s.server, nil, func() []Finding {
			return s.find(SynFlood{Limit: 5}, PerSource{Limit: 5}, Census{Limit: 5})
		}}
		s.set(syncookies, "0")
		for name, value := range narrow {
			s.set(name, value)
		}
		s.mute()
		l := s.serve(443)
		s.floodOfOne(2000)
		fixes := scene.until(setting, want)
		if mended {
			scene.obey(fixes)
		}
		s.floodOfOne(3000) // in place of what has ended, which is soon in a full queue
		s.both(func() {
			if err := s.knock(l); mended == (err != nil) {
				t.Errorf("IPv6 %t, with %s %t: %v", s.ipv6, setting, mended, err)
			}
		})
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
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
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

// noWindow are open, and their peers take nothing: tcp_retries2 ends none while
// they answer, the timeout of the application does.
func noWindow(t *testing.T) {
	s := slowStage(t)
	pairs := s.six(s.serve(9102), 1, "")
	s.fillWindows(pairs)
	s.shut(pairs)
	s.set("net.ipv4.tcp_retries2", "8")
	time.Sleep(20 * time.Minute)
	found := s.find(Leaks{FinWait1: 5})
	if len(found) != 1 || found[0].Count != 12 || len(commandsOf(found[0].Fix[0])) > 0 || !mentions(found[0].Fix[0], "TCP_USER_TIMEOUT") {
		t.Errorf("found %v", found)
	}
	for _, p := range pairs {
		raw, err := p.server.(*net.TCPConn).SyscallConn()
		noError(t, err)
		noError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000) }))
		noError(t, err)
	}
	time.Sleep(timerLate(2 * time.Minute)) // the longest between two probes
	if found := s.find(Leaks{FinWait1: 5}); len(found) > 0 {
		t.Errorf("with TCP_USER_TIMEOUT: %v", found)
	}
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
