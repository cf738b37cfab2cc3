package detect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// An application whose clients go away and that does not close: 70 sockets are
// a leak, 8 of another port are not.
func TestLabCloseWait(t *testing.T) {
	inPairs(t, func(p *pair) {
		p.quiet("idle")
		leaky, sound := p.listen(9102), p.listen(9103)
		clients, _ := p.connect(leaky, 70)
		few, _ := p.connect(sound, 8)
		p.quiet("connected")
		p.close(slices.Concat(clients, few))
		detectors := []Detector{Leaks{Age: 300 * time.Millisecond}, AcceptQueue{}, Descriptors{}, Census{}}
		f := p.until(p.server, foundOnce("Leaks", 70), detectors...)[0]
		process := sockdiag.Process{PID: os.Getpid()}
		if f.Limit != 60 || f.Severity != Warning || f.Confidence != Likely || len(f.Sources) != 0 || f.Since.IsZero() ||
			!mentions(f.Subject, "CLOSE_WAIT, port 9102, ", strings.TrimSuffix(processText(process), "()")) ||
			len(f.Evidence.Sockets) != evidenceOf || f.Evidence.Missing != nil {
			p.Errorf("got %+v", f)
		}
		p.quiet("young") // younger than a minute
	})
}

// The clients have closed their half and answer keep-alives for ever.
func TestLabCloseWaitKeepAlive(t *testing.T) {
	inPairs(t, func(p *pair) {
		clients, servers := p.connect(p.listen(9102), 8)
		for i := range clients {
			p.must(servers[i].(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 9}))
			p.must(clients[i].(*net.TCPConn).CloseWrite())
		}
		answered := func(found []Finding) bool { return foundOnce("Leaks", 8)(found) && found[0].Confidence == Possible }
		f := p.until(p.server, answered, Leaks{CloseWait: 5, Age: 1500 * time.Millisecond})[0]
		if len(f.Evidence.Missing) != 1 || !mentions(f.Evidence.Missing[0], "answer keep-alives") || !f.Since.IsZero() {
			p.Errorf("got %+v", f)
		}
	})
}

// A client that keeps connections that its server has closed.
func TestLabCloseWaitOfClient(t *testing.T) {
	inPairs(t, func(p *pair) {
		l := p.listen(9102)
		_, servers := p.connect(l, 12)
		p.close(servers)
		leaks := Leaks{Age: 100 * time.Millisecond, CloseWait: 10}
		f := p.until(p.client, foundOnce("Leaks", 12), leaks, AcceptQueue{}, Census{})[0]
		if want := "connections to " + l.Addr().String(); !mentions(f.Subject, want) {
			p.Errorf("got %q, want %q", f.Subject, want)
		}
		if found := Find(p.look(p.server), leaks); len(found) != 0 {
			p.Error(found)
		}
	})
}

// What was found is what ss finds by the command in Fix.
func TestLabLeakCommand(t *testing.T) {
	lab.Tool(t, "ss")
	inPairs(t, func(p *pair) {
		clients, _ := p.connect(p.listen(9102), 3)
		p.close(clients)
		leaks := Leaks{Age: time.Millisecond, CloseWait: 2}
		f := p.until(p.server, foundOnce("Leaks", 3), leaks)[0]
		command := quoted(f.Fix[0])
		out, err := p.server.Exec(p.Context(), "sh", "-c", command)
		if n := strings.Count(string(out), ":9102"); err != nil || n != 3 {
			p.Errorf("%s: %v\n%s", command, err, out)
		}
	})
}

// A queue of 4 is full with 5. Nobody accepts.
func TestLabAcceptQueue(t *testing.T) {
	inPairs(t, func(p *pair) {
		p.must(p.server.SetSysctl("net.core.somaxconn", "4"))
		l := p.listen(9102)
		var waiting []net.Conn
		for range 5 {
			c, err := p.dial(9102, 20*time.Second)
			p.must(err)
			waiting = append(waiting, c)
		}
		_, err := waiting[0].Write([]byte("hello\n"))
		p.must(err)
		if _, err := p.dial(9102, 200*time.Millisecond); err == nil {
			p.Fatal("the queue took another")
		}
		stuck := func(found []Finding) bool { return foundOnce("AcceptQueue", 5)(found) && found[0].Severity == Critical }
		f := p.until(p.server, stuck, Leaks{}, AcceptQueue{Stuck: 300 * time.Millisecond}, Descriptors{}, Census{})[0]
		source, _ := p.addr(p.client).Prefix(map[bool]int{true: 32, false: 64}[p.addr(p.client).Is4()])
		if f.Limit != 4 || f.Confidence != Likely || !slices.Equal(f.Sources, []netip.Prefix{source}) || f.Since.IsZero() ||
			f.Subject != "listener "+l.Addr().String() || len(f.Evidence.Sockets) != 1+evidenceOf || f.Evidence.Missing != nil {
			p.Errorf("got %+v", f)
		}
		if !mentions(f.Cause, "new ones are dropped", "5 of "+bare(source), "does not accept") || mentions(f.Cause, " 0 handshakes") {
			p.Error(f.Cause)
		}
		p.close(waiting[:2])
		given := func(found []Finding) bool {
			return stuck(found) && mentions(found[0].Cause, "the clients of 2 have given up")
		}
		p.until(p.server, given, Leaks{Age: time.Millisecond, CloseWait: 1}, AcceptQueue{Stuck: 300 * time.Millisecond}, Census{})
		for range 5 {
			s, err := l.Accept()
			p.must(err)
			p.open[s] = true
		}
		p.quiet("accepted")
	})
}

