package ci

import (
	"bytes"
	"go/ast"
	"go/build/constraint"
	"go/doc"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// lacks lists what a public package should have and has not: a comment in a
// doc.go that every operating system sees, and an example whose output is
// checked.
func lacks(p pkg) []string {
	var missing []string
	var tests []*ast.File
	documented, exports := false, false
	for _, f := range p.files {
		switch {
		case f.test:
			tests = append(tests, f.ast)
		case path.Base(f.name) == "doc.go" && !constrained(f.ast):
			documented = f.ast.Doc.Text() != ""
			fallthrough
		default:
			exports = exports || slices.ContainsFunc(f.ast.Decls, exported)
		}
	}
	if !documented {
		missing = append(missing, "doc.go with a package comment and no build constraint")
	}
	shown := slices.ContainsFunc(doc.Examples(tests...), func(e *doc.Example) bool { return e.Output != "" })
	if exports && !shown {
		missing = append(missing, "Example with an // Output comment")
	}
	return missing
}

func exported(d ast.Decl) bool {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return d.Name.IsExported()
	case *ast.GenDecl:
		return slices.ContainsFunc(d.Specs, func(s ast.Spec) bool {
			switch s := s.(type) {
			case *ast.TypeSpec:
				return s.Name.IsExported()
			case *ast.ValueSpec:
				return slices.ContainsFunc(s.Names, (*ast.Ident).IsExported)
			}
			return false
		})
	}
	return false
}

func constrained(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if c.Pos() < f.Package && constraint.IsGoBuild(c.Text) {
				return true
			}
		}
	}
	return false
}

func isPublic(p pkg) bool {
	return !strings.HasPrefix(p.dir+"/", "internal/") && !isExample(p.dir)
}

func TestPublicPackages(t *testing.T) {
	_, pkgs := parse(t, os.DirFS(checkout(t)))
	for _, p := range pkgs {
		if !isPublic(p) {
			continue
		}
		for _, what := range lacks(p) {
			t.Errorf("package %s has no %s", p.dir, what)
		}
	}
}

func TestLacks(t *testing.T) {
	const noDoc, noExample = "doc.go with a package comment and no build constraint", "Example with an // Output comment"
	for _, tt := range []struct {
		doc, code, test string
		want            []string
	}{
		{"// Package p is.\npackage p", "package p; type T int", "package p\nfunc Example() {\n\t// Output: 1\n}", nil},
		{"// Package p is.\npackage p", "package p; func f() {}", "package p", nil},
		{"package p", "package p; const C = 1", "package p\nfunc Example() {\n\t// Unchecked\n}", []string{noDoc, noExample}},
		{"//go:build linux\n\n// Package p is.\npackage p", "package p; func F() {}", "package p", []string{noDoc, noExample}},
	} {
		_, pkgs := parse(t, fstest.MapFS{
			"p/doc.go":    &fstest.MapFile{Data: []byte(tt.doc)},
			"p/p.go":      &fstest.MapFile{Data: []byte(tt.code)},
			"p/p_test.go": &fstest.MapFile{Data: []byte(tt.test)},
		})
		if got := lacks(pkgs[0]); !slices.Equal(got, tt.want) {
			t.Errorf("%q, %q, %q: %q, want %q", tt.doc, tt.code, tt.test, got, tt.want)
		}
	}
}

// longest is how many lines a Go file may have, tests included.
const longest = 400

func TestFileSizes(t *testing.T) {
	module := os.DirFS(checkout(t))
	walk(t, module, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		text, err := fs.ReadFile(module, name)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > longest {
			t.Errorf("%s has %d lines, more than %d: split it by topic", name, n, longest)
		}
	})
}

// unwanted is what no file of the repository may contain. No pattern matches
// itself.
var unwanted = []struct {
	what    string
	pattern *regexp.Regexp
}{
	{"a path of somebody's machine", regexp.MustCompile(`(?m)(^|[^\w./:*-])/(home|root|Users|work|workspace|builds|farm)/`)},
	{"work left for later", regexp.MustCompile(`\b(TO[D]O|FIX[M]E)\b`)},
}

// findUnwanted names what is unwanted in a text, and the lines.
func findUnwanted(text []byte) map[string][]int {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil // a binary, left by a tool
	}
	found := map[string][]int{}
	for _, u := range unwanted {
		for _, at := range u.pattern.FindAllIndex(text, -1) {
			found[u.what] = append(found[u.what], 1+bytes.Count(text[:at[1]], []byte("\n")))
		}
	}
	return found
}

func TestNothingUnwanted(t *testing.T) {
	module := os.DirFS(checkout(t))
	walk(t, module, func(name string) {
		text, err := fs.ReadFile(module, name)
		if err != nil {
			t.Fatal(err)
		}
		for what, lines := range findUnwanted(text) {
			t.Errorf("%s: %s on lines %v", name, what, lines)
		}
	})
}

func TestFindUnwanted(t *testing.T) {
	const machine, later = "a path of somebody's machine", "work left for later"
	for text, want := range map[string]string{
		"cd /" + "home/me/x":              machine,
		"x\n\"/" + "work/x\"":             machine,
		"// TO" + "DO: all":               later,
		"FIX" + "ME":                      later,
		"TO" + "DOS":                      "",
		"https://example.com/" + "work/x": "",
		"/usr/local/go/bin":               "",
		"\x00 /" + "home/me":              "",
	} {
		found := findUnwanted([]byte(text))
		if _, ok := found[want]; ok != (want != "") || len(found) > 1 {
			t.Errorf("%q: %v, want %q", text, found, want)
		}
	}
}
