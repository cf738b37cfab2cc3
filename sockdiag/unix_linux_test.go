package sockdiag

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// unixScene is a host with UNIX sockets of every kind.
type unixScene struct {
	*scene
	path  string // of a listener with two connections that wait
	inode map[string]uint32
}

func newUnixScene(t *testing.T) *unixScene {
	t.Helper()
	dir, err := os.MkdirTemp("", "unix") // t.TempDir can be longer than a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &unixScene{&scene{t, lab.New(t).MustHost(t, "a")}, filepath.Join(dir, "l"), make(map[string]uint32)}
	at := &unix.SockaddrUnix{Name: s.path}
	l := s.unix("listener", unix.SOCK_STREAM)
	s.check(errors.Join(unix.Bind(l, at), unix.Listen(l, 3)))
	client := s.unix("client", unix.SOCK_STREAM)
	s.check(unix.Connect(client, at))
	accepted, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	s.check(err)
	s.keepFD("accepted", accepted)
	_, err = unix.Write(client, make([]byte, 77))
	s.check(errors.Join(err, unix.Shutdown(client, unix.SHUT_WR)))
	for _, name := range []string{"first", "second"} {
		s.check(unix.Connect(s.unix(name, unix.SOCK_STREAM), at))
	}
	s.check(unix.Bind(s.unix("abstract", unix.SOCK_DGRAM), &unix.SockaddrUnix{Name: "@sleuth\x00more"}))
	for range 2 {
		s.check(unix.Sendto(s.unix("sender", unix.SOCK_DGRAM), make([]byte, 10), 0, &unix.SockaddrUnix{Name: "@sleuth\x00more"}))
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0) // in this test's own namespace
	s.check(err)
	s.keepFD("elsewhere", pair[0])
	s.keepFD("elsewhere", pair[1])
	s.unix("alone", unix.SOCK_SEQPACKET)
	return s
}

// unix opens a socket of the host under a name.
func (s *unixScene) unix(name string, kind int) int {
	s.t.Helper()
	fd := s.socket(unix.AF_UNIX, kind, 0)
	s.number(name, fd)
	return fd
}

func (s *unixScene) keepFD(name string, fd int) {
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	s.number(name, fd)
}

func (s *unixScene) number(name string, fd int) {
	var st unix.Stat_t
	s.check(unix.Fstat(fd, &st))
	s.inode[name] = uint32(st.Ino)
}

// rows returns what Unix shows, by inode number.
func (s *unixScene) rows(q UnixQuery) map[uint32]UnixSocket {
	s.t.Helper()
	rows, err := collectUnix(s.t, dialHost(s.t, s.h), q)
	s.check(err)
	at := make(map[uint32]UnixSocket)
	for _, row := range rows {
		at[row.Inode] = row
	}
	if len(at) != len(rows) {
		s.t.Errorf("%d rows of %d sockets", len(rows), len(at))
	}
	return at
}

func TestUnix(t *testing.T) {
	s := newUnixScene(t)
	at := s.rows(UnixQuery{Memory: true})
	if len(at) != 9 {
		t.Errorf("%d sockets, want 9: %+v", len(at), at)
	}
	where := s.file(at[s.inode["listener"]])
	ino := s.inode
	for name, ok := range map[string]func(s UnixSocket) bool{
		"listener": func(s UnixSocket) bool {
			return s.Type == UnixStream && s.State == Listen && s.AcceptQueue == 2 && s.Backlog == 3 &&
				s.RecvQueue == 0 && s.SendQueue == 0 && !s.Abstract && !s.Has(UnixFieldPeer) && s.File == where &&
				slices.Equal(s.Pending(), []uint32{ino["first"], ino["second"]})
		},
		"client": func(s UnixSocket) bool {
			return s.State == Established && s.Peer == ino["accepted"] && s.SendQueue >= 77 && s.Path == "" &&
				s.Shutdown == ShutdownSend && !s.Has(UnixFieldPath|UnixFieldFile) && s.Memory.SndAlloc >= 77
		},
		"accepted": func(s UnixSocket) bool {
			return s.State == Established && s.Peer == ino["client"] && s.RecvQueue == 77 && s.Has(UnixFieldPath) &&
				s.Shutdown == ShutdownReceive && s.File == where
		},
		"first": func(s UnixSocket) bool {
			return s.State == Established && s.Has(UnixFieldPeer) && s.Peer == 0
		},
		"abstract": func(s UnixSocket) bool {
			return s.Type == UnixDatagram && s.State == Close && s.Abstract && s.Path == "@sleuth\x00more" &&
				s.RecvQueue == 10 && !s.Has(UnixFieldFile)
		},
		"alone": func(s UnixSocket) bool {
			return s.Type == UnixSeqpacket && s.State == Close && s.Fields&(UnixFieldPath|UnixFieldPeer) == 0
		},
	} {
		row := at[ino[name]]
		if !ok(row) || row.Cookie == 0 || !row.Has(UnixFieldQueues|UnixFieldMemory|UnixFieldShutdown) {
			t.Errorf("%s: %+v", name, row)
		}
	}
	if row := at[ino["listener"]]; row.Path != s.path || row.Has(UnixFieldUID) && row.UID != uint32(os.Getuid()) {
		t.Errorf("%+v", row)
	}
	t.Log("SUPPORT: user of UNIX sockets:", map[bool]string{true: "yes", false: "no"}[at[ino["alone"]].Has(UnixFieldUID)])
}