// A queue that is full for an instant is not an application that is stuck.
func TestLabAcceptBurst(t *testing.T) {
	inPairs(t, func(p *pair) {
		p.must(p.server.SetSysctl("net.core.somaxconn", "2"))
		l := p.listen(9102)
		burst := func() {
			for range 3 {
				_, err := p.dial(9102, 20*time.Second)
				p.must(err)
			}
		}
		burst()
		queue := AcceptQueue{Stuck: time.Hour}
		f := p.until(p.server, foundOnce("AcceptQueue", 3), queue)[0]
		if f.Severity != Warning || !mentions(f.Cause, "backlog is too small") || !mentions(f.Fix[0], "than 2", "net.core.somaxconn") {
			p.Errorf("got %+v", f)
		}
		if !Installed(p, "sysctl") {
			return
		}
		p.run(f.Fix[0])
		p.must(l.Close())
		p.listen(9102)
		burst()
		waits := func([]Finding) bool { // all three, in a queue that is not full
			return slices.ContainsFunc(p.look(p.server).Sockets, func(s sockdiag.Socket) bool { return s.AcceptQueue == 3 })
		}
		if found := p.until(p.server, waits, queue); len(found) != 0 {
			p.Errorf("with a longer queue: %v", found)
		}
		Proved(p.T, f.Fix[0])
		if !Installed(p, "ss") {
			return
		}
		see, _ := (&Host{Counters: sockdiag.Counters{ListenOverflows: 1}}).overflows()
		p.run(see.Fix[0])
		Proved(p.T, see.Fix[0])
	})
}

// block has a host drop what TCP comes in.
func (p *pair) block(h *lab.Host) {
	p.Helper()
	p.must(h.Rules(p.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.Drop}}},
	}}))
}

var fewLeaks = Leaks{FinWait1: 5, LastAck: 5, Closing: 5}

// The peer has vanished when the server closes.
func TestLabFinWait1(t *testing.T) {
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 8)
		p.block(p.server)
		p.close(servers)
		p.orphans(8, "not acknowledged", "KiB of kernel memory")
	})
}

// The command in Fix ends them.
func TestLabFinWait1Command(t *testing.T) {
	lab.Tool(t, "ss")
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 6)
		p.block(p.server)
		p.close(servers)
		f := p.orphans(6, "not acknowledged")
		if err := p.diag[p.server].Destroy(p.Context(), f.Evidence.Sockets[0]); errors.Is(err, errors.ErrUnsupported) {
			p.Skip(err)
		}
		p.run(f.Fix[1])
		if rows := p.rows(p.server); len(rows) != 1 {
			p.Errorf("left %v after %s", rows, f.Fix[1])
		}
		Proved(p.T, f.Fix[1])
	})
}

// The same of an application that keeps the sockets open.
func TestLabFinWait1Owned(t *testing.T) {
	lab.Tool(t, "ss")
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 6)
		p.block(p.server)
		for _, s := range servers {
			p.must(s.(*net.TCPConn).CloseWrite())
		}
		f := p.until(p.server, foundOnce("Leaks", 6), fewLeaks)[0]
		if !mentions(f.Cause, "has them open") {
			p.Errorf("got %+v", f)
		}
		probe := p.diag[p.server].Destroy(p.Context(), f.Evidence.Sockets[0])
		if errors.Is(probe, errors.ErrUnsupported) {
			p.Skip(probe)
		}
		for _, fix := range f.Fix {
			p.run(fix) // with 8 retransmissions it takes 100 s
		}
		if found := Find(p.look(p.server), fewLeaks); len(found) != 0 {
			p.Errorf("after all was done: %v", found)
		}
		for _, fix := range f.Fix {
			Proved(p.T, fix)
		}
	})
}

// run has the server run the commands of a fix.
func (p *pair) run(fix string) {
	p.Helper()
	for _, command := range commandsOf(fix) {
		if out, err := p.server.Exec(p.Context(), "sh", "-c", command); err != nil {
			p.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// quoted is the command in a sentence.
func quoted(fix string) string {
	_, command, _ := strings.Cut(fix, "`")
	command, _, _ = strings.Cut(command, "`")
	return command
}

// The peer is there, and reads nothing.
func TestLabFinWait1Window(t *testing.T) {
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 6)
		var writing sync.WaitGroup
		for _, s := range servers {
			p.must(s.(*net.TCPConn).SetWriteBuffer(16384))
			writing.Go(func() {
				for err := error(nil); err == nil; { // until nothing is taken for a while
					_ = s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
					_, err = s.Write(make([]byte, 4096))
				}
			})
		}
		writing.Wait()
		p.quiet("the peers do not read")
		p.close(servers)
		f := p.orphans(6, "the peers of 6 take none (zero window)")
		if mentions(f.Cause, " 0 KiB") {
			p.Error(f.Cause)
		}
	})
}

