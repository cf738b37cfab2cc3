package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// A job is one program to run on every kernel.
type job struct {
	name  string   // unique, without blanks: its file name and its name in marker lines
	label string   // what the user calls it: "./conntrack", "./examples/incident -scenario all"
	pkg   string   // import path
	dir   string   // package directory below the module's, slash-separated: its working directory
	root  string   // the module's directory on this machine
	file  string   // the binary on this machine
	args  []string // its arguments
	test  bool     // a test binary, as opposed to a plain program
}

// A module is the main module of the working directory.
type module struct{ path, dir string }

// A listed is the part of a package that "go list -json" is asked for.
type listed struct {
	ImportPath, Name, Dir           string
	Deps, TestGoFiles, XTestGoFiles []string
}

const listedFields = "-json=ImportPath,Name,Dir,Deps,TestGoFiles,XTestGoFiles"

// buildEnv makes binaries that need no file of the machine they were built on.
var buildEnv = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1"}

// testArgs are the arguments of every test binary. The seeds of fuzz targets tell
// nothing of a kernel. The timeout is by the machine's own clock, which leaps: what
// bounds a run is -timeout.
var testArgs = []string{"-test.v", "-test.short", "-test.run", "^(Test|Example)", "-test.parallel", "4", "-test.timeout", "12h"}

// buildJobs builds the test binaries of the packages and the programs into dir.
func buildJobs(ctx context.Context, dir string, packages, programs []string) ([]job, error) {
	mod, err := findModule(ctx)
	if err != nil {
		return nil, err
	}
	jobs, err := mod.testJobs(ctx, packages, len(programs) > 0)
	if err != nil {
		return nil, err
	}
	for _, p := range programs {
		j, err := mod.programJob(ctx, p)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	for i := range jobs {
		jobs[i].root = mod.dir
		jobs[i].name = jobName(i, jobs[i])
		jobs[i].file = filepath.Join(dir, jobs[i].name)
		note("building %s", jobs[i].label)
		if err := jobs[i].build(ctx); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

func findModule(ctx context.Context) (module, error) {
	out, err := output(ctx, "", nil, "go", "list", "-m", "-f", "{{.Path}}\t{{.Dir}}")
	if err != nil {
		return module{}, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	path, dir, _ := strings.Cut(lines[0], "\t")
	if len(lines) != 1 || dir == "" {
		return module{}, errors.New("go list -m does not name exactly one module: run this inside the module, with GOWORK=off in a workspace")
	}
	return module{path, dir}, nil
}

// testJobs are the named packages, or those that use the lab.
func (m module) testJobs(ctx context.Context, packages []string, mayBeNone bool) ([]job, error) {
	var pkgs []listed
	var err error
	if len(packages) == 0 {
		pkgs, err = m.labPackages(ctx)
	} else {
		pkgs, err = testedPackages(ctx, packages)
	}
	if err != nil {
		return nil, err
	}
	if len(pkgs) == 0 && !mayBeNone {
		return nil, fmt.Errorf("no test of module %s uses %s: name the packages to run, or ./... for all", m.path, m.lab())
	}
	var jobs []job
	for _, p := range pkgs {
		j, err := m.job(p)
		if err != nil {
			return nil, err
		}
		j.test, j.args = true, testArgs
		jobs = append(jobs, j)
	}
	return jobs, nil
}

func (m module) lab() string { return m.path + "/internal/lab" }

// labPackages lists the packages whose test binaries link the lab.
func (m module) labPackages(ctx context.Context) ([]listed, error) {
	all, err := goList(ctx, m.dir, "-test", "./...")
	if err != nil {
		return nil, err
	}
	return usersOf(m.lab(), all), nil
}

// usersOf picks, from the output of "go list -test", the test binaries that
// depend on the package lab, and returns the packages they test.
func usersOf(lab string, all []listed) []listed {
	var users []listed
	for _, p := range all {
		path, isTest := strings.CutSuffix(p.ImportPath, ".test")
		if !isTest || p.Name != "main" || !slices.ContainsFunc(p.Deps, func(d string) bool {
			// A package compiled for a test is listed as "path [path.test]".
			d, _, _ = strings.Cut(d, " ")
			return d == lab
		}) {
			continue
		}
		users = append(users, listed{ImportPath: path, Dir: p.Dir})
	}
	return users
}

func testedPackages(ctx context.Context, patterns []string) ([]listed, error) {
	all, err := goList(ctx, "", patterns...)
	if err != nil {
		return nil, err
	}
	tested := slices.DeleteFunc(all, func(p listed) bool {
		return len(p.TestGoFiles)+len(p.XTestGoFiles) == 0
	})
	if len(tested) == 0 {
		return nil, fmt.Errorf("no test files in %s", strings.Join(patterns, " "))
	}
	return tested, nil
}

func (m module) programJob(ctx context.Context, command string) (job, error) {
	words := strings.Fields(command)
	pkgs, err := goList(ctx, "", words[0])
	if err != nil {
		return job{}, err
	}
	if len(pkgs) != 1 || pkgs[0].Name != "main" {
		return job{}, fmt.Errorf("-run %q: %s is not one main package", command, words[0])
	}
	j, err := m.job(pkgs[0])
	j.label = strings.Join(append([]string{j.label}, words[1:]...), " ")
	j.args = words[1:]
	return j, err
}

func (m module) job(p listed) (job, error) {
	dir, err := filepath.Rel(m.dir, p.Dir)
	if err != nil || !filepath.IsLocal(dir) {
		return job{}, fmt.Errorf("package %s is not in module %s", p.ImportPath, m.path)
	}
	dir = filepath.ToSlash(dir)
	label := "./" + dir
	if dir == "." {
		label = "."
	}
	return job{label: label, pkg: p.ImportPath, dir: dir}, nil
}

func jobName(i int, j job) string {
	base := j.pkg[strings.LastIndex(j.pkg, "/")+1:]
	if j.test {
		base += ".test"
	}
	return fmt.Sprintf("%02d-%s", i+1, base)
}

func (j job) build(ctx context.Context) error {
	how := []string{"build"}
	if j.test {
		how = []string{"test", "-c"}
	}
	args := append(how, "-ldflags=-s -w", "-o", j.file, j.pkg)
	_, err := output(ctx, j.root, buildEnv, "go", args...)
	return err
}

func goList(ctx context.Context, dir string, args ...string) ([]listed, error) {
	args = append([]string{"list", listedFields}, args...)
	out, err := output(ctx, dir, buildEnv, "go", args...)
	if err != nil {
		return nil, err
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
