package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// printReport writes everything but the support table, and says whether
// everything passed.
func printReport(w io.Writer, reports []report) bool {
	printKernels(w, reports)
	printVerdicts(w, reports)
	printSkips(w, reports)
	passed := true
	for i := range reports {
		if !reports[i].passed() {
			passed = false
			printFailure(w, &reports[i])
		}
	}
	for _, c := range contradictions(reports) {
		passed = false
		fmt.Fprintf(w, "\nCONTRADICTION: %s\n", c)
	}
	return passed
}

func printKernels(w io.Writer, reports []report) {
	for _, r := range reports {
		fmt.Fprintf(w, "%s is %s; %s", r.kernel, r.what, seconds(r.took))
		if len(r.lacking) > 0 {
			fmt.Fprintf(w, "; without modules %s", strings.Join(r.lacking, ", "))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

func printVerdicts(w io.Writer, reports []report) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KERNEL\tPACKAGE\tVERDICT\tTIME\tTESTS")
	for _, rep := range reports {
		for i := range rep.results {
			r := &rep.results[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", rep.kernel, r.job.label, verdict(r), duration(r), counts(r))
		}
	}
	t.Flush()
}

func verdict(r *result) string {
	switch {
	case !r.begun:
		return "FAIL: not reached"
	case !r.ended:
		return "FAIL: no verdict"
	case r.status != 0:
		return fmt.Sprintf("FAIL: exit status %d", r.status)
	}
	return "PASS"
}

func counts(r *result) string {
	if !r.job.test || !r.begun {
		return "-"
	}
	l := &r.log
	s := fmt.Sprintf("%d passed", l.passed)
	if n := len(l.skipped); n > 0 {
		s += fmt.Sprintf(", %d skipped", n)
	}
	if n := len(l.failed); n > 0 {
		s += fmt.Sprintf(", %d failed", n)
	}
	return s
}

func duration(r *result) string {
	if !r.ended {
		return "-"
	}
	return seconds(r.took)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// printSkips prints a skip once, with all the kernels it happened on.
func printSkips(w io.Writer, reports []report) {
	var order []string
	kernels := map[string][]string{}
	for _, rep := range reports {
		for _, r := range rep.results {
			for _, s := range r.log.skipped {
				what := fmt.Sprintf("%s %s: %s", r.job.label, s.name, s.text)
				if kernels[what] == nil {
					order = append(order, what)
				}
				kernels[what] = append(kernels[what], rep.kernel)
			}
		}
	}
	if len(order) == 0 {
		return
	}
	fmt.Fprintln(w, "\nSkipped:")
	for _, what := range order {
		fmt.Fprintf(w, "  %s: %s\n", strings.Join(kernels[what], ", "), what)
	}
}

func printFailure(w io.Writer, rep *report) {
	fmt.Fprintf(w, "\nFailed on %s:\n", rep.kernel)
	for i := range rep.results {
		if r := &rep.results[i]; !r.passed() {
			printFailedJob(w, r)
		}
	}
	if rep.broken != "" {
		fmt.Fprintf(w, "  %s\n  last lines of the console:\n%s", rep.broken, indent(strings.Join(rep.tail, "\n")))
	}
	fmt.Fprintf(w, "  console log: %s\n", rep.log)
}

// printFailedJob shows what the failed tests said, or the end of the output
// when no test failed: a Go panic, a plain program. Without a verdict the end of
// the console is shown elsewhere.
func printFailedJob(w io.Writer, r *result) {
	fmt.Fprintf(w, "  %s: %s", r.job.label, verdict(r))
	if !r.ended && r.log.current != "" {
		fmt.Fprintf(w, ", the last test was %s", r.log.current)
	}
	fmt.Fprintln(w)
	for _, f := range r.log.failed {
		fmt.Fprintf(w, "  %s\n%s", f.name, indent(f.text))
	}
	if r.ended && len(r.log.failed) == 0 {
		fmt.Fprintf(w, "  last lines of its output:\n%s", indent(strings.Join(r.log.last.lines, "\n")))
	}
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}

// contradictions names the features that one kernel both has and has not.
func contradictions(reports []report) []string {
	var found []string
	for _, rep := range reports {
		said := map[string]bool{}
		for _, s := range rep.support() {
			yes, before := said[s.feature]
			c := fmt.Sprintf("SUPPORT of %q on %s: both yes and no", s.feature, rep.kernel)
			if before && yes != s.yes && !slices.Contains(found, c) {
				found = append(found, c)
			}
			said[s.feature] = s.yes
		}
	}
	return found
}

func (r *report) support() []support {
	var all []support
	for i := range r.results {
		all = append(all, r.results[i].log.support...)
	}
	return all
}
