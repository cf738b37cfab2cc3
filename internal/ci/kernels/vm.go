package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A bench runs the same jobs on several kernels.
type bench struct {
	jobs    []job
	work    string // temporary files
	logDir  string
	timeout time.Duration
	verbose bool
}

// A report is how the jobs went on one kernel.
type report struct {
	kernel  string // row and column name: "6.1"
	what    string // the release, and where it ran
	took    time.Duration
	results []result
	lacking []string // modules that the kernel does not have, or did not load
	broken  string   // why the jobs did not all have their turn, or ""
	tail    []string // last lines of the console
	log     string   // file with the whole console
}

func (r *report) passed() bool {
	return r.broken == "" && !slices.ContainsFunc(r.results, func(res result) bool { return !res.passed() })
}

// runAll returns a report for each kernel, oldest first.
func (b *bench) runAll(ctx context.Context, o options) ([]report, error) {
	runs, err := b.emulations(ctx, o.kernels)
	if err != nil {
		return nil, err
	}
	reports := make([]report, len(runs))
	errs := make([]error, len(runs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, o.parallel)
	for i, run := range runs {
		slots <- struct{}{}
		wg.Go(func() {
			reports[i], errs[i] = run(ctx)
			<-slots
		})
	}
	wg.Wait()
	if o.host && ctx.Err() == nil {
		r, err := b.host(ctx, o.kernels)
		reports, errs = append(reports, r), append(errs, err)
	}
	slices.SortStableFunc(reports, func(x, y report) int { return compareVersions(x.kernel, y.kernel) })
	return reports, errors.Join(append(errs, context.Cause(ctx))...)
}

// emulations gets the tools and the kernels before anything runs.
func (b *bench) emulations(ctx context.Context, series []string) ([]func(context.Context) (report, error), error) {
	if len(series) == 0 {
		return nil, nil
	}
	t, err := findTools(ctx)
	if err != nil {
		return nil, err
	}
	s, err := openStore(t)
	if err != nil {
		return nil, err
	}
	var runs []func(context.Context) (report, error)
	for _, name := range series {
		k, err := s.kernel(ctx, name)
		if err != nil {
			return nil, err
		}
		runs = append(runs, func(ctx context.Context) (report, error) { return b.emulate(ctx, t, k) })
	}
	return runs, nil
}

// emulate boots a kernel that runs the jobs.
func (b *bench) emulate(ctx context.Context, t tools, k kernel) (report, error) {
	rep := report{kernel: k.series, what: k.release + ", emulated"}
	mods, err := readModules(k)
	if err != nil {
		return rep, err
	}
	con := newConsole(newMarker(), b.jobs)
	root := &initramfs{tools: t, kernel: k, mods: mods, jobs: b.jobs, mark: con.mark}
	tree, archive := filepath.Join(b.work, k.series), filepath.Join(b.work, k.series+".cpio")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return rep, err
	}
	defer os.Remove(archive)
	err = root.write(ctx, tree, archive)
	if err := errors.Join(err, os.RemoveAll(tree)); err != nil {
		return rep, err
	}
	note("%s: booting %s", k.series, k.release)
	err = b.watch(ctx, &rep, con, func(ctx context.Context, out *lineWriter) error {
		cmd := exec.CommandContext(ctx, t.qemu, qemuArgs(k.image, archive)...)
		cmd.Stdout, cmd.Stderr = out, out
		return cmd.Run()
	})
	rep.lacking = slices.Concat(mods.lacking, con.notLoaded)
	return rep, err
}

// qemuArgs asks for software emulation always: hardware virtualisation inside
// a virtual machine may hang, and results should not depend on it. panic=-1
// makes a panic reboot at once, which -no-reboot turns into an end. Without
// rdrand, the first program that wants random numbers waits 1 or 2 seconds. The
// machine's clock counts its instructions, two nanoseconds each, and leaps where it
// has none to do: what runs beside it does not make it late, and it waits for
// nothing. Such a machine has one processor, since two would spin for each other
// for ever, as 6.1 does when it brings up the second. By the last word, which the
// kernel gives to init, lab.Emulated knows the machine.
func qemuArgs(image, archive string) []string {
	return []string{
		"-accel", "tcg", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm",
		"-cpu", "qemu64,+rdrand", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none",
		"-kernel", image, "-initrd", archive,
		"-append", "console=ttyS0 quiet panic=-1 CONNSLEUTH_EMULATED=1",
	}
}

// watch runs a machine to its end, or the deadline, and fills the report from
// its console.
func (b *bench) watch(ctx context.Context, rep *report, con *console, machine func(context.Context, *lineWriter) error) error {
	rep.log = filepath.Join(b.logDir, "console-"+strings.ReplaceAll(rep.kernel, " ", "-")+".log")
	file, err := os.Create(rep.log)
	if err != nil {
		return err
	}
	defer file.Close()
	out := &lineWriter{line: func(s string) { b.line(rep.kernel, file, con, plain(s)) }}
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	start := time.Now()
	err = machine(limited, out)
	out.flush()
	rep.took = time.Since(start)
	rep.results, rep.tail = con.results, con.tail.lines
	rep.broken = whyBroken(con, limited.Err() != nil, b.timeout, err)
	return file.Close()
}

func (b *bench) line(kernel string, file *os.File, con *console, s string) {
	fmt.Fprintln(file, s)
	if b.verbose {
		fmt.Fprintf(os.Stderr, "%s| %s\n", kernel, s)
	}
	if r := con.line(s, time.Now()); r != nil {
		note("%s: %s: %s, %s", kernel, r.job.label, verdict(r), seconds(r.took))
	}
}

func whyBroken(con *console, timedOut bool, timeout time.Duration, err error) string {
	switch {
	case con.done:
		return ""
	case con.panicked != "":
		return con.panicked
	case timedOut:
		return fmt.Sprintf("timeout after %v", timeout)
	case err != nil:
		return fmt.Sprintf("the machine stopped early: %v", err)
	default:
		return "the machine stopped early"
	}
}

// host runs the jobs on this machine's kernel, framed in the same way.
func (b *bench) host(ctx context.Context, taken []string) (report, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return report{}, err
	}
	release := strings.TrimSpace(string(raw))
	rep := report{kernel: hostName(release, taken), what: release + ", this machine"}
	con := newConsole(newMarker(), b.jobs)
	note("%s: running on this machine", rep.kernel)
	err = b.watch(ctx, &rep, con, func(ctx context.Context, out *lineWriter) error {
		for _, j := range b.jobs {
			fmt.Fprintf(out, "%s begin %s\n", con.mark, j.name)
			status, err := runHere(ctx, j, out)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s end %s %d\n", con.mark, j.name, status)
		}
		fmt.Fprintf(out, "%s done\n", con.mark)
		return nil
	})
	return rep, err
}

// hostName is the series of a release, told apart from the emulated ones.
func hostName(release string, taken []string) string {
	ns := numbers(release)
	if len(ns) < 2 {
		return "host"
	}
	name := fmt.Sprintf("%d.%d", ns[0], ns[1])
	if slices.Contains(taken, name) {
		name += " host"
	}
	return name
}

func runHere(ctx context.Context, j job, out *lineWriter) (int, error) {
	cmd := exec.CommandContext(ctx, j.file, j.args...)
	cmd.Dir = filepath.Join(j.root, filepath.FromSlash(j.dir))
	cmd.Env = append(os.Environ(), "CONNSLEUTH_LAB=require")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 5 * time.Second // for children that keep the output open
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case cmd.ProcessState == nil: // it never started
		return 0, err
	case cmd.ProcessState.ExitCode() < 0: // a signal ended it
		return 128, nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
