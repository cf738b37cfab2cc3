package lab_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// helperMode is the environment variable that makes the test binary a program
// that uses Enter.
const helperMode = "CONNSLEUTH_LAB_TEST"

const (
	statusForbidden  = 42
	statusTerminated = 43
)

func init() {
	if mode := os.Getenv(helperMode); mode != "" {
		os.Exit(helper(mode))
	}
}

func helper(mode string) int {
	if mode == "forbid" {
		return forbid()
	}
	if err := lab.Enter(); err != nil {
		fmt.Println(err)
		return statusForbidden
	}
	n, err := lab.Open()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer n.Close()
	switch mode {
	case "status":
		return 7
	case "identity":
		dir, _ := os.Getwd()
		in, _ := io.ReadAll(os.Stdin)
		fmt.Println(os.Getuid(), os.Getgid(), dir, os.Args[1:], string(in), os.Getenv("CONNSLEUTH_LAB_INSIDE"))
	case "wait":
		return wait()
	}
	return 0
}

// forbid forbids namespaces in the user namespace it runs in, and then is what
// TestMain is.
func forbid() int {
	for _, file := range []string{"max_user_namespaces", "max_net_namespaces"} {
		if err := os.WriteFile("/proc/sys/user/"+file, []byte("0"), 0); err != nil {
			fmt.Println(err)
			return statusForbidden
		}
	}
	lab.Main(oneTest{})
	return 1
}

// oneTest is the tests that Main runs: it asks for a lab and tells what became
// of that.
type oneTest struct{ lab.TB }

func (t oneTest) Run() int {
	lab.New(t)
	return 1
}

func (oneTest) Helper() {}

func (oneTest) Skipf(format string, args ...any) { end("skip", format, args) }

func (oneTest) Fatalf(format string, args ...any) { end("fatal", format, args) }

func end(how, format string, args []any) {
	fmt.Println(how+":", fmt.Sprintf(format, args...))
	os.Exit(0)
}

// wait tells its process id and waits for a signal.
func wait() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println(os.Getpid())
	select {
	case <-signals:
		return statusTerminated
	case <-time.After(time.Minute):
		return 1
	}
}

// program is the helper, run by a user without any capability.
func program(t *testing.T, mode string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), helperMode+"="+mode)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
	const nobody = 1000 // any that is not 0: exec then takes the capabilities away
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

// skipForbidden skips the test where user namespaces cannot be made.
func skipForbidden(t *testing.T, err error, out string) {
	t.Helper()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() != statusForbidden {
		return
	}
	if err != nil {
		t.Skipf("user namespaces: %v\n%s", err, out)
	}
}

func TestEnterStatus(t *testing.T) {
	out, err := program(t, "status").Output()
	skipForbidden(t, err, string(out))
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 7 {
		t.Errorf("got %v, want status 7\n%s", err, out)
	}
}

func TestEnterIsTheSame(t *testing.T) {
	cmd := program(t, "identity", "-a", "b c")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader("input")
	out, err := cmd.Output()
	skipForbidden(t, err, string(out))
	if want := "0 0 / [-a b c] input \n"; string(out) != want || err != nil {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

// TestMainWhereForbidden runs tests in a user namespace that may have no
// others within.
func TestMainWhereForbidden(t *testing.T) {
	const forbidden = "lab: clone(CLONE_NEWUSER | CLONE_NEWNET): no space left on device\n" +
		"forbidden by: user.max_user_namespaces is 0\n" +
		"to allow it: sysctl -w user.max_user_namespaces=10000\n"
	for required, want := range map[string]string{"": "skip: " + forbidden, "require": "fatal: " + forbidden} {
		cmd := program(t, "forbid")
		cmd.Env = append(cmd.Env, "CONNSLEUTH_LAB="+required)
		cmd.SysProcAttr.UidMappings[0].ContainerID = 0 // who may set its limits
		out, err := cmd.Output()
		skipForbidden(t, err, string(out))
		if string(out) != want || err != nil {
			t.Errorf("CONNSLEUTH_LAB=%s: got %v\n%s\nwant %s", required, err, out, want)
		}
	}
}

// TestSkip runs itself once more where it is told to skip.
func TestSkip(t *testing.T) {
	if os.Getenv("CONNSLEUTH_LAB") == "skip" {
		lab.New(t)
		t.Fatal("not skipped")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSkip$", "-test.v")
	cmd.Env = append(os.Environ(), "CONNSLEUTH_LAB=skip")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- SKIP: TestSkip") || !strings.Contains(string(out), "unset CONNSLEUTH_LAB") {
		t.Errorf("%v\n%s", err, out)
	}
}

// start runs the helper until it waits and returns the id of the process that
// was started inside.
func start(t *testing.T) (cmd *exec.Cmd, inside int) {
	t.Helper()
	cmd = program(t, "wait")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		skipForbidden(t, err, "")
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	inside, err = strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		skipForbidden(t, cmd.Wait(), line)
		t.Fatalf("it says %q", line)
	}
	return cmd, inside
}

func TestEnterForwardsSignals(t *testing.T) {
	cmd, inside := start(t)
	if inside == cmd.Process.Pid {
		t.Error("it was not started again")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != statusTerminated {
		t.Errorf("got %v, want status %d", err, statusTerminated)
	}
}

// TestEnterLeavesNothing kills the outer process: the inner must go too.
func TestEnterLeavesNothing(t *testing.T) {
	cmd, inside := start(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	eventually(t, "the end of the inner process", func() bool { return ended(inside) })
}

// ended reports whether a process is gone, or dead and not yet waited for.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// TestAsNobody runs the tests of this package once more as a user who may
// nothing.
func TestAsNobody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user takes root")
	}
	if b, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(b))) != 3 || strings.Fields(string(b))[2] == "1" {
		t.Skip("these tests run rootless already")
	}
	dir, err := os.MkdirTemp("", "lab") // t.TempDir is for the owner only
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "lab.test")
	if err := errors.Join(os.Chmod(dir, 0o755), copySelf(copied)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied, "-test.v", "-test.timeout=2m")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("nobody may not run programs in %s: %v", dir, err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestTwoHosts") {
		t.Skipf("the lab is not available to nobody:\n%s", out)
	}
}

func copySelf(to string) error {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