// orphans waits for so many sockets of FIN_WAIT1.
func (p *pair) orphans(n uint64, words ...string) Finding {
	p.Helper()
	enough := func(found []Finding) bool { return foundOnce("Leaks", n)(found) && mentions(found[0].Cause, words...) }
	f := p.until(p.server, enough, fewLeaks, AcceptQueue{}, Descriptors{}, Census{})[0]
	if f.Subject != "FIN_WAIT1, port 9102" || f.Severity != Warning || f.Confidence != Likely || len(f.Sources) != 1 ||
		!f.Sources[0].Contains(p.addr(p.client)) || len(f.Evidence.Sockets) != evidenceOf ||
		!slices.Equal(f.Evidence.Missing, []string{"net.ipv4.tcp_max_orphans"}) {
		p.Errorf("got %+v", f)
	}
	return f
}

// The clients close, and vanish before the server does.
func TestLabLastAck(t *testing.T) {
	inPairs(t, func(p *pair) {
		clients, servers := p.connect(p.listen(9102), 8)
		p.close(clients)
		p.until(p.server, foundOnce("Leaks", 8), Leaks{CloseWait: 7, Age: time.Nanosecond})
		p.block(p.server)
		p.close(servers)
		f := p.until(p.server, foundOnce("Leaks", 8), fewLeaks, AcceptQueue{}, Census{})[0]
		if f.Subject != "LAST_ACK, port 9102" || f.Severity != Info {
			p.Errorf("got %+v", f)
		}
	})
}

// Half-closed connections whose client reads no end of file.
func TestLabFinWait2(t *testing.T) {
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 8)
		for _, s := range servers {
			p.must(s.(*net.TCPConn).CloseWrite())
		}
		leaks := Leaks{FinWait2: 5, Orphans: 5, Age: 50 * time.Millisecond}
		f := p.until(p.server, foundOnce("Leaks", 8), leaks)[0]
		if !mentions(f.Subject, "FIN_WAIT2, port 9102, process ") || !mentions(f.Cause, "still open") {
			p.Errorf("got %+v", f)
		}
		if Installed(p, "ss") {
			p.run(f.Fix[0])
			Proved(p.T, f.Fix[0])
		}
		p.close(servers)
		orphaned := func(found []Finding) bool { return foundOnce("Leaks", 8)(found) && found[0].Severity == Info }
		f = p.until(p.server, orphaned, leaks)[0]
		if f.Subject != "FIN_WAIT2, port 9102" {
			p.Errorf("got %+v", f)
		}
		err := p.diag[p.server].Destroy(p.Context(), f.Evidence.Sockets[0])
		if errors.Is(err, errors.ErrUnsupported) || !Installed(p, "ss", "sysctl") {
			return
		}
		for _, fix := range f.Fix {
			p.run(fix)
		}
		p.until(p.server, func(found []Finding) bool { return len(found) == 0 }, leaks)
		for _, fix := range f.Fix {
			Proved(p.T, fix)
		}
	})
}

// Connections that come and go by the hundred are in order.
func TestLabHealthy(t *testing.T) {
	inPairs(t, func(p *pair) {
		l := p.listen(9102)
		for range 8 {
			clients, servers := p.connect(l, 15)
			p.quiet("busy")
			p.close(servers) // in TIME_WAIT soon
			p.close(clients)
			p.quiet("closing")
		}
	})
}

// Of two listeners of one port the one that is full is told.
func TestLabReusePort(t *testing.T) {
	inPairs(t, func(p *pair) {
		p.must(p.server.SetSysctl("net.core.somaxconn", "2"))
		cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return errors.Join(cerr, err)
		}}
		cfg.SetMultipathTCP(false)
		for range 2 {
			p.must(p.server.Do(func() error {
				l, err := cfg.Listen(p.Context(), "tcp", netip.AddrPortFrom(p.addr(p.server), 9102).String())
				if err == nil {
					p.Cleanup(func() { _ = l.Close() })
				}
				return err
			}))
		}
		shared := func(found []Finding) bool {
			_, err := p.dial(9102, 5*time.Second)
			p.must(err) // one of the two has room
			return len(found) > 0
		}
		f := p.until(p.server, shared, AcceptQueue{}, Leaks{}, Census{})[0]
		l := f.Evidence.Sockets[0]
		if !mentions(f.Subject, fmt.Sprintf("9102, cookie %d", l.Cookie)) || !mentions(f.Cause, "one of 2 listeners") ||
			f.Count != uint64(l.AcceptQueue) || f.Count < 2 || f.Limit != 2 {
			p.Errorf("got %+v", f)
		}
	})
}
