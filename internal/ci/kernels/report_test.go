package main

import (
	"strings"
	"testing"
	"time"
)

// twoReports is a run that fails on one of two kernels.
func twoReports() []report {
	good := readConsole("@@kernels-TEST begin 01-a.test\n=== RUN   TestS\n    a_test.go:1: no tool\n--- SKIP: TestS (0.00s)\n" +
		"SUPPORT: b: no (old)\nSUPPORT: a|a: yes\n@@kernels-TEST end 01-a.test 0\n" +
		"@@kernels-TEST begin 02-b\n@@kernels-TEST end 02-b 0\n@@kernels-TEST done\n")
	bad := readConsole("@@kernels-TEST begin 01-a.test\n=== RUN   TestS\n    a_test.go:1: no tool\n--- SKIP: TestS (0.00s)\n" +
		"=== RUN   TestF\n    a_test.go:9: got 1\n        want 2\n--- FAIL: TestF (0.00s)\nSUPPORT: b: yes\n" +
		"@@kernels-TEST end 01-a.test 1\n@@kernels-TEST begin 02-b\nhalf a run\n")
	return []report{
		{kernel: "6.1", what: "6.1.0, emulated", took: 3 * time.Second, results: good.results, lacking: []string{"nft_counter"}},
		{
			kernel: "6.12", what: "6.12.0, emulated", took: 4 * time.Second, results: bad.results,
			broken: "timeout after 4s", tail: bad.tail.lines[len(bad.tail.lines)-2:], log: "console-6.12.log",
		},
	}
}

func TestPrintReport(t *testing.T) {
	var out strings.Builder
	if printReport(&out, twoReports()) {
		t.Error("passed")
	}
	const want = `6.1 is 6.1.0, emulated; 3.0s; without modules nft_counter
6.12 is 6.12.0, emulated; 4.0s

KERNEL  PACKAGE  VERDICT              TIME  TESTS
6.1     ./a      PASS                 6.0s  0 passed, 1 skipped
6.1     ./b -x   PASS                 1.0s  -
6.12    ./a      FAIL: exit status 1  9.0s  0 passed, 1 skipped, 1 failed
6.12    ./b -x   FAIL: no verdict     -     -

Skipped:
  6.1, 6.12: ./a TestS: no tool

Failed on 6.12:
  ./a: FAIL: exit status 1
  TestF
    a_test.go:9: got 1
    want 2
  ./b -x: FAIL: no verdict
  timeout after 4s
  last lines of the console:
    @@kernels-TEST begin 02-b
    half a run
  console log: console-6.12.log
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPrintReportPassed(t *testing.T) {
	if !printReport(&strings.Builder{}, twoReports()[:1]) {
		t.Error("failed")
	}
}

func TestContradiction(t *testing.T) {
	reports := twoReports()[:1]
	log := &reports[0].results[0].log
	log.support = append(log.support, support{feature: "b", yes: true})
	var out strings.Builder
	if printReport(&out, reports) {
		t.Error("passed")
	}
	if want := `CONTRADICTION: SUPPORT of "b" on 6.1: both yes and no`; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}
