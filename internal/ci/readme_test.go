package ci

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// packageOf is the import path of a package, by its name.
var packageOf = func() map[string]string {
	paths := map[string]string{"netip": "net/netip"}
	for _, p := range public() {
		paths[path.Base(p)] = modulePath + "/" + p
	}
	return paths
}()

// complete makes declarations a file, with the imports that they need.
func complete(declarations string) (string, error) {
	const head = "package readme\n"
	tree, err := parser.ParseFile(token.NewFileSet(), "README.md", head+declarations, 0)
	if err != nil {
		return "", err
	}
	imports := map[string]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(tree.Unresolved, x) {
				imports[x.Name] = true
			}
		}
		return true
	})
	var b strings.Builder
	b.WriteString(head)
	for _, name := range slices.Sorted(maps.Keys(imports)) {
		p, ok := packageOf[name]
		if !ok {
			p = name
		}
		fmt.Fprintf(&b, "import %q\n", p)
	}
	return b.String() + declarations, nil
}

// TestReadmeCompiles has the go command check the Go of README.md, as one
// package that stands inside this module.
func TestReadmeCompiles(t *testing.T) {
	module := checkout(t)
	text, err := os.ReadFile(filepath.Join(module, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	vet := []string{"vet"}
	for i, block := range goBlock.FindAllStringSubmatch(string(text), -1) {
		src, err := complete(block[1])
		if err != nil {
			t.Fatalf("block %d: %v", i+1, err)
		}
		name := filepath.Join(scratch, fmt.Sprintf("block%d.go", i+1))
		if err := os.WriteFile(name, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		vet = append(vet, name)
	}
	if len(vet) < 4 {
		t.Fatalf("found %d blocks of Go", len(vet)-1)
	}
	cmd := exec.CommandContext(t.Context(), "go", vet...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
