package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sysctlPath is the path of a sysctl below /proc. As with sysctl(8), a name
// may be written with slashes, which then may hold dots.
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return "sys/" + name
}

// SetSysctl sets a sysctl as this host has it, such as
// "net.netfilter.nf_conntrack_tcp_loose". Only names below net are a host's
// own; any other is refused.
func (h *Host) SetSysctl(name, value string) error {
	path := sysctlPath(name)
	if !fs.ValidPath(path) || !strings.HasPrefix(path, "sys/net/") {
		return h.errorf("set sysctl %s: %w: not below net", name, fs.ErrInvalid)
	}
	err := h.Do(func() error { return os.WriteFile("/proc/"+path, []byte(value), 0) })
	if err != nil {
		return h.errorf("set sysctl %s to %q: %w", name, value, err)
	}
	return nil
}

// trySysctls sets those of the sysctls that the kernel has: it may be without
// IPv6.
func (h *Host) trySysctls(value string, names ...string) error {
	for _, name := range names {
		if err := h.SetSysctl(name, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Sysctl reads a sysctl as this host has it, without the newline.
func (h *Host) Sysctl(name string) (string, error) {
	b, err := fs.ReadFile(h.FS(), sysctlPath(name))
	if err != nil {
		return "", h.errorf("sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (h *Host) errorf(format string, args ...any) error {
	return fmt.Errorf("lab: host "+h.name+": "+format, args...)
}
