package detect

import (
	commandLine "flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// proof is where the commands of a fix are run and the finding is seen to be
// gone, or where a look-up is run that begins with "see".
type proof struct {
	test string // the name of a lab test
	on   fixPlace
	why  string // there is no test
}

// fixPlace is what a test needs to run a fix.
type fixPlace uint8

const (
	anywhere fixPlace = iota
	asRoot            // of the machine: to raise a hard limit
	emulated          // the setting is the machine's, and no developer's to change
	nowhere
)

// Each fix that is printed has a proof, and each proof a fix.
func TestFixesProved(t *testing.T) {
	texts, settings, remedies := printed(t)
	for text := range texts {
		if _, ok := proofs[text]; !ok && text != "`sysctl -w %s=%v`" { // of set
			t.Errorf("no test runs\n%q", text)
		}
	}
	for text := range proofs {
		if !texts[text] {
			t.Errorf("no detector prints\n%q", text)
		}
	}
	settingsProved(t, settings, fixSettings(), settingProofs)
	settingsProved(t, remedies, fixRemedies(), remedyProofs)
}

// settingsProved checks the proofs of the settings that stand for something in
// the source.
func settingsProved(t *testing.T, source map[string]bool, mean map[string][]string, proofs map[string]proof) {
	t.Helper()
	known := make(map[string]bool)
	for arg := range source {
		names, ok := mean[arg]
		if !ok {
			t.Errorf("which settings are those of %s?", arg)
		}
		for _, name := range names {
			known[name] = true
		}
	}
	for name := range known {
		if proofs[name] == (proof{}) {
			t.Errorf("no test sets %s", name)
		}
	}
	for name := range proofs {
		if !known[name] {
			t.Errorf("no detector advises %s", name)
		}
	}
}

// printed are the texts with backquotes that the source has, the first arguments
// of set, and the last of remedy, with its file.
func printed(t *testing.T) (texts, settings, remedies map[string]bool) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	noError(t, err)
	if len(names) == 0 {
		t.Skip("the test runs without its source")
	}
	texts, settings, remedies = make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		noError(t, err)
		file, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
		noError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				switch f := fixSource(src, call.Fun); {
				case f == "set":
					settings[fixSource(src, call.Args[0])] = true
				case strings.HasSuffix(f, ".remedy"):
					remedies[name+": "+fixSource(src, call.Args[2])] = true
				}
			}
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, literal := flat(src, e)
			if literal && strings.Contains(text, "`") {
				texts[text] = true
			}
			_, sum := e.(*ast.BinaryExpr)
			return !literal || sum && !strings.Contains(text, "`")
		})
	}
	return texts, settings, remedies
}

func fixSource(src []byte, n ast.Node) string { return string(src[n.Pos()-1 : n.End()-1]) }

// flat is a literal, or a sum with one.
func flat(src []byte, e ast.Expr) (text string, literal bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			a, first := flat(src, e.X)
			b, second := flat(src, e.Y)
			return a + b, first || second
		}
	}
	return "{" + fixSource(src, e) + "}", false
}

// ran are the proofs that were given, by what for, and their tests.
var ran struct {
	sync.Mutex
	of map[string]map[string]bool
}

var (
	putIn    = regexp.MustCompile(`\\{.+?\\}|%(\\\[\d\\\])?[a-z]`) // in what is quoted
	setsName = regexp.MustCompile("`sysctl -w ([a-z0-9_.-]+)=")
)

// Proved notes that a test has run the commands of a fix, after which the
// finding is gone.
func Proved(t *testing.T, fix string) { provedOf(t, "", fix) }

// provedOf notes it of a remedy of a detector.
func provedOf(t *testing.T, detector, fix string) {
	ran.Lock()
	defer ran.Unlock()
	test, _, _ := strings.Cut(t.Name(), "/")
	note := func(what string) {
		if ran.of == nil {
			ran.of = make(map[string]map[string]bool)
		}
		if ran.of[what] == nil {
			ran.of[what] = make(map[string]bool)
		}
		ran.of[what][test] = true
	}
	for _, name := range setsName.FindAllStringSubmatch(fix, -1) {
		note(name[1])
		note(detector + ": " + name[1])
	}
	for text := range proofs {
		if pattern := putIn.ReplaceAllString(regexp.QuoteMeta(text), ".*"); regexp.MustCompile(pattern).MatchString(fix) {
			note(text)
		}
	}
}

// Installed reports whether a test can run commands. One that cannot has shown
// already what it has to show of the finding.
func Installed(t testing.TB, tools ...string) bool {
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("found, but not mended: %v", err)
			return false
		}
	}
	return true
}

// fullRun runs all tests, and then sees whether all proofs were given.
type fullRun struct{ *testing.M }

// Run implements what lab.Main wants.
func (m fullRun) Run() int {
	status := m.M.Run()
	if status != 0 || !wholeRun() {
		return status
	}
	missing := unproved()
	for _, what := range missing {
		fmt.Printf("not run: %s\n", what)
	}
	return min(len(missing), 1)
}

// wholeRun reports whether all lab tests were to run, and could.
func wholeRun() bool {
	const every = "^(Test|Example)" // as internal/ci/kernels has it
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if v := commandLine.Lookup(name).Value.String(); v != "" && v != every {
			return false
		}
	}
	if os.Getenv("CONNSLEUTH_LAB") != "require" {
		return false
	}
	for _, tool := range []string{"nft", "ss", "conntrack", "prlimit", "ip", "sysctl", "iptables", "ip6tables", "traceroute", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil && !lab.Emulated() {
			return false
		}
	}
	return true
}

// unproved are what no test has run that should have.
func unproved() (missing []string) {
	for _, table := range []map[string]proof{proofs, settingProofs, remedyProofs} {
		for _, what := range slices.Sorted(maps.Keys(table)) {
			p := table[what]
			wanted := p.on == anywhere && !lab.Emulated() || p.on == asRoot && raisesLimits() || p.on == emulated && lab.Emulated()
			if wanted && !ran.of[what][p.test] {
				missing = append(missing, fmt.Sprintf("%s: %s", p.test, what))
			}
		}
	}
	return missing
}

// raisesLimits reports whether the process may raise hard limits: root of the
// machine with CAP_SYS_RESOURCE.
func raisesLimits() bool {
	var was unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was)
	more := unix.Rlimit{Cur: was.Cur, Max: was.Max + 1}
	if err != nil || unix.Setrlimit(unix.RLIMIT_NOFILE, &more) != nil {
		return false
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &was) == nil
}
