package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestMain is the program itself in a process that asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("CONNSLEUTH_DOCTOR") == "main" {
		main()
		os.Exit(0)
	}
	lab.Main(m)
}

// doctor runs the program, on a host if there is one, and returns its exit
// status and what it wrote.
func doctor(t *testing.T, h *lab.Host, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"-over", "1ms"}, args...)...)
	return finish(t, h, cmd)
}

func finish(t *testing.T, h *lab.Host, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	cmd.Env = append(os.Environ(), "CONNSLEUTH_DOCTOR=main")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var err error
	if h == nil {
		err = cmd.Run()
	} else {
		err = h.Do(cmd.Run)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), errs.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, out.String(), errs.String()
}

// Saved text gives the findings of the incident, on any system.
func TestFrom(t *testing.T) {
	const dir = "../../detect/snapshot/testdata/ghost"
	status, out, errs := doctor(t, nil, "-from", dir)
	if status != 1 || !strings.HasPrefix(out, "CRITICAL: ") || !strings.Contains(out, "`conntrack -D -f ipv4 -p tcp -s 10.1.32.70") ||
		!strings.Contains(out, "| tcp 6 431965") && !strings.Contains(out, "431965 ESTABLISHED") || !strings.Contains(errs, "not read: notes.txt") {
		t.Errorf("%d\n%s%s", status, out, errs)
	}
	for _, tt := range []struct {
		args   []string
		status int
		stdout string
	}{
		{[]string{"-from", dir, "-only", "ghosts", "-fail-on", "critical"}, 1, "ghost entry"},
		{[]string{"-from", dir, "-only", "LostFlows"}, 0, "nothing found"},
		{[]string{"-list"}, 0, "Audit"},
		{[]string{"-h"}, 0, ""},
		{[]string{"-from", dir, "-only", "Nobody"}, 2, ""},
		{[]string{"-from", dir + "/none"}, 2, ""},
		{[]string{"-from", dir, "-record", dir}, 2, ""},
		{[]string{"-fail-on", "always"}, 2, ""},
	} {
		status, out, errs := doctor(t, nil, tt.args...)
		if status != tt.status || !strings.Contains(out, tt.stdout) || tt.status == 2 && (out != "" || errs == "") {
			t.Errorf("%q: %d, %q, %q", tt.args, status, out, errs)
		}
	}
}

// What people saved in the incidents gives what they found by hand.
func TestIncidents(t *testing.T) {
	wants, err := filepath.Glob("../../detect/snapshot/testdata/*.want")
	if err != nil || len(wants) != 8 {
		t.Fatal(wants, err)
	}
	for _, want := range wants {
		text, err := os.ReadFile(want)
		if err != nil {
			t.Fatal(err)
		}
		status, out, errs := doctor(t, nil, "-json", "-from", strings.TrimSuffix(want, ".want"))
		var got strings.Builder
		for line := range strings.Lines(out) {
			var f struct{ Severity, Detector, Subject string }
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatal(err)
			}
			if f.Severity != "info" {
				fmt.Fprintf(&got, "%s %s: %s\n", f.Severity, f.Detector, f.Subject)
			}
		}
		if status != 1 || got.String() != string(text) {
			t.Errorf("%s: %d, got\n%s%s", want, status, &got, errs)
		}
	}
}

func TestJSON(t *testing.T) {
	status, out, _ := doctor(t, nil, "-from", "../../detect/snapshot/testdata/ghost", "-json", "-only", "Ghosts")
	var f struct {
		Detector, Severity, Subject, Cause string
		Count, Limit                       *uint64
		Fix                                []string
		Evidence                           struct{ Flows []map[string]any }
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || status != 1 || f.Detector != "Ghosts" || f.Severity != "critical" ||
		f.Subject != "10.1.32.70:9102 > 10.1.41.192:51522" || f.Cause == "" || f.Count == nil || f.Limit == nil || len(f.Fix) != 3 || len(f.Evidence.Flows) != 1 {
		t.Errorf("%d, %v\n%s", status, err, out)
	}
}

// On a host, the exit status tells what was set wrong, and that it is right
// again. What was recorded gives the same findings.
func TestHost(t *testing.T) {
	_, h := lab.Two(t)
	const established = "net.netfilter.nf_conntrack_tcp_timeout_established"
	if status, out, errs := doctor(t, h, "-only", "Audit"); status != 0 {
		t.Errorf("with defaults: %d\n%s%s", status, out, errs)
	}
	if err := h.SetSysctl(established, "300"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "incident")
	status, out, errs := doctor(t, h, "-only", "Audit", "-record", dir)
	if status != 1 || !strings.HasPrefix(out, "WARNING: "+established) {
		t.Errorf("with %s = 300: %d\n%s%s", established, status, out, errs)
	}
	if again, replayed, _ := doctor(t, nil, "-only", "Audit", "-from", dir); again != status || replayed != out {
		t.Errorf("from the record: %d\n%s\nwant %d\n%s", again, replayed, status, out)
	}
	if status, _, errs := doctor(t, h, "-only", "Audit", "-record", dir); status != 2 || !strings.Contains(errs, "exists") {
		t.Errorf("recorded twice: %d, %s", status, errs)
	}
	if err := h.SetSysctl(established, "14400"); err != nil { // what it told to do
		t.Fatal(err)
	}
	if status, out, _ := doctor(t, h, "-only", "Audit"); status != 0 || !strings.Contains(out, "info") {
		t.Errorf("remedied: %d\n%s", status, out)
	}
	if status, _, errs := doctor(t, h, "-only", "LostFlows"); status != 2 || !strings.Contains(errs, "no connection is tracked") {
		t.Errorf("nothing is tracked: %d, %s", status, errs)
	}
}

// A quiet host is well, and one whose application does not accept is not.
func TestQueue(t *testing.T) {
	h := lab.New(t).MustHost(t, "host")
	if status, out, errs := doctor(t, h); status != 0 {
		t.Errorf("a quiet host: %d\n%s%s", status, out, errs)
	}
	if err := h.SetSysctl("net.core.somaxconn", "1"); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	l, err := h.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for range 2 {
		c, err := h.Dial(t.Context(), "tcp", netip.AddrPort{}, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	var status int
	var out, errs string
	for end := time.Now().Add(20 * time.Second); status == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		status, out, errs = doctor(t, h, "-only", "AcceptQueue")
	}
	if status != 1 || !strings.Contains(out, ": listener 127.0.0.1:8080 (AcceptQueue, ") || !strings.Contains(out, "[2, limit 1]") {
		t.Errorf("%d\n%s%s", status, out, errs)
	}
}

// What counts between two looks is found.
func TestOver(t *testing.T) {
	h := lab.New(t).MustHost(t, "host")
	dir := filepath.Join(t.TempDir(), "incident")
	status, out, errs := doctor(t, h, "-over", "20ms", "-record", dir, "-fail-on", "critical")
	b, err := os.ReadFile(filepath.Join(dir, "host.json"))
	var host struct {
		Now     time.Time
		Earlier struct{ At time.Time }
	}
	if err != nil || json.Unmarshal(b, &host) != nil || status != 0 {
		t.Fatalf("%d, %v\n%s%s", status, err, out, errs)
	}
	if over := host.Now.Sub(host.Earlier.At); over < 20*time.Millisecond || over > time.Hour {
		t.Errorf("%v between the looks", over)
	}
}
