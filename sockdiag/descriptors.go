package sockdiag

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

// Descriptors is how many files are open, and how many may be.
type Descriptors struct {
	// Used is how many are open.
	Used uint64
	// SoftLimit is how many a process may open before it gets EMFILE, and
	// HardLimit how far it may raise that itself (RLIMIT_NOFILE);
	// math.MaxUint64 is no limit. Of the system both are fs.file-max: beyond
	// it only CAP_SYS_ADMIN opens more, and others get ENFILE.
	SoftLimit, HardLimit uint64
}

// Descriptors counts the open files of a process (/proc/PID/fd, limits).
//
// Errors: fs.ErrNotExist when there is no such process, fs.ErrPermission when it
// is another user's (CAP_SYS_PTRACE).
func (p Proc) Descriptors(pid int) (Descriptors, error) {
	d, err := p.descriptors(strconv.Itoa(pid))
	if err != nil {
		return Descriptors{}, &OpError{Op: "descriptors", Err: err}
	}
	return d, nil
}

func (p Proc) descriptors(pid string) (Descriptors, error) {
	dir, err := os.Open(p.path(pid, "fd"))
	if err != nil {
		return Descriptors{}, err
	}
	defer dir.Close() //nolint:errcheck // read only
	var d Descriptors
	for {
		names, err := dir.Readdirnames(1024)
		d.Used += uint64(len(names))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Descriptors{}, err
		}
	}
	b, err := os.ReadFile(p.path(pid, "limits"))
	if err != nil {
		return Descriptors{}, err
	}
	d.SoftLimit, d.HardLimit, err = parseLimits(b)
	return d, err
}

// SystemDescriptors tells of the open files of all processes together
// (fs.file-nr), those of the kernel and of files in flight included.
func (p Proc) SystemDescriptors() (Descriptors, error) {
	b, err := os.ReadFile(p.path("sys/fs/file-nr"))
	if err == nil {
		var d Descriptors
		if d, err = parseFileNr(b); err == nil {
			return d, nil
		}
	}
	return Descriptors{}, &OpError{Op: "descriptors", Err: err}
}

// parseLimits reads the line "Max open files" of /proc/PID/limits.
func parseLimits(b []byte) (soft, hard uint64, err error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) < 2 {
			break
		}
		soft, err = parseLimit(string(fields[0]))
		if err == nil {
			hard, err = parseLimit(string(fields[1]))
		}
		return soft, hard, err
	}
	return 0, 0, errors.New("no \"Max open files\" in limits")
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// parseFileNr reads fs.file-nr: files allocated, free, which is 0 from Linux 2.6
// on, and the limit.
func parseFileNr(b []byte) (Descriptors, error) {
	var n [3]uint64
	fields := bytes.Fields(b)
	if len(fields) != len(n) {
		return Descriptors{}, fmt.Errorf("file-nr: %q", b)
	}
	for i, f := range fields {
		var err error
		if n[i], err = strconv.ParseUint(string(f), 10, 64); err != nil {
			return Descriptors{}, fmt.Errorf("file-nr: %w", err)
		}
	}
	return Descriptors{Used: n[0] - min(n[0], n[1]), SoftLimit: n[2], HardLimit: n[2]}, nil
}
