package lab

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// FS is /proc as seen from inside the host: "sys/net/netfilter/nf_conntrack_max",
// "net/stat/nf_conntrack". A file is read whole when it is opened, on a thread
// inside the host; what is read of it later is from memory.
func (h *Host) FS() fs.FS { return procFS{h} }

type procFS struct{ h *Host }

// Open implements fs.FS.
func (p procFS) Open(name string) (f fs.File, err error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	err = p.h.Do(func() (err error) {
		f, err = load(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// load reads a file or directory of /proc as the calling thread sees it. For
// /proc/sys/net the kernel looks at the thread that opens; /proc/net is a link
// to that of the main thread, so the thread's own must be named.
func load(name string) (*memFile, error) {
	actual := path.Join("/proc", name)
	if name == "net" || strings.HasPrefix(name, "net/") {
		actual = path.Join("/proc/thread-self", name)
	}
	f, err := os.Open(actual)
	if err != nil {
		return nil, renamed(err, name)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, renamed(err, name)
	}
	m := &memFile{name: name, info: info}
	if info.IsDir() {
		m.entries, err = entries(f)
		return m, renamed(err, name)
	}
	b, err := io.ReadAll(f)
	m.data = bytes.NewReader(b)
	return m, renamed(err, name)
}

// entries lists a directory in order. What is known of each is asked for now:
// an os.DirEntry would ask when it is used, outside.
func entries(dir *os.File) ([]fs.DirEntry, error) {
	infos, err := dir.Readdir(-1)
	list := make([]fs.DirEntry, len(infos))
	for i, info := range infos {
		list[i] = fs.FileInfoToDirEntry(info)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// renamed makes the error name the path that was asked for.
func renamed(err error, name string) error {
	if e, ok := err.(*fs.PathError); ok { //nolint:errorlint // as package os made it
		return &fs.PathError{Op: e.Op, Path: name, Err: e.Err}
	}
	return err
}

// memFile is an open file or directory held in memory.
type memFile struct {
	name    string
	info    fs.FileInfo
	data    *bytes.Reader // nil for a directory
	entries []fs.DirEntry
	next    int
	closed  bool
}

func (f *memFile) fault(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// Stat implements fs.File. The size is that of procfs: 0.
func (f *memFile) Stat() (fs.FileInfo, error) {
	if f.closed {
		return nil, f.fault("stat", fs.ErrClosed)
	}
	return f.info, nil
}

// Read implements fs.File.
func (f *memFile) Read(b []byte) (int, error) {
	switch {
	case f.closed:
		return 0, f.fault("read", fs.ErrClosed)
	case f.data == nil:
		return 0, f.fault("read", fs.ErrInvalid)
	}
	return f.data.Read(b)
}

// Close implements fs.File.
func (f *memFile) Close() error {
	if f.closed {
		return f.fault("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// ReadDir implements fs.ReadDirFile.
func (f *memFile) ReadDir(n int) ([]fs.DirEntry, error) {
	switch {
	case f.closed:
		return nil, f.fault("readdir", fs.ErrClosed)
	case f.data != nil:
		return nil, f.fault("readdir", fs.ErrInvalid)
	}
	rest := f.entries[f.next:]
	if n > 0 && len(rest) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	f.next += len(rest)
	return slices.Clone(rest), nil
}
