package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// Without capabilities it sees the sockets, and says what would show the rest.
func TestUnprivileged(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := lab.New(t).MustHost(t, "host")
	unprivileged := func(args ...string) (int, string, string) {
		cmd := exec.CommandContext(t.Context(), exe, append([]string{"-over", "0"}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER} // capable in there, not in the host's
		return finish(t, h, cmd)
	}
	status, out, errs := unprivileged()
	if status != 0 || !strings.Contains(out, "info: ") || !strings.Contains(errs, "CAP_NET_ADMIN") ||
		!strings.Contains(errs, "without flows, these did not look: Ghosts, LostFlows, PortReuse, PortSpace\n") {
		t.Errorf("%d\n%s%s", status, out, errs)
	}
	if status, _, errs := unprivileged("-only", "Ghosts"); status != 2 || !strings.Contains(errs, "no detector could look") {
		t.Errorf("%d, %s", status, errs)
	}
}
