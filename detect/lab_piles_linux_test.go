package detect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// pair is a client and a server, of one family.
type pair struct {
	*testing.T
	client, server *lab.Host
	addr           func(*lab.Host) netip.Addr
	diag           map[*lab.Host]*sockdiag.Conn
	open           map[net.Conn]bool
}

// inPairs runs a test over both families.
func inPairs(t *testing.T, test func(*pair)) {
	for name, addr := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).Addr4, "IPv6": (*lab.Host).Addr6} {
		t.Run(name, func(t *testing.T) {
			p := &pair{T: t, addr: addr, diag: make(map[*lab.Host]*sockdiag.Conn), open: make(map[net.Conn]bool)}
			p.client, p.server = lab.Two(t)
			for _, h := range []*lab.Host{p.client, p.server} {
				c, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
				p.must(err)
				p.diag[h] = c
				t.Cleanup(func() { _ = c.Close() })
			}
			t.Cleanup(func() {
				for c := range p.open {
					_ = c.Close()
				}
			})
			test(p)
		})
	}
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// listen makes a listener on the server. Nothing accepts by itself.
func (p *pair) listen(port uint16) net.Listener {
	p.Helper()
	l, err := p.server.Listen("tcp", netip.AddrPortFrom(p.addr(p.server), port))
	p.must(err)
	p.Cleanup(func() { _ = l.Close() })
	return l
}

func (p *pair) dial(port uint16, wait time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.Context(), wait)
	defer cancel()
	c, err := p.client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(p.addr(p.server), port), nil)
	if err == nil {
		p.open[c] = true
	}
	return c, err
}

// connect makes n connections, both ends of which are returned.
func (p *pair) connect(l net.Listener, n int) (clients, servers []net.Conn) {
	p.Helper()
	for range n {
		c, err := p.dial(uint16(l.Addr().(*net.TCPAddr).Port), 20*time.Second)
		p.must(err)
		s, err := l.Accept()
		p.must(err)
		p.open[s] = true
		clients, servers = append(clients, c), append(servers, s)
	}
	return clients, servers
}

func (p *pair) close(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close() // what the kernel does with it is looked at
		delete(p.open, c)
	}
}

// look reads a host.
func (p *pair) look(h *lab.Host) Host {
	p.Helper()
	s, err := p.diag[h].Snapshot(p.Context(), sockdiag.Query{Info: true, Memory: true})
	p.must(err)
	host := Host{Now: s.Start, Sockets: s.Sockets, Holders: make(map[uint32][]sockdiag.Holder)}
	var inodes []uint32
	for i := range s.Sockets {
		inodes = append(inodes, s.Sockets[i].Inode)
	}
	holders, err := sockdiag.Proc("").Holders(p.Context(), inodes...)
	p.must(err)
	for _, inode := range inodes {
		if of := holders.Of(inode); len(of) > 0 {
			host.Holders[inode] = of
		}
	}
	return host
}

// until looks at a host until the detectors find what is wanted.
func (p *pair) until(h *lab.Host, want func([]Finding) bool, detectors ...Detector) []Finding {
	p.Helper()
	var found []Finding
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if found = Find(p.look(h), detectors...); want(found) {
			return found
		}
	}
	p.Fatalf("found %v\namong %v", found, p.rows(h))
	return nil
}

func (p *pair) rows(h *lab.Host) (rows []string) {
	for _, s := range p.look(h).Sockets {
		rows = append(rows, strings.Join([]string{s.State.String(), s.Local.String(), s.Remote.String(), s.Timer.String()}, " "))
	}
	return rows
}

// quiet checks that nothing is found with the defaults.
func (p *pair) quiet(when string) {
	p.Helper()
	for _, h := range []*lab.Host{p.client, p.server} {
		if found := Find(p.look(h), defaults...); len(found) != 0 {
			p.Errorf("%s, %s: %v", when, h.Name(), found)
		}
	}
}

var defaults = []Detector{Leaks{}, AcceptQueue{}, Descriptors{}, Census{}}

func counted(detector string, n uint64) func([]Finding) bool {
	return func(found []Finding) bool {
		return len(found) == 1 && found[0].Detector == detector && found[0].Count == n
	}
}

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
		f := p.until(p.server, counted("Leaks", 70), detectors...)[0]
		process := sockdiag.Process{PID: os.Getpid()}
		if f.Limit != 60 || f.Severity != Warning || f.Confidence != Likely || len(f.Sources) != 0 || f.Since.IsZero() ||
			!mentions(f.Subject, "CLOSE_WAIT, port 9102, ", strings.TrimSuffix(processText(process), "()")) ||
			len(f.Evidence.Sockets) != evidenceOf || f.Evidence.Missing != nil {
			p.Errorf("got %+v", f)
		}
		p.quiet("young") // younger than a minute
	})
}

