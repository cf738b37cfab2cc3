package detect

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// A process at its limit of descriptors has more after the commands.
func TestLabLimits(t *testing.T) {
	t.Parallel()
	lab.Tool(t, "prlimit")
	h := lab.New(t).MustHost(t, "host")
	pid := waitingCat(t)
	for _, tt := range []struct {
		name       string
		soft, hard uint64
		detector   Detector
		fix        int
		root       bool
	}{
		{"soft", 3, 2000, Descriptors{}, 0, false},
		{"as by default", 1000, 2000, Audit{}, 1, false},
		{"hard", 3, 3, Descriptors{}, 0, true},
		{"hard, as by default", 1000, 1000, Audit{}, 1, true},
	} {
		noError(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: tt.soft, Max: tt.hard}, nil))
		found := Find(limited(t, pid), tt.detector)
		if len(found) != 1 {
			t.Fatalf("%s: %v of %+v", tt.name, found, limited(t, pid).Files)
		}
		fix := found[0].Fix[tt.fix]
		if _, err := h.Exec(t.Context(), "sh", "-c", commandsOf(fix)[0]); err != nil {
			if tt.root && strings.Contains(err.Error(), "not permitted") {
				t.Skip(err)
			}
			t.Errorf("%s: %v", fix, err)
		}
		if found := Find(limited(t, pid), tt.detector); len(found) != 0 {
			t.Errorf("%s: after %s: %v", tt.name, fix, found)
		}
		Proved(t, fix)
	}
}

// waitingCat is a process that has started: with fewer files it could not.
func waitingCat(t *testing.T) (pid int) {
	t.Helper()
	cat := exec.CommandContext(t.Context(), lab.Tool(t, "cat"))
	in, err := cat.StdinPipe()
	noError(t, err)
	out, err := cat.StdoutPipe()
	noError(t, err)
	noError(t, cat.Start())
	t.Cleanup(func() { _ = cat.Wait() }) // when the context ends
	_, err = io.WriteString(in, "started")
	noError(t, err)
	_, err = io.ReadFull(out, make([]byte, 7))
	noError(t, err)
	return cat.Process.Pid
}

// limited is a host with one process.
func limited(t *testing.T, pid int) Host {
	t.Helper()
	d, err := sockdiag.Proc("").Descriptors(pid)
	noError(t, err)
	return Host{Now: now, Files: []OpenFiles{{Process: sockdiag.Process{PID: pid, Command: "cat"}, Descriptors: d}}}
}
