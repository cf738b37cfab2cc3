package main

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestUsersOf(t *testing.T) {
	const lab = "example.com/m/internal/lab"
	// As "go list -test" lists them: the package, its test binary, and the
	// package compiled for the test.
	got := usersOf(lab, []listed{
		{ImportPath: lab, Name: "lab"},
		{ImportPath: lab + ".test", Name: "main", Dir: "/m/internal/lab", Deps: []string{"os", lab + " [" + lab + ".test]"}},
		{ImportPath: lab + " [" + lab + ".test]", Name: "lab"},
		{ImportPath: "example.com/m/a", Name: "a"},
		{ImportPath: "example.com/m/a.test", Name: "main", Dir: "/m/a", Deps: []string{lab, "os"}},
		{ImportPath: "example.com/m/b.test", Name: "main", Dir: "/m/b", Deps: []string{lab + "oratory", "os"}},
		{ImportPath: "example.com/m/cmd", Name: "main", Dir: "/m/cmd", Deps: []string{lab}},
	})
	var paths []string
	for _, p := range got {
		paths = append(paths, p.ImportPath+" in "+p.Dir)
	}
	if want := []string{lab + " in /m/internal/lab", "example.com/m/a in /m/a"}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
}

func TestJob(t *testing.T) {
	m := module{"example.com/m", filepath.FromSlash("/m")}
	for _, tt := range []struct{ path, dir, label, name string }{
		{"example.com/m", "/m", ".", "01-m.test"},
		{"example.com/m/detect/nflog", "/m/detect/nflog", "./detect/nflog", "01-nflog.test"},
	} {
		j, err := m.job(listed{ImportPath: tt.path, Dir: filepath.FromSlash(tt.dir)})
		j.test = true
		if err != nil || j.label != tt.label || jobName(0, j) != tt.name {
			t.Errorf("%s: label %q, name %q, %v, want %q, %q", tt.path, j.label, jobName(0, j), err, tt.label, tt.name)
		}
	}
	if _, err := m.job(listed{ImportPath: "example.com/n", Dir: filepath.FromSlash("/n")}); err == nil {
		t.Error("no error for a package of another module")
	}
}
