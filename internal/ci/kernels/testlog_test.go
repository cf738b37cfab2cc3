package main

import (
	"slices"
	"strings"
	"testing"
)

// Printed by a test binary of Go 1.26 with -test.v, on 21 November 2026.
const testOutput = `=== RUN   TestNft
    probe_test.go:74: SUPPORT: nftables table: yes
--- PASS: TestNft (0.02s)
=== RUN   TestKernel
    probe_test.go:81: release 6.1.0-56-cloud-amd64
SUPPORT: renew: element: no (needs 6.12, (really))
no newline at the end--- PASS: TestKernel (0.02s)
=== RUN   TestSkipped
=== RUN   TestSkipped/inner
    probe_test.go:114: needs conntrack:
        the tool is not installed
=== RUN   TestSkipped/silent
=== RUN   TestSkipped/p
=== PAUSE TestSkipped/p
=== RUN   TestSkipped/q
=== PAUSE TestSkipped/q
=== CONT  TestSkipped/p
=== CONT  TestSkipped/q
    probe_test.go:117: a
    probe_test.go:117: parallel q
=== NAME  TestSkipped/p
    probe_test.go:117: a
    probe_test.go:117: parallel p
--- PASS: TestSkipped (0.01s)
    --- SKIP: TestSkipped/inner (0.00s)
    --- SKIP: TestSkipped/silent (0.00s)
    --- SKIP: TestSkipped/q (0.00s)
    --- SKIP: TestSkipped/p (0.00s)
=== RUN   TestBad
=== RUN   TestBad/sub
    bad_test.go:12: got 1
        want 2
    bad_test.go:13: and more
--- FAIL: TestBad (0.00s)
    --- FAIL: TestBad/sub (0.00s)
FAIL
`

func readLog(text string) *testLog {
	var l testLog
	for line := range strings.Lines(text) {
		l.line(strings.TrimSuffix(line, "\n"))
	}
	return &l
}

func TestTestLog(t *testing.T) {
	l := readLog(testOutput)
	if l.passed != 3 {
		t.Errorf("%d passed, want 3", l.passed)
	}
	if want := []testNote{
		{"TestSkipped/inner", "needs conntrack: the tool is not installed"},
		{"TestSkipped/silent", "no reason given"},
		{"TestSkipped/q", "parallel q"},
		{"TestSkipped/p", "parallel p"},
	}; !slices.Equal(l.skipped, want) {
		t.Errorf("skipped %q, want %q", l.skipped, want)
	}
	if want := []testNote{
		{"TestBad", ""},
		{"TestBad/sub", "bad_test.go:12: got 1\nwant 2\nbad_test.go:13: and more"},
	}; !slices.Equal(l.failed, want) {
		t.Errorf("failed %q, want %q", l.failed, want)
	}
	if want := []support{
		{"nftables table", true, ""},
		{"renew: element", false, "needs 6.12, (really)"},
	}; !slices.Equal(l.support, want) {
		t.Errorf("support %v, want %v", l.support, want)
	}
}

func TestSupportLine(t *testing.T) {
	for _, line := range []string{
		"SUPPORT: zone filter: yes", "  SUPPORT: zone filter: yes", "    lab_test.go:7: SUPPORT: zone filter: yes",
		"        SUPPORT: zone filter: yes ",
	} {
		if l := readLog(line); !slices.Equal(l.support, []support{{"zone filter", true, ""}}) {
			t.Errorf("%q: %v", line, l.support)
		}
	}
	for _, line := range []string{
		"the line SUPPORT: zone filter: yes", "SUPPORT: zone filter: maybe", "SUPPORT: zone filter: yesterday", "SUPPORT: : yes",
		"SUPPORT: zone filter: yes, it is", "SUPPORT: yes", "",
	} {
		if l := readLog(line); l.support != nil {
			t.Errorf("%q: %v", line, l.support)
		}
	}
}

func TestRing(t *testing.T) {
	r := ring{size: 2}
	for _, s := range []string{"a", "b", "c"} {
		r.add(s)
	}
	if want := []string{"b", "c"}; !slices.Equal(r.lines, want) {
		t.Errorf("%q, want %q", r.lines, want)
	}
}
