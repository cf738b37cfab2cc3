package detect

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// A process with 300 descriptors at most, whose service one source eats up.
func TestLabDescriptors(t *testing.T) {
	inPairsOf(t, false, func(p *pair) { // the limit is the whole process's
		l := p.listen(5060)
		before := p.files()
		at := time.Now()
		const limit = 300
		p.limit(limit)
		n := (limit - int(before[0].Used)) / 2 * 9 / 10
		_, servers := p.connect(l, n)
		h := p.look(p.server)
		h.Files, h.Earlier.Files, h.Earlier.At, h.Now = p.files(), before, at, at.Add(10*time.Second)
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
		if Installed(p, "ss") {
			p.run(f.Fix[0]) // the application then closes them
		}
		p.close(servers)
		h = p.look(p.server)
		h.Files = p.files()
		if found := Find(h, defaults...); len(found) != 0 {
			p.Errorf("after the source has gone: %v", found)
		}
		if Installed(p, "ss") {
			Proved(p.T, f.Fix[0])
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
