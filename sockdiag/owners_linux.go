package sockdiag

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// scanner looks at one process after the other with the same buffers. What it
// opens of a process it opens below one descriptor of its directory, which never
// comes to mean another process, even if the PID is used again.
type scanner struct {
	proc    int // descriptor of the proc file system
	h       *Holders
	entries []byte
	link    [len("socket:[4294967295]") + 1]byte // one that is cut off is no socket's
	text    []byte
	numbers []string // of small descriptors
	found   []Holder // of one process
	inodes  []uint32 // beside found
}

func newScanner(proc *os.File, h *Holders) (*scanner, error) {
	fd, err := unix.FcntlInt(proc.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &scanner{proc: fd, h: h, entries: make([]byte, 32<<10), text: make([]byte, 4<<10)}
	for i := range 1024 {
		s.numbers = append(s.numbers, strconv.Itoa(i))
	}
	return s, nil
}

func (s *scanner) close() { _ = unix.Close(s.proc) } // read only

// process adds what a process has open of what was asked for.
func (s *scanner) process(pid int, name string) error {
	dir, err := open(s.proc, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir) //nolint:errcheck // read only
	fds, err := open(dir, "fd", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fds) //nolint:errcheck // read only
	s.found, s.inodes = s.found[:0], s.inodes[:0]
	if err := s.descriptors(fds); err != nil {
		return err
	}
	if len(s.found) == 0 {
		return nil
	}
	p, err := s.identify(dir, pid)
	if err != nil {
		return err
	}
	for i, f := range s.found {
		f.Process = p
		s.h.of[s.inodes[i]] = append(s.h.of[s.inodes[i]], f)
	}
	return nil
}

func open(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR { //nolint:errorlint // an errno as it is
			return fd, err
		}
	}
}

// descriptors reads a directory of descriptors.
func (s *scanner) descriptors(dir int) error {
	for {
		n, err := unix.Getdents(dir, s.entries)
		if err != nil || n <= 0 {
			return err
		}
		for b := s.entries[:n]; len(b) > 0; {
			var fd int
			var ok bool
			if fd, ok, b = directoryEntry(b); ok {
				s.descriptor(dir, fd)
			}
		}
	}
}

// directoryEntry takes the first entry off what getdents64 has read (struct
// linux_dirent64); ok tells that its name is a number.
func directoryEntry(b []byte) (fd int, ok bool, rest []byte) {
	const (
		lengthAt = 16 // d_reclen
		nameAt   = 19 // d_name, which ends with a NUL
	)
	if len(b) < nameAt {
		return 0, false, nil
	}
	n := int(binary.NativeEndian.Uint16(b[lengthAt:]))
	if n <= nameAt || n > len(b) {
		return 0, false, nil
	}
	fd, ok = descriptorNumber(b[nameAt:n])
	return fd, ok, b[n:]
}

// descriptorNumber reads a decimal number that ends with a NUL.
func descriptorNumber(b []byte) (n int, ok bool) {
	for i, d := range b {
		switch {
		case d == 0:
			return n, i > 0
		case d < '0' || d > '9' || n > 1<<26:
			return 0, false
		}
		n = 10*n + int(d-'0')
	}
	return 0, false
}

// descriptor reads the link of a descriptor. One that is closed meanwhile is
// none.
func (s *scanner) descriptor(dir, fd int) {
	s.h.Descriptors++
	n, err := unix.Readlinkat(dir, s.number(fd), s.link[:])
	if err != nil {
		return
	}
	inode, ok := socketInode(s.link[:n])
	if !ok {
		return
	}
	if _, asked := s.h.of[inode]; asked {
		s.found, s.inodes = append(s.found, Holder{FD: fd}), append(s.inodes, inode)
	}
}

func (s *scanner) number(fd int) string {
	if fd < len(s.numbers) {
		return s.numbers[fd]
	}
	return strconv.Itoa(fd)
}

// identify reads what there is to know of a process.
func (s *scanner) identify(dir, pid int) (Process, error) {
	p := Process{PID: pid}
	b, err := s.read(dir, "stat")
	if err != nil {
		return Process{}, err
	}
	var ok bool
	if p.Command, p.Started, ok = parseStat(b); !ok {
		return Process{}, unix.EINVAL
	}
	if b, err = s.read(dir, "status"); err != nil {
		return Process{}, err
	}
	if p.UID, ok = parseUID(b); !ok {
		return Process{}, unix.EINVAL
	}
	return p, nil
}

// read reads a small file. What it returns is good until the next.
func (s *scanner) read(dir int, name string) ([]byte, error) {
	fd, err := open(dir, name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	b := s.text[:0]
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err != nil || n == 0 {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, len(b))
			s.text = b
		}
	}
}
