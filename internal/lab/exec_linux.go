package lab

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func setReuseAddr(fd uintptr) error {
	return os.NewSyscallError("setsockopt SO_REUSEADDR", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
}

// dieWithThread makes the kernel kill a command when the thread that started
// it ends.
func dieWithThread() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