// A client that keeps connections that its server has closed.
func TestLabCloseWaitOfClient(t *testing.T) {
	inPairs(t, func(p *pair) {
		l := p.listen(9102)
		_, servers := p.connect(l, 12)
		p.close(servers)
		leaks := Leaks{Age: 100 * time.Millisecond, CloseWait: 10}
		f := p.until(p.client, counted("Leaks", 12), leaks, AcceptQueue{}, Census{})[0]
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
		f := p.until(p.server, counted("Leaks", 3), leaks)[0]
		_, command, _ := strings.Cut(f.Fix[0], "`")
		command, _, _ = strings.Cut(command, "`")
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
		stuck := func(found []Finding) bool { return counted("AcceptQueue", 5)(found) && found[0].Severity == Critical }
		f := p.until(p.server, stuck, defaults...)[0]
		source, _ := p.addr(p.client).Prefix(map[bool]int{true: 32, false: 64}[p.addr(p.client).Is4()])
		if f.Limit != 4 || f.Confidence != Likely || !slices.Equal(f.Sources, []netip.Prefix{source}) || f.Since.IsZero() ||
			f.Subject != "listener "+l.Addr().String() || len(f.Evidence.Sockets) != 1+evidenceOf || f.Evidence.Missing != nil {
			p.Errorf("got %+v", f)
		}
		if !mentions(f.Cause, "new ones are dropped", "5 of "+sourceText(source), "does not accept") || mentions(f.Cause, " 0 handshakes") {
			p.Error(f.Cause)
		}
		p.close(waiting[:2])
		given := func(found []Finding) bool {
			return stuck(found) && mentions(found[0].Cause, "of 2 the client has given up")
		}
		p.until(p.server, given, Leaks{Age: time.Millisecond, CloseWait: 1}, AcceptQueue{}, Census{})
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
		p.listen(9102)
		for range 3 {
			_, err := p.dial(9102, 20*time.Second)
			p.must(err)
		}
		f := p.until(p.server, counted("AcceptQueue", 3), AcceptQueue{Stuck: time.Hour})[0]
		if f.Severity != Warning || !mentions(f.Cause, "backlog is too small") || !mentions(f.Fix[0], "than 2", "net.core.somaxconn") {
			p.Errorf("got %+v", f)
		}
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

// The peer is there, and reads nothing.
func TestLabFinWait1Window(t *testing.T) {
	inPairs(t, func(p *pair) {
		_, servers := p.connect(p.listen(9102), 6)
		for _, s := range servers {
			p.must(s.(*net.TCPConn).SetWriteBuffer(16384))
			p.must(s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)))
			for err := error(nil); err == nil; {
				_, err = s.Write(make([]byte, 65536))
			}
		}
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
	enough := func(found []Finding) bool { return counted("Leaks", n)(found) && mentions(found[0].Cause, words...) }
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
		p.until(p.server, counted("Leaks", 8), Leaks{CloseWait: 7, Age: time.Nanosecond})
		p.block(p.server)
		p.close(servers)
		f := p.until(p.server, counted("Leaks", 8), fewLeaks, AcceptQueue{}, Census{})[0]
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
		f := p.until(p.server, counted("Leaks", 8), leaks)[0]
		if !mentions(f.Subject, "FIN_WAIT2, port 9102, process ") || !mentions(f.Cause, "still open") {
			p.Errorf("got %+v", f)
		}
		p.close(servers)
		orphaned := func(found []Finding) bool { return counted("Leaks", 8)(found) && found[0].Severity == Info }
		if f := p.until(p.server, orphaned, leaks)[0]; f.Subject != "FIN_WAIT2, port 9102" {
			p.Errorf("got %+v", f)
		}
	})
}

// A process with 300 descriptors at most, whose service one source eats up.
func TestLabDescriptors(t *testing.T) {
	inPairs(t, func(p *pair) {
		l := p.listen(5060)
		before := p.files()
		at := time.Now()
		const limit = 300
		p.limit(limit)
		n := (limit - int(before[0].Used)) / 2 * 9 / 10
		_, servers := p.connect(l, n)
		h := p.look(p.server)
		h.Files, h.FilesBefore, h.At, h.Now = p.files(), before, at, at.Add(10*time.Second)
		found := Find(h, defaults...)
		if len(found) != 1 {
			p.Fatalf("got %v", found)
		}
		f := found[0]
		if f.Detector != "Descriptors" || f.Count != h.Files[0].Used || f.Limit != limit || f.Confidence != Certain ||
			len(f.Sources) != 1 || !f.Sources[0].Contains(p.addr(p.client)) || len(f.Evidence.Sockets) != evidenceOf {
			p.Errorf("got %+v", f)
		}
		if got := int(f.Count - before[0].Used); got < 2*n || got > 2*n+8 {
			p.Errorf("%d descriptors for both ends of %d connections", got, n)
		}
		if !mentions(f.Cause, "more a second: none is left in", "connections by source") {
			p.Error(f.Cause)
		}
		p.exhaust(l)
		p.close(servers)
		h = p.look(p.server)
		h.Files = p.files()
		if found := Find(h, defaults...); len(found) != 0 {
			p.Errorf("after the source has gone: %v", found)
		}
	})
}

// files are those of this process.
func (p *pair) files() []OpenFiles {
	p.Helper()
	d, err := sockdiag.Proc("").Descriptors(os.Getpid())
	p.must(err)
	return []OpenFiles{{Process: sockdiag.Process{PID: os.Getpid(), Command: "test", Started: 1}, Descriptors: d}}
}

// limit lowers the soft limit until the test ends.
func (p *pair) limit(n uint64) {
	p.Helper()
	var old unix.Rlimit
	p.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	p.must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}))
	p.Cleanup(func() { p.must(unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
}

// exhaust connects until that fails, which shows that the limit is the true one.
func (p *pair) exhaust(l net.Listener) {
	p.Helper()
	var more []net.Conn
	defer func() { p.close(more) }()
	for {
		c, err := p.dial(uint16(l.Addr().(*net.TCPAddr).Port), 20*time.Second)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		p.must(err)
		more = append(more, c)
	}
	freed := more[len(more)-5:]
	p.close(freed)
	h := Host{Files: p.files()}
	found := Find(h, Descriptors{})
	if len(found) != 1 || found[0].Severity != Critical || found[0].Count+uint64(len(freed))+3 < found[0].Limit {
		p.Errorf("with EMFILE: %v", found)
	}
}
