package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func fakeProcess(files map[string]string, pid, comm string, uid int, fds map[string]string) {
	files[pid+"/stat"] = pid + " (" + comm + ") S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 300 1 2\n"
	files[pid+"/status"] = fmt.Sprintf("Name:\t%s\nUid:\t0\t%d\t0\t0\n", comm, uid)
	for fd, link := range fds {
		files[pid+"/fd/"+fd] = "-> " + link
	}
}

// TestHolders: two descriptors of one process, several processes, others that
// end, and numbers that are no processes.
func TestHolders(t *testing.T) {
	files := map[string]string{"sys/fs/x": "", "self": "-> 7", "uptime": ""}
	fakeProcess(files, "70", "worker (1)", 1000, map[string]string{"3": "socket:[11]", "12": "socket:[22]", "2000": "socket:[11]",
		"30": "socket:[44]", "9": "socket:[44]", "1024": "socket:[44]", "10": "socket:[44]", "4": "socket:[44]", "1023": "socket:[44]"})
	fakeProcess(files, "7", "master", 0, map[string]string{"0": "/dev/null", "4": "socket:[11]", "5": "socket:[33]", "6": "pipe:[22]"})
	files["8/fd"] = "no directory any more"
	files["9/fd/1"] = "-> socket:[11]" // ended before its stat was read
	p := fakeProc(t, files)
	h, err := p.Holders(t.Context(), 11, 22, 44, 55, 0, 11)
	if err != nil {
		t.Fatal(err)
	}
	worker := Process{PID: 70, Command: "worker (1)", UID: 1000, Started: 3 * time.Second}
	master := Process{PID: 7, Command: "master", Started: 3 * time.Second}
	for inode, want := range map[uint32][]Holder{
		11: {{master, 4}, {worker, 3}, {worker, 2000}},
		22: {{worker, 12}},
		33: nil, // not asked for
		44: {{worker, 4}, {worker, 9}, {worker, 10}, {worker, 30}, {worker, 1023}, {worker, 1024}},
		55: nil, // nobody's
		0:  nil,
	} {
		if got := h.Of(inode); !slices.Equal(got, want) {
			t.Errorf("%d: %+v, want %+v", inode, got, want)
		}
	}
	if h.Processes != 2 || h.Ended != 2 || h.Unreadable != 0 || h.Descriptors != 14 || h.Duration <= 0 {
		t.Errorf("%+v", h)
	}
	if h, err := Proc("/nowhere").Holders(t.Context(), 0); err != nil || h.Processes != 0 {
		t.Errorf("nothing asked for: %+v, %v", h, err)
	}
	if _, err := Proc("/nowhere").Holders(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no proc: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var op *OpError
	if _, err := p.Holders(ctx, 1); !errors.Is(err, context.Canceled) || !errors.As(err, &op) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestHoldersOfOthers: another user's processes are counted, not passed over.
func TestHoldersOfOthers(t *testing.T) {
	err := lab.New(t).MustHost(t, "a").Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		files := make(map[string]string)
		fakeProcess(files, "7", "mine", 0, map[string]string{"4": "socket:[11]"})
		fakeProcess(files, "8", "theirs", 0, map[string]string{"4": "socket:[11]"})
		p := fakeProc(t, files)
		if err := os.Chmod(p.path("8/fd"), 0); err != nil {
			return err
		}
		defer os.Chmod(p.path("8/fd"), 0o700) //nolint:errcheck // for the clean-up
		h, err := p.Holders(t.Context(), 11)
		if err != nil {
			return err
		}
		if h.Processes != 1 || h.Unreadable != 1 || len(h.Of(11)) != 1 {
			t.Errorf("%+v", h)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var ssUser = regexp.MustCompile(`\("(.*?)",pid=(\d+),fd=(\d+)\)`)

// TestHoldersAgainstSS compares who has the sockets of a scene, one of them in
// two processes.
func TestHoldersAgainstSS(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	client, _ := s.pair(portQuiet, loopback4, "tcp4")
	l := s.listen("tcp4", netip.AddrPortFrom(loopback4, portQueued))
	s.dial(netip.AddrPortFrom(loopback4, portQueued))
	file, err := client.File()
	s.check(err)
	s.keep(file)
	self, err := os.Executable()
	s.check(err)
	child := exec.CommandContext(t.Context(), self)
	child.Env, child.ExtraFiles = append(os.Environ(), holder+"=1"), []*os.File{file}
	_, err = child.StdinPipe() // closed by Wait
	s.check(err)
	s.check(child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })

	sockets := snapshot(t, dialHost(t, s.h), Query{})
	var inodes []uint32
	for _, s := range sockets {
		inodes = append(inodes, s.Inode)
	}
	h, err := Proc("").Holders(t.Context(), inodes...)
	s.check(err)
	shared := one(t, sockets, portQuiet, Established, false)
	mine := make(map[int]int)
	for _, holder := range h.Of(shared.Inode) {
		mine[holder.Process.PID]++
	}
	if want := map[int]int{os.Getpid(): 2, child.Process.Pid: 1}; !maps.Equal(mine, want) {
		t.Errorf("%v, want %v", mine, want)
	}
	if got := h.Of(one(t, sockets, portQueued, Listen, true).Inode); len(got) != 1 || got[0].Process.UID != uint32(os.Geteuid()) {
		t.Errorf("the listener %v: %+v", l.Addr(), got)
	}

	lab.Tool(t, "ss")
	out, err := s.h.Exec(t.Context(), "ss", "-tanpeH")
	s.check(err)
	compared := 0
	for line := range strings.Lines(string(out)) {
		inode, _ := strconv.ParseUint(regexp.MustCompile(` ino:(\d+)`).ReplaceAllString(regexp.MustCompile(` ino:\d+`).FindString(line), "$1"), 10, 32)
		var want []string
		for _, m := range ssUser.FindAllStringSubmatch(line, -1) {
			want = append(want, fmt.Sprintf("%s %s %s", m[1], m[2], m[3]))
		}
		var got []string
		for _, holder := range h.Of(uint32(inode)) {
			got = append(got, fmt.Sprintf("%s %d %d", holder.Process.Command, holder.Process.PID, holder.FD))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("inode %d: %q, ss %q", inode, got, want)
		}
		compared += len(want)
	}
	if compared < 5 {
		t.Errorf("%d holders compared in %s", compared, out)
	}
}

// TestOwnDescriptors counts this process's.
func TestOwnDescriptors(t *testing.T) {
	before, err := Proc("").Descriptors(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if before.Used < 3 || before.SoftLimit != limit.Cur || before.HardLimit != limit.Max {
		t.Errorf("%+v, %+v", before, limit)
	}
	system, err := Proc("").SystemDescriptors()
	if err != nil || system.SoftLimit == 0 { // Used is counted by processor, and can be 0 on a small host
		t.Errorf("%+v, %v", system, err)
	}
}

// BenchmarkHolders looks for 1 and for all of 20,000 sockets of this process,
// beside os.ReadDir and os.Readlink (x-plain is how many times as long they
// take). What it costs does not depend on how many are asked for.
func BenchmarkHolders(b *testing.B) {
	c := dialHost(b, crowd(b, 60000))
	var all []uint32
	for _, s := range snapshot(b, c, Query{}) {
		if s.HasOwner() {
			all = append(all, s.Inode)
		}
	}
	for _, n := range []int{1, len(all)} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			var ratios []float64
			var h *Holders
			for b.Loop() {
				var err error
				if h, err = Proc("").Holders(b.Context(), all[:n]...); err != nil {
					b.Fatal(err)
				}
				if len(h.Of(all[0])) == 0 {
					b.Fatal("no holder")
				}
				b.StopTimer()
				start := time.Now()
				plainScan(b)
				ratios = append(ratios, float64(time.Since(start))/float64(h.Duration))
				b.StartTimer()
			}
			b.ReportMetric(median(ratios), "x-plain")
			b.ReportMetric(float64(h.Duration)/float64(h.Descriptors), "ns/descriptor")
			b.ReportMetric(float64(h.Descriptors), "descriptors")
		})
	}
}

func plainScan(b *testing.B) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range processes {
		fds, _ := os.ReadDir("/proc/" + p.Name() + "/fd") // most of them are no processes
		for _, fd := range fds {
			link, _ := os.Readlink("/proc/" + p.Name() + "/fd/" + fd.Name())
			plainLinks += len(link)
		}
	}
}

var plainLinks int
