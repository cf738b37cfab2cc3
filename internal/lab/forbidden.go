package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Forbidden tells why this machine does not let the program make namespaces.
// It unwraps to what the kernel said.
type Forbidden struct {
	Tried string // what was tried: "clone(CLONE_NEWUSER | CLONE_NEWNET)"
	What  string // what forbids it: "user.max_user_namespaces is 0"
	How   string // how to allow it: "sysctl -w user.max_user_namespaces=10000"
	Err   error
}

// Error is three lines: what was tried, what forbids it, how to allow it.
func (e *Forbidden) Error() string {
	return fmt.Sprintf("lab: %s: %v\nforbidden by: %s\nto allow it: %s", e.Tried, e.Err, e.What, e.How)
}

func (e *Forbidden) Unwrap() error { return e.Err }

// A cause is one thing that forbids namespaces, and its cure.
type cause struct{ what, how string }

// diagnose explains the failure of an attempt to make namespaces. proc is the
// root of procfs.
func diagnose(proc fs.FS, tried string, err error) *Forbidden {
	c := find(proc, err)
	return &Forbidden{Tried: tried, What: c.what, How: c.how, Err: err}
}

func find(proc fs.FS, err error) cause {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return cause{"an operating system or kernel without network namespaces", "run on Linux 6.1 or later"}
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		return findMissing(proc)
	case errors.Is(err, syscall.EROFS):
		return cause{"/proc/sys is mounted read-only, as in containers", "mount -o remount,rw /proc/sys, or run the container privileged"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return findLimit(proc)
	}
	return findPolicy(proc)
}

// findMissing tells which namespaces the kernel was built without.
func findMissing(proc fs.FS) cause {
	for _, ns := range []struct{ file, option string }{
		{"self/ns/user", "CONFIG_USER_NS"},
		{"self/ns/net", "CONFIG_NET_NS"},
	} {
		if _, err := fs.Stat(proc, ns.file); errors.Is(err, fs.ErrNotExist) {
			return cause{"a kernel built without " + ns.option, "run a kernel with " + ns.option + "=y"}
		}
	}
	return cause{"a kernel that does not know these namespaces", "run Linux 6.1 or later with CONFIG_USER_NS=y and CONFIG_NET_NS=y"}
}

// findLimit tells which limit on the number of namespaces is used up
// (kernel/ucount.c).
func findLimit(proc fs.FS) cause {
	for _, name := range []string{"user.max_user_namespaces", "user.max_net_namespaces"} {
		if value(proc, name) == "0" {
			return cause{name + " is 0", "sysctl -w " + name + "=10000"}
		}
	}
	return cause{
		"too many namespaces, or too many nested: user.max_user_namespaces is " + value(proc, "user.max_user_namespaces") +
			", user.max_net_namespaces is " + value(proc, "user.max_net_namespaces"),
		"end what holds namespaces (lsns lists them), or raise the limits with sysctl -w",
	}
}

// findPolicy tells which policy answers EPERM or EACCES.
func findPolicy(proc fs.FS) cause {
	switch {
	case value(proc, "user.max_user_namespaces") == "0":
		return findLimit(proc)
	case value(proc, "kernel.unprivileged_userns_clone") == "0": // a patch of Debian's
		return cause{"kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"}
	case isOn(value(proc, "kernel.apparmor_restrict_unprivileged_userns")): // Ubuntu 23.10 and later
		return cause{
			"kernel.apparmor_restrict_unprivileged_userns is " + value(proc, "kernel.apparmor_restrict_unprivileged_userns"),
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for this program",
		}
	}
	return cause{
		"no setting under /proc/sys: a seccomp filter or security module, as containers have",
		"run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; in a container, with --cap-add SYS_ADMIN --cap-add NET_ADMIN or --security-opt seccomp=unconfined",
	}
}

func isOn(value string) bool { return value != "" && value != "0" }

// value reads a sysctl; it is empty when there is none such.
func value(proc fs.FS, name string) string {
	b, err := fs.ReadFile(proc, sysctlPath(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