// file returns where the listener's socket is. File systems made of others have
// numbers of their own, which stat(2) does not show.
func (s *unixScene) file(listener UnixSocket) UnixFile {
	s.t.Helper()
	var file unix.Stat_t
	var fs unix.Statfs_t
	s.check(errors.Join(unix.Stat(s.path, &file), unix.Statfs(s.path, &fs)))
	if magic := uint32(fs.Type); magic == unix.OVERLAYFS_SUPER_MAGIC || magic == unix.BTRFS_SUPER_MAGIC {
		return listener.File
	}
	return UnixFile{uint32(file.Ino), unix.Major(uint64(file.Dev)), unix.Minor(uint64(file.Dev))}
}

// TestUnixQuery compares what the kernel selects with a selection made here.
func TestUnixQuery(t *testing.T) {
	s := newUnixScene(t)
	all := s.rows(UnixQuery{})
	for _, q := range []UnixQuery{
		{States: States(Listen)}, {States: States(Close)}, {States: States(Established)}, {Type: UnixDatagram},
		{Type: UnixStream, States: States(Established)},
	} {
		want := 0
		for _, row := range all {
			if q.matches(&row) {
				want++
			}
		}
		if got := s.rows(q); len(got) != want || want == 0 || want == len(all) {
			t.Errorf("%+v: %d sockets, want %d of %d", q, len(got), want, len(all))
		}
	}
}

// TestUnixAgainstProc compares with /proc/net/unix, which also shows the
// connections that wait, without an inode.
func TestUnixAgainstProc(t *testing.T) {
	s := newUnixScene(t)
	var table []byte
	s.check(s.h.Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/unix")
		return err
	}))
	at := s.rows(UnixQuery{})
	waiting := 0
	for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
		f := strings.Fields(line)
		inode := uint32(ssNumber(f[6]))
		if inode == 0 {
			waiting++
			continue
		}
		row, path := at[inode], ""
		delete(at, inode)
		if len(f) > 7 {
			path = f[7]
		}
		listens := f[3] == "00010000" // __SO_ACCEPTCON
		if kind, _ := strconv.ParseUint(f[4], 16, 8); UnixType(kind) != row.Type || listens != (row.State == Listen) ||
			(f[5] == "03") != (row.State == Established) || path != strings.ReplaceAll(row.Path, "\x00", "@") {
			t.Errorf("%s\n%+v", line, row)
		}
	}
	if len(at) != 0 || waiting != 2 {
		t.Errorf("%d connections wait, want 2; not shown: %+v", waiting, at)
	}
}

// TestUnixAgainstSS compares with ss -x. Its device is left out: it takes the
// kernel's encoding for that of stat(2).
func TestUnixAgainstSS(t *testing.T) {
	lab.Tool(t, "ss")
	s := newUnixScene(t)
	out, err := s.h.Exec(t.Context(), "ss", "-xaOemnH")
	s.check(err)
	at := s.rows(UnixQuery{Memory: true})
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		inode := uint32(ssNumber(f[5]))
		row := at[inode]
		delete(at, inode)
		if got := unixAsSS(row); !slices.Equal(got[:9], f[:9]) || !strings.Contains(line, got[9]) {
			t.Errorf("got %v\nss  %v", got, f)
		}
	}
	if len(at) != 0 {
		t.Errorf("ss does not show %+v", at)
	}
}

// unixAsSS writes the columns of ss -xaOem, and what stands behind them.
func unixAsSS(s UnixSocket) []string {
	kind := map[UnixType]string{UnixStream: "u_str", UnixDatagram: "u_dgr", UnixSeqpacket: "u_seq"}[s.Type]
	path := "*"
	if s.Has(UnixFieldPath) {
		path = strings.ReplaceAll(s.Path, "\x00", "@")
	}
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	columns := []string{
		kind, s.State.SS(), number(s.RecvQueue + s.AcceptQueue), number(s.SendQueue + s.Backlog),
		path, number(s.Inode), "*", number(s.Peer), asSS(&Socket{Memory: s.Memory})["skmem"].value, "",
	}
	columns[8] = "skmem:" + columns[8]
	for i, client := range s.Pending() {
		if i == 0 {
			columns[9] = "peers:"
		}
		columns[9] += " " + number(client)
	}
	return columns
}
