package snapshot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Snapshot is an opened directory.
type Snapshot struct {
	// Host is all but rows. Its Now, unless the directory tells it, is when the
	// last file of rows was written.
	Host detect.Host
	// Sockets and Flows read the rows from the files as they are asked for, as
	// often as they are: nil if there are none. Sockets are of TCP alone. A
	// line that cannot be read is left out: see Skipped.
	Sockets iter.Seq2[sockdiag.Socket, error]
	Flows   iter.Seq2[conntrack.Flow, error]
	// Files are all of the directory, by name.
	Files []File

	dir     fs.FS
	skipped map[string]Skipped
}

// File is one of the directory.
type File struct {
	Name string
	Kind Kind
	// Unused says why the file is not read; empty is read.
	Unused string

	written time.Time
	size    int64
}

// Skipped are the lines of a file that could not be read: how many, and why
// the first.
type Skipped struct {
	File  string
	Lines int
	First error
}

// String returns "3 lines of FILE: why the first".
func (s Skipped) String() string { return fmt.Sprintf("%d lines of %s: %v", s.Lines, s.File, s.First) }

// Skipped returns the files of which lines were left out when their rows were
// last read, by name.
func (s *Snapshot) Skipped() []Skipped {
	var all []Skipped
	for _, f := range s.Files {
		if k := s.skipped[f.Name]; k.Lines > 0 {
			all = append(all, k)
		}
	}
	return all
}

// Open opens a directory: os.DirFS("incident"). That it has no file to use is
// fs.ErrNotExist.
func Open(dir fs.FS) (*Snapshot, error) {
	s := &Snapshot{dir: dir, skipped: make(map[string]Skipped)}
	if err := s.list(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	s.first(Stats, ToolStats)
	s.last(ToolStats)
	if err := s.host(); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if s.first(RecordedSockets, SSSockets, NetstatSockets, ProcSockets) {
		s.Sockets = s.sockets
		if err := s.holders(); err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
	}
	if s.first(RecordedFlows, TextFlows) {
		s.Flows = s.flows
	}
	return s, nil
}

// list looks at every file, and decides which are read.
func (s *Snapshot) list() error {
	entries, err := fs.ReadDir(s.dir, ".")
	if err != nil {
		return err
	}
	used := 0
	for _, e := range entries {
		f := s.look(e)
		if f.Unused == "" {
			used++
		}
		s.Files = append(s.Files, f)
	}
	if used == 0 {
		return fmt.Errorf("none of %d files is known: %w", len(entries), fs.ErrNotExist)
	}
	return nil
}

func (s *Snapshot) look(e fs.DirEntry) File {
	f := File{Name: e.Name(), Kind: Unknown}
	info, err := fs.Stat(s.dir, e.Name())
	switch {
	case err != nil:
		f.Unused = err.Error()
		return f
	case info.IsDir():
		f.Unused = "a directory"
		return f
	}
	f.written, f.size = info.ModTime(), info.Size()
	in, kind, err := open(s.dir, e.Name())
	if err != nil {
		f.Unused = err.Error()
		return f
	}
	if f.Kind = kind; kind == Unknown {
		f.Unused = "no line of it is known"
	}
	_ = in.Close() // only read from
	return f
}

// first keeps the files of the first of the kinds that there is, and puts the
// others aside.
func (s *Snapshot) first(kinds ...Kind) bool {
	var kept Kind
	for _, k := range kinds {
		for i := range s.Files {
			f := &s.Files[i]
			if f.Kind != k || f.Unused != "" {
				continue
			}
			if kept == "" {
				kept = k
			}
			if k != kept {
				f.Unused = "there is " + string(kept)
			}
		}
	}
	return kept != ""
}

// last keeps the file of a kind that was written last, and puts the others
// aside.
func (s *Snapshot) last(kind Kind) (last *File) {
	for i := range s.Files {
		f := &s.Files[i]
		if f.Kind != kind || f.Unused != "" {
			continue
		}
		if last != nil && f.written.Before(last.written) {
			f, last = last, f
		}
		if last != nil {
			last.Unused = "there is a later one, " + f.Name
		}
		last = f
	}
	return last
}

// of returns the files of a kind that are read.
func (s *Snapshot) of(kinds ...Kind) []File {
	var files []File
	for _, f := range s.Files {
		if f.Unused == "" && slices.Contains(kinds, f.Kind) {
			files = append(files, f)
		}
	}
	return files
}

// host reads all but rows.
func (s *Snapshot) host() error {
	proc, err := s.proc()
	if err != nil {
		return err
	}
	if s.Host, err = System(proc); err != nil {
		return err
	}
	s.Host.Now = time.Time{}
	if err := s.text(); err != nil {
		return err
	}
	for _, f := range s.of(RecordedSockets, SSSockets, NetstatSockets, ProcSockets, RecordedFlows, TextFlows) {
		if f.written.After(s.Host.Now) {
			s.Host.Now = f.written
		}
	}
	for _, f := range s.of(RecordedHost) {
		if err := s.recorded(f.Name); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

// proc shows the files as those of /proc. Of sysctls in several files, those of
// the longest hold: sysctl -a before sysctl.conf.
func (s *Snapshot) proc() (fs.FS, error) {
	at := make(map[string]string)
	for kind, path := range places {
		if f := s.last(kind); f != nil {
			at[path] = f.Name
		}
	}
	proc := stack{placed{s.dir, at}}
	files := s.of(Sysctls)
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(b.size, a.size) })
	for _, f := range files {
		in, _, err := open(s.dir, f.Name)
		if err != nil {
			return nil, err
		}
		values, err := sockdiag.SysctlFS(in)
		if err = errors.Join(err, in.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		proc = append(proc, values)
	}
	if _, err := conntrack.ReadSettings(proc); errors.Is(err, fs.ErrNotExist) {
		proc = append(proc, oldNames{proc})
	}
	return proc, nil
}

func (s *Snapshot) recorded(name string) error {
	in, _, err := open(s.dir, name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	var j hostJSON
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	if j.Version < 1 || j.Version > hostVersion {
		return fmt.Errorf("version %d of the format, not 1 to %d: %w", j.Version, hostVersion, errors.ErrUnsupported)
	}
	h := &s.Host
	h.Now, h.Kernel, h.Files, h.Holders, h.Earlier = j.Now, cmp.Or(j.Kernel, h.Kernel), j.Files, j.Holders, j.Earlier
	h.Addrs, h.Log = append(h.Addrs, j.Addrs...), append(h.Log, j.Log...)
	if j.Old != nil {
		h.Old = j.Old
	}
	return nil
}
