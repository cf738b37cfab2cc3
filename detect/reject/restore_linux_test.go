package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// usersRules are those of somebody else, who also uses the hooks and the group.
var usersRules = []nft.Table{{Family: nft.INet, Name: "filter", Comment: "of the user", Chains: []nft.Chain{
	{Name: "input", Hook: nft.Input, Rules: []nft.Rule{
		{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
		{CTState: nft.New, Log: &nft.Log{Group: firstGroup, Prefix: "mine "}},
		{Proto: nft.TCP, DstPort: 1000, Verdict: nft.RejectAdminProhibited, Comment: "no"},
	}},
}}, {Family: nft.IPv4, Name: "connsleuthish"}}

// hostState is all that Install could leave behind: the rules, as nft(8) lists
// them where it is installed, the sysctls, the loggers and their groups.
func hostState(t *testing.T, h *lab.Host) string {
	t.Helper()
	var text strings.Builder
	rules, err := h.Exec(within(t), "nft", "-s", "list", "ruleset")
	if errors.Is(err, exec.ErrNotFound) {
		rules, err = listRules(t, h), nil
	}
	must(t, err)
	text.Write(rules)
	for _, s := range reasonSysctls {
		value, err := h.Sysctl("net/netfilter/" + s.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		text.WriteString(s.name + "=" + value + "\n")
	}
	for _, name := range []string{"net/netfilter/nf_log", "net/netfilter/nfnetlink_log"} {
		b, err := fs.ReadFile(h.FS(), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		text.WriteString(name + ":\n" + string(b))
	}
	return text.String()
}

// listRules lists the rules without nft(8).
func listRules(t *testing.T, h *lab.Host) (text []byte) {
	t.Helper()
	conn, err := nft.Dial(h.NetNS())
	must(t, err)
	defer conn.Close() //nolint:errcheck // only asked
	set, err := conn.Ruleset(within(t))
	must(t, err)
	for _, table := range set.Tables {
		text = fmt.Appendf(text, "table %v %s { %s\n", table.Family, table.Name, table.Comment)
	}
	for ref, rule := range set.All() {
		text = fmt.Appendf(text, "%v %s\n", ref, rule.Text())
	}
	return text
}

// waitState waits until the host is as it was: the kernel unbinds groups some
// time after their sockets are closed.
func waitState(t *testing.T, h *lab.Host, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = hostState(t, h); got == want {
			return
		}
	}
	t.Errorf("got\n%s\nwant\n%s", got, want)
}

// usersHost is a host with rules of its own whose state is known.
func usersHost(t *testing.T) (h *lab.Host, state string) {
	t.Helper()
	_, h = lab.Two(t)
	must(t, h.Rules(within(t), usersRules...))
	return h, hostState(t, h)
}

// installCfg is a Config whose Watch calls ready and then is cancelled.
func installCfg(h *lab.Host, ready func()) *Config {
	return &Config{NetNS: h.NetNS(), Proc: h.FS(), Install: &Install{}, Ready: ready}
}

var progname = regexp.MustCompile(` # progname .*`)

// TestLiveInstallLeavesNothing compares all that Watch could change before it,
// meanwhile and after it, and what Plan says.
func TestLiveInstallLeavesNothing(t *testing.T) {
	t.Parallel()
	h, before := usersHost(t)
	plan, err := installCfg(h, nil).Plan()
	must(t, err)
	if plan.Missing != nil || len(plan.Sysctls) != 3 || hostState(t, h) != before {
		t.Errorf("plan: %v", plan)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(within(t))
		err = last(ctx, installCfg(h, func() {
			defer cancel()
			testMeanwhile(t, h, before, plan)
		}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		waitState(t, h, before)
	}
	r, err := nflog.Listen(&nflog.Config{NetNS: h.NetNS(), Groups: []uint16{group}})
	must(t, err)
	cfg := installCfg(h, nil)
	cfg.Groups = []uint16{group}
	if err := last(within(t), cfg); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("its group is taken, and it ends with %v", err)
	}
	must(t, r.Close())
	waitState(t, h, before)
}

// testMeanwhile looks at the host while Watch runs.
func testMeanwhile(t *testing.T, h *lab.Host, before string, plan Plan) {
	b, err := h.Exec(within(t), "nft", "-s", "list", "table", "inet", "connsleuth")
	if errors.Is(err, exec.ErrNotFound) {
		b, err = []byte(plan.Table), nil
	}
	must(t, err)
	if got := progname.ReplaceAllString(string(b), ""); got != plan.Table {
		t.Errorf("nft lists\n%s\nplanned was\n%s", got, plan.Table)
	}
	for _, s := range plan.Sysctls {
		if got, err := h.Sysctl(strings.ReplaceAll(s.Name, ".", "/")); err != nil || got != s.To {
			t.Errorf("sysctl %v: %q, %v", s, got, err)
		}
	}
	users, _, _ := strings.Cut(before, "nf_log/2")
	now := hostState(t, h)
	for line := range strings.Lines(users) {
		if !strings.Contains(now, line) {
			t.Errorf("%q is gone from\n%s", line, now)
		}
	}
	if !strings.Contains(now, "connsleuth-restore") {
		t.Errorf("got\n%s", now)
	}
	if err := last(within(t), installCfg(h, nil)); !errors.Is(err, ErrInstalled) || !strings.Contains(err.Error(), fmt.Sprintf("of process %d (", os.Getpid())) {
		t.Errorf("a second Watch: %v", err)
	}
}

// TestLiveInstallAfterCrash starts where a crash has left what outlives it.
func TestLiveInstallAfterCrash(t *testing.T) {
	t.Parallel()
	h, before := usersHost(t)
	was, err := h.Sysctl("net/netfilter/nf_log/2")
	must(t, err)
	must(t, h.Rules(within(t), nft.Table{Family: nft.INet, Name: restoreTable,
		Comment: recordOf([]restoreSysctl{{"nf_log/2", was}, {logInvalid, "3"}})}))
	must(t, h.SetSysctl("net/netfilter/nf_log/2", "nfnetlink_log"))
	// Somebody has set it to 0 since: so it stays.
	ctx, cancel := context.WithCancel(within(t))
	if err := last(ctx, installCfg(h, cancel)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitState(t, h, before)
	must(t, h.Rules(within(t), nft.Table{Family: nft.INet, Name: restoreTable, Comment: "was kernel/panic=1"}))
	if err := last(within(t), installCfg(h, nil)); err == nil || !strings.Contains(err.Error(), `"kernel/panic=1": set the sysctl back by hand`) {
		t.Errorf("a comment of another: %v", err)
	}
}

// degraded ranges over Watch until it is ready, and returns what is missing.
func degraded(t *testing.T, cfg *Config) (missing []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	cfg.Ready = cancel
	for _, err := range Watch(ctx, cfg) {
		if d, ok := errors.AsType[*Degraded](err); ok {
			missing = append(missing, d.Error())
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	return missing
}

// Somebody else listens to the kernel's reasons: they are left alone.
func TestLiveInstallGroupTaken(t *testing.T) {
	t.Parallel()
	h, before := usersHost(t)
	r, err := nflog.Listen(&nflog.Config{NetNS: h.NetNS(), Groups: []uint16{0}})
	must(t, err)
	missing := degraded(t, installCfg(h, nil))
	must(t, r.Close())
	if len(missing) != 1 || !strings.Contains(missing[0], "without the kernel's reasons for INVALID packets: group 0 has another use") {
		t.Errorf("got %q", missing)
	}
	waitState(t, h, before)
}

// readOnly in the environment makes this program the one that
// TestLiveInstallReadOnly starts.
const readOnly = "CONNSLEUTH_READ_ONLY"

// Where /proc/sys cannot be written, as in some containers, all but the reasons
// works.
func TestLiveInstallReadOnly(t *testing.T) {
	if os.Getenv(readOnly) != "" {
		installReadOnly(t)
		return
	}
	t.Parallel()
	h, before := usersHost(t)
	var out []byte
	err := h.Do(func() (err error) {
		cmd := exec.CommandContext(within(t), os.Args[0], "-test.run=^TestLiveInstallReadOnly$", "-test.v")
		cmd.Env = append(os.Environ(), readOnly+"=1", "CONNSLEUTH_LAB=skip")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err = cmd.CombinedOutput()
		return err
	})
	if err == nil && strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	waitState(t, h, before)
}

func installReadOnly(t *testing.T) {
	for _, m := range []struct {
		source, target string
		flags          uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE}, {"/proc/sys", "/proc/sys", unix.MS_BIND | unix.MS_REC},
		{"", "/proc/sys", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY},
	} {
		if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
			t.Skipf("/proc/sys cannot be made read-only here: %v", err)
		}
	}
	if missing := degraded(t, &Config{Install: &Install{}}); len(missing) != 1 || !strings.Contains(missing[0], "read-only file system") {
		t.Errorf("got %q", missing)
	}
}

// Without the capability, Watch says which one it needs, and changes nothing.
func TestLiveInstallUnprivileged(t *testing.T) {
	t.Parallel()
	h, before := usersHost(t)
	must(t, h.Do(func() error { // on a thread that ends with it
		none := [2]unix.CapUserData{}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Skipf("capabilities cannot be dropped here: %v", err)
		}
		cfg := &Config{Install: &Install{}}
		if err := last(within(t), cfg); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("got %v", err)
		}
		if plan, err := cfg.Plan(); err != nil || !strings.HasPrefix(plan.String(), "table inet connsleuth {\n") {
			t.Errorf("plan: %v, %v", plan, err)
		}
		return nil
	}))
	waitState(t, h, before)
}
