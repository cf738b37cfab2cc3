package sockdiag

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Proc is where a proc file system is mounted. The empty Proc is /proc. It shows
// the processes of the PID namespace it was mounted in.
type Proc string

func (p Proc) path(elem ...string) string {
	return filepath.Join(append([]string{cmp.Or(string(p), "/proc")}, elem...)...)
}

// Process is a process that has a socket open. It is comparable.
type Process struct {
	// PID is its number in the PID namespace of the Proc.
	PID int
	// Command is its name (comm), of at most 15 bytes.
	Command string
	// UID is its effective user, in the user namespace of the reader.
	UID uint32
	// Started is when, after the boot, in units of 10 ms. A PID is used again,
	// a PID with this is not.
	Started time.Duration
}

// Holder is a descriptor by which a process has a socket open. A process can
// have several, and so can several processes (fork(2), SCM_RIGHTS).
type Holder struct {
	Process Process
	FD      int
}

// Holders is who has sockets open, and how complete that is.
type Holders struct {
	// Processes is how many processes were looked at, Unreadable how many could
	// not be (another user's: CAP_SYS_PTRACE), and Ended how many ended
	// meanwhile. Where /proc is mounted with hidepid=2, those of others are not
	// even counted.
	Processes, Unreadable, Ended int
	// Descriptors is how many open files the processes have.
	Descriptors int
	// Duration is how long it took.
	Duration time.Duration

	of map[uint32][]Holder
}

// Of returns who has the socket with this inode number open, by PID and
// descriptor. There may be others among the Unreadable. Inode 0 is nobody's.
func (h *Holders) Of(inode uint32) []Holder { return h.of[inode] }

// Holders looks for the processes that have sockets open, by Socket.Inode or
// UnixSocket.Inode. It looks at all open files of all processes once, however
// many sockets are asked for, and reads more of a process only when it has one:
// so ask once, and only for the sockets that matter. It is approximate, as
// processes come and go meanwhile.
//
// A thread that has its own descriptors (unshare(2) with CLONE_FILES) is not
// seen, nor is a socket that is on its way between processes, or that the kernel
// has for itself.
//
// Errors: fs.ErrNotExist when there is no proc file system, errors.ErrUnsupported
// on every system but Linux. Processes that cannot be read are none.
func (p Proc) Holders(ctx context.Context, inodes ...uint32) (*Holders, error) {
	start := time.Now()
	h := &Holders{of: make(map[uint32][]Holder, len(inodes))}
	for _, i := range inodes {
		if i != 0 {
			h.of[i] = nil
		}
	}
	if len(h.of) == 0 {
		return h, nil
	}
	if err := p.scan(ctx, h); err != nil {
		return nil, &OpError{Op: "owners", Err: err}
	}
	for _, holders := range h.of {
		slices.SortFunc(holders, func(a, b Holder) int {
			return cmp.Or(cmp.Compare(a.Process.PID, b.Process.PID), cmp.Compare(a.FD, b.FD))
		})
	}
	h.Duration = time.Since(start)
	return h, nil
}

func (p Proc) scan(ctx context.Context, h *Holders) error {
	dir, err := os.Open(p.path())
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	s, err := newScanner(dir, h)
	if err != nil {
		return err
	}
	defer s.close()
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 0 {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h.count(s.process(pid, name))
	}
	return nil
}

// count notes how looking at a process ended. Any failure but a lack of rights
// is that of a process that ends (ESRCH, ENOENT, EINVAL).
func (h *Holders) count(err error) {
	switch {
	case err == nil:
		h.Processes++
	case errors.Is(err, fs.ErrPermission):
		h.Unreadable++
	default:
		h.Ended++
	}
}

// socketInode reads the link of a socket's descriptor: "socket:[1234]".
func socketInode(link []byte) (uint32, bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	digits, closed := bytes.CutSuffix(digits, []byte("]"))
	if !ok || !closed || len(digits) == 0 || len(digits) > len("4294967295") {
		return 0, false
	}
	n := uint64(0)
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + uint64(d-'0')
	}
	return uint32(n), n < 1<<32
}

// parseStat reads the name and the start of a process from /proc/PID/stat. The
// name is in parentheses and may have any byte in it, parentheses too.
func parseStat(b []byte) (command string, started time.Duration, ok bool) {
	const (
		hertz     = 100 // USER_HZ, the same on every machine that Go runs on
		startTime = 22 - 3
	)
	left, right := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if left < 0 || right < left {
		return "", 0, false
	}
	fields := bytes.Fields(b[right+1:])
	if len(fields) <= startTime {
		return "", 0, false
	}
	ticks, err := strconv.ParseUint(string(fields[startTime]), 10, 39)
	return string(b[left+1 : right]), time.Duration(ticks) * (time.Second / hertz), err == nil
}

// parseUID reads the effective user from /proc/PID/status: the second number of
// "Uid:".
func parseUID(b []byte) (uint32, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			fields := bytes.Fields(rest)
			if len(fields) < 2 {
				return 0, false
			}
			uid, err := strconv.ParseUint(string(fields[1]), 10, 32)
			return uint32(uid), err == nil
		}
	}
	return 0, false
}
