package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestScript(t *testing.T) {
	img := &initramfs{
		mods: moduleSet{load: []string{"nf_conntrack", "veth"}},
		jobs: []job{
			{name: "01-conntrack.test", dir: "conntrack", args: testArgs, test: true},
			{name: "02-incident", dir: "examples/incident", args: []string{"-scenario", "it's $all"}},
		},
		mark: "@@mark",
	}
	script := img.script()
	for _, want := range []string{
		"CONNSLEUTH_LAB=require CONNSLEUTH_EMULATED=1",
		"load 'nf_conntrack'\nload 'veth'\n",
		"run 01-conntrack.test '/src/conntrack' '-test.v' '-test.short' '-test.run' '^(Test|Example)' '-test.parallel' '4' '-test.timeout' '12h'\n",
		`run 02-incident '/src/examples/incident' '-scenario' 'it'\''s $all'` + "\n",
		`echo "@@mark end $name $?"`,
		"echo '@@mark done'\npoweroff -f\n",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("no %q in\n%s", want, script)
		}
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to check the syntax with")
	}
	cmd := exec.Command(sh, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v\n%s", err, out)
	}
}

func TestCopyTestdata(t *testing.T) {
	root, to := t.TempDir(), t.TempDir()
	for _, f := range []string{
		"go.mod", "a/a.go", "a/testdata/x/1.txt", "b/c/testdata/2.txt", "testdata/3.txt",
		".git/testdata/no", "_old/testdata/no", "nested/go.mod", "nested/testdata/no",
	} {
		writeFile(t, filepath.Join(root, filepath.FromSlash(f)), f)
	}
	if err := copyTestdata(to, root); err != nil {
		t.Fatal(err)
	}
	names, err := treeNames(to)
	if err != nil {
		t.Fatal(err)
	}
	got := filepath.ToSlash(strings.ReplaceAll(string(names), "\x00", " "))
	const want = ". a a/testdata a/testdata/x a/testdata/x/1.txt b b/c b/c/testdata b/c/testdata/2.txt testdata testdata/3.txt "
	if got != want {
		t.Errorf("copied %q, want %q", got, want)
	}
	text, err := os.ReadFile(filepath.Join(to, "testdata", "3.txt"))
	if err != nil || string(text) != "testdata/3.txt" {
		t.Errorf("testdata/3.txt: %q, %v", text, err)
	}
}
