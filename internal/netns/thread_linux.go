package netns

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Thread is a thread that stays in a network namespace. It is safe for
// concurrent use.
type Thread struct {
	calls chan func()
	once  sync.Once
}

// Enter starts a Thread in the namespace of a path such as /run/netns/blue. It
// takes CAP_SYS_ADMIN.
func Enter(path string) (*Thread, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	defer f.Close() //nolint:errcheck // only a handle
	t := &Thread{calls: make(chan func())}
	entered := make(chan error)
	go t.run(int(f.Fd()), entered)
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w (needs CAP_SYS_ADMIN)", path, os.NewSyscallError("setns", err))
	}
	return t, nil
}

// run is the thread. It is never unlocked, so that the runtime ends it; but the
// main thread, which cannot end, is held while another is taken.
func (t *Thread) run(fd int, entered chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		another := make(chan error)
		go t.run(fd, another)
		entered <- <-another
		return
	}
	err := unix.Setns(fd, unix.CLONE_NEWNET)
	entered <- err
	if err != nil {
		return
	}
	for call := range t.calls {
		call()
	}
}

// Do runs fn on the thread. It must not be called after Close.
func (t *Thread) Do(fn func()) {
	done := make(chan struct{})
	t.calls <- func() { defer close(done); fn() }
	<-done
}

// Close ends the thread.
func (t *Thread) Close() { t.once.Do(func() { close(t.calls) }) }

// Open opens a file of /proc as the thread sees it, such as
// "sys/net/netfilter/nf_conntrack_max" or "net/snmp". It implements fs.FS.
func (t *Thread) Open(name string) (f fs.File, err error) {
	t.Do(func() { f, err = proc.Open(inThread(name)) })
	return f, err
}

// ReadFile reads a file of /proc. It implements fs.ReadFileFS, without which
// sysctls would be read byte by byte, and end after the first.
func (t *Thread) ReadFile(name string) (b []byte, err error) {
	t.Do(func() { b, err = fs.ReadFile(proc, inThread(name)) })
	return b, err
}

var proc = os.DirFS("/proc")

// inThread names what the calling thread sees: /proc/net is the main thread's.
func inThread(name string) string {
	if name == "net" || strings.HasPrefix(name, "net/") {
		return "thread-self/" + name
	}
	return name
}
