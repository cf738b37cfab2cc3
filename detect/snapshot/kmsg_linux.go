package snapshot

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openKmsg opens the log at its oldest record, and tells when its time began:
// the monotonic clock, which stands still in suspend as that of the log does.
func openKmsg() (kmsg, time.Time, error) {
	const name = "/dev/kmsg"
	// Not by package os, which would wait for the next record.
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kmsg{}, time.Time{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	k := kmsg{
		record: func(b []byte) (int, error) { return unix.Read(fd, b) },
		close:  func() { _ = unix.Close(fd) }, // only read from
	}
	if info, err := os.Stat("/proc/self/ns/net"); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			k.netns = stat.Ino
		}
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		k.close()
		return kmsg{}, time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	return k, time.Now().Add(-time.Duration(up.Nano())), nil
}
