package main

import (
	"regexp"
	"slices"
	"strings"
)

// A testLog gathers what matters from the output of one program: the results
// of tests as -test.v prints them, and SUPPORT lines.
type testLog struct {
	passed  int // subtests count too
	skipped []testNote
	failed  []testNote
	support []support
	last    ring // the last lines, for a program that says nothing else of its failure

	current string              // the test that the next log line belongs to
	logs    map[string][]string // messages of each test without a result yet
}

// A testNote is a test and what it said: the reason of a skip, the messages of
// a failure.
type testNote struct{ name, text string }

// A support is what one SUPPORT line says.
type support struct {
	feature string
	yes     bool
	text    string
}

// A test may print without ending the line, so the testing package's own lines
// are looked for at the end of any line.
var (
	testSwitch  = regexp.MustCompile(`=== (?:RUN|CONT|NAME) +(\S+)$`)
	testResult  = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+) \([0-9.]+s\)$`)
	testMessage = regexp.MustCompile(`^ +([^\s:]+\.go:[0-9]+): (.*)$`)
	supportLine = regexp.MustCompile(`^\s*(?:[^\s:]+\.go:[0-9]+: )?SUPPORT: (.+?): (yes|no)(?: \((.*)\))?\s*$`)
)

func (l *testLog) line(s string) {
	l.last.add(s)
	if m := supportLine.FindStringSubmatch(s); m != nil {
		l.support = append(l.support, support{feature: m[1], yes: m[2] == "yes", text: m[3]})
	}
	if m := testSwitch.FindStringSubmatch(s); m != nil {
		l.current = m[1]
	} else if m := testResult.FindStringSubmatch(s); m != nil {
		l.result(m[1], m[2])
	} else if m := testMessage.FindStringSubmatch(s); m != nil {
		l.message(m[1] + ": " + m[2])
	} else if text, ok := strings.CutPrefix(s, "        "); ok {
		l.continued(text)
	}
}

func (l *testLog) message(text string) {
	if l.logs == nil {
		l.logs = map[string][]string{}
	}
	l.logs[l.current] = append(l.logs[l.current], text)
}

// continued adds a further line to the last message, which t.Log indents.
func (l *testLog) continued(text string) {
	if logs := l.logs[l.current]; len(logs) > 0 {
		logs[len(logs)-1] += "\n" + text
	}
}

func (l *testLog) result(verdict, name string) {
	logs := l.logs[name]
	delete(l.logs, name)
	switch verdict {
	case "PASS":
		l.passed++
	case "SKIP":
		l.skipped = append(l.skipped, testNote{name, skipReason(logs)})
	case "FAIL":
		l.failed = append(l.failed, testNote{name, strings.Join(logs, "\n")})
	}
}

// skipReason is the last message of a test, without the place it came from.
func skipReason(logs []string) string {
	if len(logs) == 0 {
		return "no reason given"
	}
	_, reason, _ := strings.Cut(logs[len(logs)-1], ": ")
	return strings.Join(strings.Fields(reason), " ")
}

// A ring keeps the last lines of a text.
type ring struct {
	size  int // 0 means 20
	lines []string
}

func (r *ring) add(s string) {
	size := r.size
	if size == 0 {
		size = 20
	}
	if len(r.lines) == size {
		r.lines = slices.Delete(r.lines, 0, 1)
	}
	r.lines = append(r.lines, s)
}
