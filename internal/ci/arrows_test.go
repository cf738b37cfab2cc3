package ci

import (
	"encoding/json"
	"fmt"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Packages of other modules.
const (
	netlink = "github.com/mdlayher/netlink"
	nflog   = "github.com/florianl/go-nflog/v2"
	unix    = "golang.org/x/sys/unix"
	gocmp   = "github.com/google/go-cmp/cmp"
)

// arrows is what the code of each package may import besides the standard
// library, from which unsafe is taken out. All else is forbidden, so a new
// package needs a row. See mayImport for tests and examples.
var arrows = map[string][]string{
	".": {},

	"conntrack": {"internal/nfnl", "internal/record", unix},
	"sockdiag":  {"internal/nfnl", "internal/record", unix},

	"detect":          {"conntrack", "sockdiag"}, // their values: it opens no socket
	"detect/packet":   {},
	"detect/snapshot": {"conntrack", "detect", "sockdiag"},
	"detect/nflog":    {"detect/packet", "internal/nfnl", nflog, netlink, unix},
	"detect/reject":   {"conntrack", "detect", "detect/nflog", "detect/packet", "internal/netns", "internal/nft", "sockdiag", unix},

	"ban":          {}, // knows no detector
	"ban/bantest":  {"ban"},
	"ban/cut":      {"ban", "conntrack", "sockdiag"},
	"ban/fail2ban": {"ban"},
	"ban/ipset":    {"ban", "internal/nfnl", unix},
	"ban/nft":      {"ban", "internal/nfnl", "internal/nft", unix},

	"internal/bouncer":        {"ban", "ban/cut", "ban/fail2ban", "ban/ipset", "ban/nft", "conntrack", "sockdiag"},
	"internal/bouncer/replay": {"ban", "ban/fail2ban", "ban/ipset", "ban/nft", "internal/jailer", "internal/lab", "internal/nft", "internal/program"},

	"internal/ci":            {},
	"internal/ci/kernels":    {},
	"internal/fixture":       {},
	"internal/nfnl":          {"unsafe", netlink, unix},
	"internal/nfnl/nfnltest": {"internal/nfnl"},
	"internal/netns":         {unix},
	"internal/nft":           {"internal/nfnl", unix},
	"internal/record":        {},
	"internal/lab":           {"internal/nfnl", "internal/nft", unix},
	"internal/program":       {"internal/lab"},
	"internal/jailer":        {"ban/fail2ban"},
	"internal/incidents":     append(public(), "internal/lab", "internal/nft", unix),
}

// examples is what every example may import.
var examples = append(public(), "internal/bouncer", "internal/incidents", "internal/lab")

func public() []string {
	return []string{
		"conntrack", "sockdiag", "detect", "detect/nflog", "detect/packet", "detect/reject", "detect/snapshot",
		"ban", "ban/cut", "ban/fail2ban", "ban/ipset", "ban/nft",
	}
}

// mayImport reports whether a file of the package in dir may import the package
// what. Tests are bound by the table where other modules are concerned, of
// which they have two more; inside this module they are free but for examples.
func mayImport(dir, what string, test bool) bool {
	own, isOwn := strings.CutPrefix(what, modulePath+"/")
	switch {
	case isStandard(what):
		return true
	case test && isOwn:
		return !isExample(own)
	case test && (what == gocmp || what == unix):
		return true
	}
	row := arrows[dir]
	if isExample(dir) {
		row = examples
	}
	if isOwn {
		what = own
	}
	return slices.Contains(row, what)
}

func isExample(dir string) bool { return strings.HasPrefix(dir, "examples/") }

// isStandard knows that only the standard library has paths without a domain.
func isStandard(what string) bool {
	first, _, _ := strings.Cut(what, "/")
	return !strings.Contains(first, ".") && what != "unsafe" && what != "C"
}

// violations lists the imports that arrows does not allow, and the packages
// that have no row.
func violations(fset *token.FileSet, pkgs []pkg) []string {
	var found []string
	for _, p := range pkgs {
		if _, ok := arrows[p.dir]; !ok && !isExample(p.dir) {
			found = append(found, fmt.Sprintf("package %s has no row in arrows", p.dir))
			continue
		}
		for _, i := range p.imports(fset) {
			if !mayImport(p.dir, i.path, i.test) {
				found = append(found, fmt.Sprintf("%s: %s may not import %s", i.at, p.dir, i.path))
			}
		}
	}
	return found
}

func TestArrows(t *testing.T) {
	fset, pkgs := parse(t, os.DirFS(checkout(t)))
	if len(pkgs) < 2 {
		t.Errorf("found %d packages", len(pkgs))
	}
	for _, v := range violations(fset, pkgs) {
		t.Error(v)
	}
}

// TestArrowsTable finds a row or an entry that is misspelt: it would forbid
// nothing, or allow what it does not say.
func TestArrowsTable(t *testing.T) {
	for dir, row := range arrows {
		for _, what := range row {
			_, known := arrows[what]
			if other := strings.Contains(what, ".") || what == "unsafe"; !known && !other {
				t.Errorf("%s: %s has no row", dir, what)
			}
		}
	}
	for _, what := range examples {
		if _, known := arrows[what]; !known {
			t.Errorf("examples: %s has no row", what)
		}
	}
}

func TestViolations(t *testing.T) {
	for _, tt := range []struct {
		file, imports string
		forbidden     []string
	}{
		{"conntrack/a.go", `"fmt"; "` + modulePath + `/internal/nfnl"`, nil},
		{"conntrack/a.go", `"` + modulePath + `/detect"`, []string{modulePath + "/detect"}},
		{"conntrack/a_windows.go", `"` + modulePath + `/ban"`, []string{modulePath + "/ban"}},
		{"conntrack/a.go", `"unsafe"; "C"`, []string{"unsafe", "C"}},
		{"conntrack/a_test.go", `"unsafe"`, []string{"unsafe"}},
		{"conntrack/a_test.go", `n "` + netlink + `"`, []string{netlink}},
		{"conntrack/a_test.go", `"` + modulePath + `/internal/lab"; "` + gocmp + `"`, nil},
		{"conntrack/a.go", `"` + modulePath + `/internal/lab"`, []string{modulePath + "/internal/lab"}},
		{"conntrack/a_test.go", `"` + modulePath + `/examples/incident"`, []string{modulePath + "/examples/incident"}},
		{"sockdiag/a.go", `_ "` + nflog + `"`, []string{nflog}},
		{"detect/a.go", `"` + modulePath + `/internal/nfnl"`, []string{modulePath + "/internal/nfnl"}},
		{"detect/a.go", `"` + modulePath + `/detect/packet"`, []string{modulePath + "/detect/packet"}},
		{"detect/packet/a.go", `"` + unix + `"`, []string{unix}},
		{"detect/packet/a.go", `"` + modulePath + `"`, []string{modulePath}},
		{"detect/nflog/a.go", `"` + nflog + `"; "` + netlink + `"`, nil},
		{"internal/nfnl/a.go", `"unsafe"; "` + netlink + `"`, nil},
		{"examples/one/main.go", `"` + modulePath + `/detect"; "` + modulePath + `/internal/incidents"`, nil},
		{"examples/one/main.go", `"` + modulePath + `/internal/nfnl"`, []string{modulePath + "/internal/nfnl"}},
		{"examples/one/main.go", `"` + modulePath + `/examples/two"`, []string{modulePath + "/examples/two"}},
	} {
		src := "package p\nimport (" + tt.imports + ")\n"
		fset, pkgs := parse(t, fstest.MapFS{tt.file: &fstest.MapFile{Data: []byte(src)}})
		var want []string
		for _, what := range tt.forbidden {
			want = append(want, fmt.Sprintf("%s:2: %s may not import %s", tt.file, path.Dir(tt.file), what))
		}
		if got := violations(fset, pkgs); !slices.Equal(got, want) {
			t.Errorf("%s importing %s: %q, want %q", tt.file, tt.imports, got, want)
		}
	}
}

func TestViolationsOfUnknown(t *testing.T) {
	fset, pkgs := parse(t, fstest.MapFS{
		"internal/newcomer/a.go": &fstest.MapFile{Data: []byte("package newcomer")},
		"nested/go.mod":          &fstest.MapFile{},
		"nested/a.go":            &fstest.MapFile{Data: []byte("package nested")},
		"ban/testdata/a.go":      &fstest.MapFile{Data: []byte("not Go")},
	})
	want := []string{"package internal/newcomer has no row in arrows"}
	if got := violations(fset, pkgs); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRequirements keeps the dependency graph of importers small: what needs
// more is a nested module.
func TestRequirements(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = checkout(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, r := range mod.Require {
		if !r.Indirect {
			direct[r.Path] = true
		}
	}
	delete(direct, "github.com/google/go-cmp") // for tests, if they like
	want := []string{nflog, netlink, "golang.org/x/sys"}
	if got := slices.Sorted(maps.Keys(direct)); !slices.Equal(got, want) {
		t.Errorf("go.mod requires %q directly, want %q", got, want)
	}
}
