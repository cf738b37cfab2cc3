package snapshot

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// System reads what a Host has from the files of a /proc file system: the
// kernel's release, settings, usage and counters, and the open files of all
// processes together. What is not there is zero, and no error; with an error
// the Host has what could be read.
func System(proc fs.FS) (detect.Host, error) {
	h := detect.Host{Now: time.Now(), Old: detect.OldSettings(proc)}
	var errs [5]error
	h.Settings, errs[0] = conntrack.ReadSettings(proc)
	h.Usage, errs[1] = conntrack.ReadUsage(proc)
	h.Stats, errs[2] = conntrack.ReadStats(proc)
	h.Sysctls, errs[3] = sockdiag.ReadSettings(proc)
	h.Counters, errs[4] = sockdiag.ReadCounters(proc)
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) {
			errs[i] = nil
		}
	}
	if release, err := fs.ReadFile(proc, "sys/kernel/osrelease"); err == nil {
		h.Kernel = strings.TrimSpace(string(release))
	}
	if h.Sysctls.Has("fs.file-nr") {
		n := h.Sysctls.FileCount
		h.Files = []detect.OpenFiles{{Descriptors: sockdiag.Descriptors{Used: n[0] - min(n[0], n[1]), SoftLimit: n[2], HardLimit: n[2]}}}
	}
	return h, errors.Join(errs[:]...)
}

// tee remembers what is read.
type tee struct {
	fs.FS
	read map[string][]byte
}

// ReadFile implements fs.ReadFileFS.
func (t tee) ReadFile(name string) ([]byte, error) {
	b, err := fs.ReadFile(t.FS, name)
	if err == nil {
		t.read[name] = b
	}
	return b, err
}

// stack shows a file of the first file system that has it.
type stack []fs.FS

// Open implements fs.FS.
func (s stack) Open(name string) (fs.File, error) {
	for _, files := range s {
		if f, err := files.Open(name); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// placed shows files of a directory as those of /proc that they came from.
type placed struct {
	dir fs.FS
	at  map[string]string // path to file
}

// Open implements fs.FS.
func (p placed) Open(name string) (fs.File, error) {
	at, ok := p.at[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, _, err := open(p.dir, at)
	return f, err
}

// oldNames shows the settings of the tracker that IPv4 had for itself, until
// Linux 4.9, by the names they have now.
type oldNames struct{ fs.FS }

// Open implements fs.FS.
func (o oldNames) Open(name string) (fs.File, error) {
	short, ok := strings.CutPrefix(name, "sys/net/netfilter/nf_")
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := o.FS.Open("sys/net/ipv4/netfilter/ip_" + short)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = o.FS.Open("sys/net/ipv4/ip_" + short)
	}
	return f, err
}

// configured are where sysctl(8) and systemd-sysctl(8) read settings from.
var configured = []string{
	"etc/sysctl.conf", "etc/sysctl.d/*.conf", "run/sysctl.d/*.conf", "usr/local/lib/sysctl.d/*.conf", "usr/lib/sysctl.d/*.conf",
}

// Configured returns the settings of old kernels that the files of sysctl(8)
// name, below the root of a file system: os.DirFS("/"). Files that may not be
// read are left out.
func Configured(root fs.FS) []detect.Setting {
	var files stack
	for _, pattern := range configured {
		names, _ := fs.Glob(root, pattern) // the patterns are good
		for _, name := range names {
			f, err := root.Open(name)
			if err != nil {
				continue
			}
			if values, err := sockdiag.SysctlFS(f); err == nil {
				files = append(files, values)
			}
			_ = f.Close() // only read from
		}
	}
	return detect.OldSettings(files)
}
