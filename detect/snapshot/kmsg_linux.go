package snapshot

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// openKmsg opens the log at its oldest record, and tells when its time began:
// as dmesg -T, which is late by how long the machine has slept since.
func openKmsg() (kmsg, time.Time, error) {
	const name = "/dev/kmsg"
	// Not by package os, which would wait for the next record.
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return kmsg{}, time.Time{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	k := kmsg{
		record: func(b []byte) (int, error) { return syscall.Read(fd, b) },
		close:  func() { _ = syscall.Close(fd) }, // only read from
	}
	if info, err := os.Stat("/proc/self/ns/net"); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			k.netns = stat.Ino
		}
	}
	boot, err := booted()
	if err != nil {
		k.close()
	}
	return k, boot, err
}

// booted is when the machine was.
func booted() (time.Time, error) {
	now := time.Now()
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	var seconds float64
	if _, err := fmt.Sscan(string(b), &seconds); err != nil {
		return time.Time{}, fmt.Errorf("/proc/uptime: %w", err)
	}
	return now.Add(-time.Duration(seconds * float64(time.Second))), nil
}
