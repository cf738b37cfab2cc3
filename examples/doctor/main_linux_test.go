package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect/snapshot"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
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
	if restrict, err := os.ReadFile("/proc/sys/kernel/dmesg_restrict"); err == nil && string(restrict) == "1\n" && !strings.Contains(errs, "CAP_SYSLOG") {
		t.Errorf("the log may not be read, and is not missed: %s", errs)
	}
	if status, _, errs := unprivileged("-only", "Ghosts"); status != 2 || !strings.Contains(errs, "no detector could look") {
		t.Errorf("%d, %s", status, errs)
	}
}

// What the kernel has logged of a flood is found when the flood is over; that
// of another host is not.
func TestLog(t *testing.T) {
	client, server := lab.Two(t)
	if _, err := snapshot.KernelLog(time.Now()); err != nil {
		t.Skip(err)
	}
	if err := server.SetSysctl("net.core.somaxconn", "4"); err != nil {
		t.Fatal(err)
	}
	deaf := nft.Table{Family: nft.INet, Name: "deaf", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.Drop}}},
	}}
	if err := client.Rules(t.Context(), deaf); err != nil {
		t.Fatal(err)
	}
	// The kernel says no more than ten things in five seconds.
	var out, errs string
	for port := uint16(42000); port < 42020; port++ {
		lab.Flood(t, client, server, port)
		var status int
		if status, out, errs = doctor(t, server, "-only", "SynFlood", "-log", "1m"); status == 1 {
			break
		}
	}
	if !strings.HasPrefix(out, "WARNING: kernel log (SynFlood, likely)") || !strings.Contains(out, "Possible SYN flooding on port ") {
		t.Errorf("%s%s", out, errs)
	}
	for h, args := range map[*lab.Host][]string{client: {"-log", "1m"}, server: {"-log", "0"}} {
		if status, out, errs := doctor(t, h, append(args, "-only", "SynFlood")...); status != 0 {
			t.Errorf("%s, %v: %s%s", h.Name(), args, out, errs)
		}
	}
}
