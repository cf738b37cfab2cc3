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
	calls  chan func()
	closed chan struct{}
	once   sync.Once
}

// Enter starts a Thread in the namespace of a path such as /run/netns/blue;
// empty is the caller's. It takes CAP_SYS_ADMIN unless that is the process's.
func Enter(path string) (*Thread, error) {
	if path == "" {
		path = own
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	defer f.Close() //nolint:errcheck // only a handle
	t := &Thread{calls: make(chan func()), closed: make(chan struct{})}
	entered := make(chan error)
	go t.run(f, entered)
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w (needs CAP_SYS_ADMIN)", path, os.NewSyscallError("setns", err))
	}
	return t, nil
}

const own = "/proc/thread-self/ns/net"

// run is the thread. It is never unlocked, so that the runtime ends it; but the
// main thread, which cannot end, is held while another is taken.
func (t *Thread) run(ns *os.File, entered chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		another := make(chan error)
		go t.run(ns, another)
		entered <- <-another
		return
	}
	err := enter(ns)
	entered <- err
	for err == nil {
		select {
		case call := <-t.calls:
			call()
		case <-t.closed:
			return
		}
	}
}

// enter takes the calling thread into the namespace, unless it is there.
func enter(ns *os.File) error {
	have, err1 := os.Stat(own)
	want, err2 := ns.Stat()
	if err1 == nil && err2 == nil && os.SameFile(have, want) {
		return nil
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// Do runs fn on the thread and returns its error, or fs.ErrClosed after Close.
func (t *Thread) Do(fn func() error) error {
	done := make(chan error, 1)
	select {
	case t.calls <- func() { done <- fn() }:
		return <-done
	case <-t.closed:
		return fs.ErrClosed
	}
}

// Close ends the thread, once what it does is done.
func (t *Thread) Close() { t.once.Do(func() { close(t.closed) }) }

// Open opens a file of /proc as the thread sees it, such as
// "sys/net/netfilter/nf_conntrack_max" or "net/snmp". It implements fs.FS.
func (t *Thread) Open(name string) (f fs.File, err error) {
	err = t.Do(func() (err error) { f, err = proc.Open(inThread(name)); return err })
	return f, err
}

// ReadFile reads a file of /proc. It implements fs.ReadFileFS, without which
// sysctls would be read byte by byte, and end after the first.
func (t *Thread) ReadFile(name string) (b []byte, err error) {
	err = t.Do(func() (err error) { b, err = fs.ReadFile(proc, inThread(name)); return err })
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
