package lab

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace, held by an open file.
type namespace struct{ file *os.File }

// newNamespace makes a network namespace. The thread it was made on is gone
// when it returns, or soon after.
func newNamespace() (*namespace, error) {
	var ns namespace
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare(CLONE_NEWNET)", err)
		}
		ns.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ns, nil
}

// enter moves the calling thread into the namespace.
func (ns *namespace) enter() error {
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if raw.Control(func(fd uintptr) { errno = unix.Setns(int(fd), unix.CLONE_NEWNET) }) != nil {
		return fs.ErrClosed // the only error there is, under a name of its own
	}
	return os.NewSyscallError("setns", errno)
}

// path names the namespace for this process.
func (ns *namespace) path() string { return fmt.Sprintf("/proc/self/fd/%d", ns.fd()) }

func (ns *namespace) fd() uint32 { return uint32(ns.file.Fd()) }

func (ns *namespace) close() error { return ns.file.Close() }

func onMainThread() bool { return unix.Gettid() == unix.Getpid() }
