package detect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// etc is a directory that commands see as /etc.
type etc struct {
	*testing.T
	dir  string
	host *lab.Host
}

func (e etc) run(fix string) {
	e.Helper()
	for _, command := range commandsOf(fix) {
		script := `mount --bind "$1" /etc && ` + command
		if out, err := e.host.Exec(e.Context(), "unshare", "-m", "sh", "-c", script, "sh", e.dir); err != nil {
			e.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

func (e etc) read(name string) string {
	e.Helper()
	b, err := os.ReadFile(filepath.Join(e.dir, name))
	noError(e, err)
	return string(b)
}

// audit is what Audit finds of old names in the file.
func (e etc) audit(kernel string) []Finding {
	e.Helper()
	values, err := sockdiag.SysctlFS(strings.NewReader(e.read("sysctl.conf")))
	noError(e, err)
	return Find(Host{Now: now, Kernel: kernel, Old: OldSettings(values)}, Audit{})
}

// Files with settings of old kernels are mended by the commands.
func TestLabOldNames(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"unshare", "mount", "grep", "sed", "xargs", "sysctl"} {
		lab.Tool(t, tool)
	}
	e := etc{t, t.TempDir(), lab.New(t).MustHost(t, "host")}
	for _, dir := range []string{"sysctl.d", "modprobe.d"} {
		noError(t, os.Mkdir(filepath.Join(e.dir, dir), 0o700))
	}
	const file = "net.ipv4.netfilter.ip_conntrack_tcp_timeout_established=3000\n# kept\nnet.ipv4.tcp_tw_recycle=1\n"
	for kernel, n := range map[string]int{"6.12": 2, "4.4": 1} {
		noError(t, os.WriteFile(filepath.Join(e.dir, "sysctl.conf"), []byte(file), 0o600))
		found := e.audit(kernel)
		if len(found) != n {
			t.Fatalf("Linux %s: %v", kernel, found)
		}
		for _, f := range found {
			e.run(f.Fix[0])
		}
		if found := e.audit(kernel); len(found) != 0 {
			t.Errorf("Linux %s: after all was done: %v", kernel, found)
		}
		if got := e.read("sysctl.conf"); !strings.Contains(got, "net.netfilter.nf_conntrack_tcp_timeout_established=3000\n# kept\n") {
			t.Errorf("Linux %s: %s", kernel, got)
		}
		for _, f := range found {
			Proved(t, f.Fix[0])
		}
	}
	if set, err := e.host.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established"); set != "3000" || err != nil {
		t.Errorf("%s, %v", set, err)
	}
	h := sysctlHost(t, kernelDefaults, "net.netfilter.nf_conntrack_buckets = 8192\n")
	fix := findOne(t, h, "net.netfilter.nf_conntrack_buckets").Fix[1]
	e.run(fix)
	if got := e.read("modprobe.d/nf_conntrack.conf"); got != "options nf_conntrack hashsize=65536\n" { // of the next boot
		t.Errorf("%s: %q", fix, got)
	}
	Proved(t, fix)
}

// findOne is what Audit finds of a subject.
func findOne(t *testing.T, h Host, subject string) Finding {
	t.Helper()
	for _, f := range Find(h, Audit{}) {
		if f.Subject == subject {
			return f
		}
	}
	t.Fatalf("nothing of %s", subject)
	return Finding{}
}
