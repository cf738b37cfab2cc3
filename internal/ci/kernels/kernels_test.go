package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The names are those that apt-cache search printed on Debian 12 in November 2026, in
// its order, with some of other kinds.
var debianNames = []string{
	"linux-image-6.1.0-47-cloud-amd64-dbg",
	"linux-image-6.1.0-56-cloud-amd64-unsigned",
	"linux-image-6.1.0-50-cloud-amd64",
	"linux-image-6.1.0-9-cloud-amd64",
	"linux-image-6.1.0-56-cloud-amd64",
	"linux-image-6.1.0-56-rt-amd64",
	"linux-image-6.1.0-57-amd64",
	"linux-image-cloud-amd64",
	"linux-image-6.12-cloud-amd64",
	"linux-image-6.12.100+deb12-cloud-amd64",
	"linux-image-6.12.117+deb12-cloud-amd64",
	"linux-image-6.12.118+deb12-cloud-amd64-unsigned",
	"linux-image-6.12.99+deb12-cloud-amd64",
	"linux-image-6.13.1-cloud-amd64-unsigned",
	"linux-image-6.13.12-cloud-amd64-unsigned",
}

func TestPickPackage(t *testing.T) {
	for _, tt := range []struct{ series, want string }{
		{"6.1", "linux-image-6.1.0-56-cloud-amd64"},
		{"6.12", "linux-image-6.12.117+deb12-cloud-amd64"}, // signed, though older
		{"6.13", "linux-image-6.13.12-cloud-amd64-unsigned"},
		{"6.2", ""},
		{"1.0", ""},
	} {
		got, ok := pickPackage(debianNames, tt.series)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("pickPackage(%s) = %q, %v, want %q", tt.series, got, ok, tt.want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"6.1", "6.12", -1},
		{"6.12", "6.12", 0},
		{"6.1.0-10", "6.1.0-9", 1},
		{"6.12.9+deb12", "6.12.10+deb12", -1},
		{"6.1 host", "6.1", 0},
	} {
		if got := compareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("compareVersions(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestKernelIn(t *testing.T) {
	for _, modules := range []string{"lib/modules/6.1.0-56-cloud-amd64", "usr/lib/modules/6.1.0-56-cloud-amd64"} {
		root := t.TempDir()
		if _, err := kernelIn(root); err == nil {
			t.Error("a kernel in an empty directory")
		}
		image := filepath.Join(root, "boot", "vmlinuz-6.1.0-56-cloud-amd64")
		writeFile(t, image, "")
		if _, err := kernelIn(root); err == nil {
			t.Error("a kernel without modules")
		}
		writeFile(t, filepath.Join(root, filepath.FromSlash(modules), "modules.order"), "")
		k, err := kernelIn(root)
		if err != nil {
			t.Fatal(err)
		}
		if k.image != image || k.release != "6.1.0-56-cloud-amd64" || k.modules() != filepath.Join(root, filepath.FromSlash(modules)) {
			t.Errorf("kernelIn = %+v with modules in %s", k, k.modules())
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
