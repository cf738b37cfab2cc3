package sockdiag

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// SysctlFS reads what sysctl -a has written, or a file like sysctl.conf, and
// shows it as the files of /proc/sys that it came from, below sys: for
// ReadSettings of this package and of conntrack. The last of two values of one
// name holds. Comments, sections and lines without a value are skipped.
func SysctlFS(r io.Reader) (fs.FS, error) {
	files := make(sysctlFS)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := strings.TrimPrefix(strings.TrimSpace(lines.Text()), "-") // sysctl.conf: no error
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		files[sysctlFile(name)] = strings.TrimSpace(value) + "\n"
	}
	if err := lines.Err(); err != nil {
		return nil, &OpError{Op: "sysctl", Err: fmt.Errorf("%d names read: %w", len(files), err)}
	}
	return files, nil
}

// sysctlFile is the path of a name: net.ipv4.conf.eth0/100.rp_filter is of
// eth0.100, and net/ipv4/conf/eth0.100/rp_filter, too.
func sysctlFile(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	return "sys/" + name
}

// sysctlFS holds the contents of files by path.
type sysctlFS map[string]string

// Open opens a file; there are no directories.
func (f sysctlFS) Open(name string) (fs.File, error) {
	text, ok := f[name]
	switch {
	case !fs.ValidPath(name):
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	case !ok:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &sysctlReader{strings.NewReader(text), path.Base(name)}, nil
}

// sysctlReader is an open file, and what it says of itself.
type sysctlReader struct {
	*strings.Reader
	name string
}

func (f *sysctlReader) Close() error               { return nil }
func (f *sysctlReader) Stat() (fs.FileInfo, error) { return f, nil }
func (f *sysctlReader) Name() string               { return f.name }
func (f *sysctlReader) Mode() fs.FileMode          { return 0o444 }
func (f *sysctlReader) ModTime() time.Time         { return time.Time{} }
func (f *sysctlReader) IsDir() bool                { return false }
func (f *sysctlReader) Sys() any                   { return nil }
