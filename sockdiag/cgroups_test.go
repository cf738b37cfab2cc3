package sockdiag

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseCgroup(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	const uid = "11111111-2222-3333-4444-555555555555"
	under := strings.ReplaceAll(uid, "-", "_")
	for path, want := range map[string]Cgroup{
		"/":                           {},
		"/init.scope":                 {Unit: "init.scope"},
		"/system.slice":               {},
		"/system.slice/nginx.service": {Unit: "nginx.service"},
		"/system.slice/system-getty.slice/getty@tty1.service": {Unit: "getty@tty1.service"},
		"/system.slice/a.service/b.service":                   {Unit: "a.service"},
		"/system.slice/_cpu.service":                          {Unit: "cpu.service"},
		"/user.slice/user-1000.slice/session-3.scope":         {Unit: "session-3.scope"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service": {
			Unit: "user@1000.service", UserUnit: "app-x.service"},
		"/.service":     {},
		"/docker/" + id: {Runtime: "docker", Container: id},
		"/docker/" + id + "/system.slice/a.service": {Runtime: "docker", Container: id},
		"/system.slice/docker-" + id + ".scope":     {Unit: "docker-" + id + ".scope", Runtime: "docker", Container: id},
		"/machine.slice/libpod-" + id + ".scope/container": {
			Unit: "libpod-" + id + ".scope", Runtime: "podman", Container: id},
		"/machine.slice/libpod-conmon-" + id + ".scope": {Unit: "libpod-conmon-" + id + ".scope"},
		"/libpod_parent/libpod-" + id:                   {Runtime: "podman", Container: id},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope": {
			Unit: "user@1000.service", UserUnit: "libpod-" + id + ".scope", Runtime: "podman", Container: id},
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id + ".scope": {
			Unit: "cri-containerd-" + id + ".scope", Runtime: "containerd", Container: id, Pod: uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + id + ".scope": {
			Unit: "crio-" + id + ".scope", Runtime: "cri-o", Container: id, Pod: uid},
		"/kubepods/besteffort/pod" + uid + "/" + id: {Container: id, Pod: uid},
		"/lxc.payload.web/system.slice/a.service":   {Runtime: "lxc", Container: "web"},
		"/system.slice/x-" + id[1:] + ".scope":      {Unit: "x-" + id[1:] + ".scope"},
		"/podcast":                                  {},
		"":                                          {},
	} {
		want.Path = path
		if got := ParseCgroup(path); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", path, got, want)
		}
	}
}

// TestReadCgroups finds the v2 hierarchy where it is usual, beside v1 too.
func TestReadCgroups(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		usual := t.TempDir()
		root := usual
		if hybrid {
			root = filepath.Join(usual, "unified")
		}
		if got, err := cgroupRoot("", usual); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("nothing there: %q, %v", got, err)
		}
		err := errors.Join(
			os.MkdirAll(filepath.Join(root, "system.slice", "a.service"), 0o755),
			os.WriteFile(filepath.Join(root, "cgroup.controllers"), nil, 0o644),
		)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cgroupRoot("", usual); got != root || err != nil {
			t.Errorf("%q, %v; want %q", got, err, root)
		}
		c, err := ReadCgroups(root)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, "system.slice", "a.service"))
		if err != nil {
			t.Fatal(err)
		}
		inode, ok := inodeOf(info)
		if !ok {
			t.Skip("inode numbers are Linux's")
		}
		got, ok := c.Of(Socket{CgroupID: inode, Fields: FieldCgroup})
		if !ok || got.Unit != "a.service" || got.Path != "/system.slice/a.service" || c.Len() != 3 {
			t.Errorf("%+v, %t, %d", got, ok, c.Len())
		}
		if got, ok := c.Of(Socket{CgroupID: inode}); ok || got != (Cgroup{}) {
			t.Errorf("absent: %+v", got)
		}
		if got, ok := c.Lookup(inode + 1<<40); ok || got != (Cgroup{}) {
			t.Errorf("unknown: %+v", got)
		}
	}
	for name, want := range map[string]error{".": fs.ErrPermission, "a": fs.SkipDir} { // unreadable: that of root is an error
		if err := vanished(name, fs.ErrPermission); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := ReadCgroups(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such root: %v", err)
	}
}
