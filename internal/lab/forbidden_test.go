package lab_test

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// procfs makes a /proc with namespaces and these sysctls.
func procfs(sysctls map[string]string) fstest.MapFS {
	proc := fstest.MapFS{"self/ns/user": {}, "self/ns/net": {}, "sys/user/max_net_namespaces": {Data: []byte("7000\n")}}
	for name, value := range sysctls {
		proc["sys/"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	return proc
}

func TestDiagnose(t *testing.T) {
	tests := []struct {
		name    string
		sysctls map[string]string
		err     error
		what    string
		how     string
	}{
		{"none allowed", map[string]string{"user/max_user_namespaces": "0"}, syscall.ENOSPC, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=10000"},
		{"none allowed, older kernel", map[string]string{"user/max_user_namespaces": "0"}, syscall.EPERM, "user.max_user_namespaces is 0", "sysctl -w"},
		{"no net allowed", map[string]string{"user/max_user_namespaces": "9", "user/max_net_namespaces": "0"}, syscall.ENOSPC, "user.max_net_namespaces is 0", "sysctl -w user.max_net_namespaces=10000"},
		{"used up", map[string]string{"user/max_user_namespaces": "9"}, syscall.ENOSPC, "user.max_user_namespaces is 9, user.max_net_namespaces is 7000", "lsns"},
		{"nested too deep", nil, syscall.EUSERS, "too many nested", "raise"},
		{"Debian", map[string]string{"kernel/unprivileged_userns_clone": "0"}, syscall.EPERM, "kernel.unprivileged_userns_clone is 0", "=1"},
		{"Ubuntu", map[string]string{"kernel/unprivileged_userns_clone": "1", "kernel/apparmor_restrict_unprivileged_userns": "1"}, syscall.EACCES, "kernel.apparmor_restrict_unprivileged_userns is 1", "AppArmor profile"},
		{"container", map[string]string{"kernel/unprivileged_userns_clone": "1", "kernel/apparmor_restrict_unprivileged_userns": "0"}, syscall.EPERM, "seccomp", "--cap-add"},
		{"read only", nil, syscall.EROFS, "/proc/sys is mounted read-only", "remount,rw"},
		{"other system", nil, errors.ErrUnsupported, "operating system", "Linux"},
		{"too old", nil, syscall.EINVAL, "does not know", "CONFIG_USER_NS=y"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := lab.Diagnose(procfs(test.sysctls), test.err)
			if !strings.Contains(got.What, test.what) || !strings.Contains(got.How, test.how) || !errors.Is(got, test.err) {
				t.Errorf("got %v\nwant %q and %q", got, test.what, test.how)
			}
			if first, _, _ := strings.Cut(got.Error(), "\n"); first != "lab: try: "+test.err.Error() {
				t.Errorf("the first line is %q", first)
			}
		})
	}
}

func TestDiagnoseMissing(t *testing.T) {
	for file, want := range map[string]string{"self/ns/user": "CONFIG_USER_NS", "self/ns/net": "CONFIG_NET_NS"} {
		proc := procfs(nil)
		delete(proc, file)
		if got := lab.Diagnose(proc, syscall.EINVAL); !strings.Contains(got.What, want) || !strings.Contains(got.How, want+"=y") {
			t.Errorf("without %s: %v", file, got)
		}
	}
	if got := lab.Diagnose(fstest.MapFS{}, fs.ErrPermission); !strings.Contains(got.What, "seccomp") {
		t.Errorf("without /proc: %v", got)
	}
}
