package ci

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/connsleuth/connsleuth"

// A pkg is a directory with Go files: of every operating system and build tag,
// its tests included.
type pkg struct {
	dir   string // below the module's: "detect/packet"
	files []file
}

type file struct {
	name string // below the module's directory
	test bool
	ast  *ast.File
}

// An imported is one import declaration.
type imported struct {
	path string
	at   string // "detect/packet/packet.go:9"
	test bool
}

func (p pkg) imports(fset *token.FileSet) []imported {
	var all []imported
	for _, f := range p.files {
		for _, spec := range f.ast.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				panic(err) // the parser lets no other than a string through
			}
			at := f.name + ":" + strconv.Itoa(fset.Position(spec.Pos()).Line)
			all = append(all, imported{name, at, f.test})
		}
	}
	return all
}

// checkout is the directory of the module: the tests of a package run in the
// package's own directory.
func checkout(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("the module is not where it should be: %v", err)
	}
	return dir
}

// walk calls visit for each file of the module that could be committed: not
// for those of nested modules, and not for what tools leave behind in
// directories whose names begin with a dot.
func walk(t *testing.T, module fs.FS, visit func(name string)) {
	t.Helper()
	err := fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular():
			if name != ".git" { // which is a file in a worktree
				visit(name)
			}
			return nil
		case !d.IsDir() || name == ".":
			return nil
		}
		_, err = fs.Stat(module, path.Join(name, "go.mod"))
		if nested := err == nil; nested || strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" && d.Name() != ".github" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// parse reads the Go files of the module, in the order of their names.
func parse(t *testing.T, module fs.FS) (*token.FileSet, []pkg) {
	t.Helper()
	fset := token.NewFileSet()
	byDir := map[string]*pkg{}
	var order []*pkg
	walk(t, module, func(name string) {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
			return
		}
		src, err := fs.ReadFile(module, name)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		dir := path.Dir(name)
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir}
			byDir[dir], order = p, append(order, p)
		}
		p.files = append(p.files, file{name, strings.HasSuffix(name, "_test.go"), tree})
	})
	pkgs := make([]pkg, len(order))
	for i, p := range order {
		pkgs[i] = *p
	}
	return fset, pkgs
}
