package reject

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// installNS is a network namespace.
type installNS struct{ file *os.File }

// openNetNS opens the namespace at the path; empty is the calling thread's.
func openNetNS(path string) (*installNS, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &installNS{f}, nil
}

func (n *installNS) close() error { return n.file.Close() }

// do runs fn on a thread in the namespace: /proc/sys/net and
// /proc/thread-self/net are the namespace's for it. To enter another one takes
// CAP_SYS_ADMIN.
func (n *installNS) do(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n.current() {
		return fn()
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the runtime ends a thread whose goroutine ends so.
		// This one cannot be the main thread if do has that.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Ended, it would stay for ever in the namespace, which then shows in
			// /proc/self. Held meanwhile, it cannot be what do gets.
			defer runtime.UnlockOSThread()
			done <- n.do(fn)
			return
		}
		if err := n.enter(); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

func (n *installNS) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w (needs CAP_SYS_ADMIN)", n.file.Name(), err)
	}
	return nil
}

// current reports that the calling thread is in the namespace.
func (n *installNS) current() bool {
	have, err1 := os.Stat("/proc/thread-self/ns/net")
	want, err2 := n.file.Stat()
	return err1 == nil && err2 == nil && os.SameFile(have, want)
}
