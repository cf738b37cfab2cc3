package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const testMark marker = "@@kernels-TEST"

var twoJobs = []job{
	{name: "01-a.test", label: "./a", test: true},
	{name: "02-b", label: "./b -x"},
}

func readConsole(text string) *console {
	c := newConsole(testMark, twoJobs)
	at := time.Unix(0, 0)
	for line := range strings.Lines(text) {
		c.line(strings.TrimSuffix(line, "\n"), at)
		at = at.Add(time.Second)
	}
	return c
}

func TestConsole(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		verdicts   []string
		broken     string
	}{
		{
			"all passed",
			"Booting@@kernels-TEST notloaded nft_log\n@@kernels-TEST begin 01-a.test\n--- PASS: TestA (0.00s)\n" +
				"@@kernels-TEST end 01-a.test 0\n@@kernels-TEST begin 02-b\nno newline@@kernels-TEST end 02-b 0\n@@kernels-TEST done\n",
			[]string{"PASS", "PASS"}, "",
		},
		{
			"failed",
			"@@kernels-TEST begin 01-a.test\n@@kernels-TEST end 01-a.test 2\n@@kernels-TEST begin 02-b\n@@kernels-TEST end 02-b 0\n@@kernels-TEST done\n",
			[]string{"FAIL: exit status 2", "PASS"}, "",
		},
		{
			"forged and foreign markers",
			"@@kernels-TEST begin 01-a.test\n@@kernels-OTHER end 01-a.test 0\n@@kernels-TEST end 02-b 0\n@@kernels-TEST end 01-a.test zero\n" +
				"@@kernels-TEST\n@@kernels-TEST \n@@kernels-TEST end\n@@kernels-TEST done\n",
			[]string{"FAIL: no verdict", "FAIL: not reached"}, "",
		},
		{
			"no end marker",
			"@@kernels-TEST begin 01-a.test\n@@kernels-TEST begin 02-b\n@@kernels-TEST end 01-a.test 0\n@@kernels-TEST done\n",
			[]string{"FAIL: no verdict", "FAIL: no verdict"}, "",
		},
		{
			"panic",
			"@@kernels-TEST begin 01-a.test\n[    2.6] Kernel panic - not syncing: sysrq triggered crash\n[    2.6] CPU: 0\n",
			[]string{"FAIL: no verdict", "FAIL: not reached"}, "Kernel panic - not syncing: sysrq triggered crash",
		},
		{
			"the word panic",
			"@@kernels-TEST begin 01-a.test\nKernel panic - not syncing\n@@kernels-TEST end 01-a.test 0\n@@kernels-TEST begin 02-b\n@@kernels-TEST end 02-b 0\n@@kernels-TEST done\n",
			[]string{"PASS", "PASS"}, "",
		},
		{
			"stopped early",
			"@@kernels-TEST begin 01-a.test\n@@kernels-TEST end 01-a.test 0\n",
			[]string{"PASS", "FAIL: not reached"}, "the machine stopped early",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := readConsole(tt.text)
			var got []string
			for i := range c.results {
				got = append(got, verdict(&c.results[i]))
			}
			if !slices.Equal(got, tt.verdicts) {
				t.Errorf("verdicts %q, want %q", got, tt.verdicts)
			}
			if got := whyBroken(c, false, time.Minute, nil); got != tt.broken {
				t.Errorf("broken: %q, want %q", got, tt.broken)
			}
		})
	}
}

func TestConsoleDetails(t *testing.T) {
	c := readConsole("@@kernels-TEST notloaded nft_log\nbefore\n@@kernels-TEST begin 01-a.test\n--- PASS: TestA (0.00s)\n" +
		"rest@@kernels-TEST end 01-a.test 0\nbetween\n")
	r := c.results[0]
	if r.took != 2*time.Second {
		t.Errorf("took %v, want 2s", r.took)
	}
	if want := []string{"--- PASS: TestA (0.00s)", "rest"}; r.log.passed != 1 || !slices.Equal(r.log.last.lines, want) {
		t.Errorf("%d passed in %q, want 1 in %q", r.log.passed, r.log.last.lines, want)
	}
	if want := []string{"nft_log"}; !slices.Equal(c.notLoaded, want) {
		t.Errorf("not loaded %q, want %q", c.notLoaded, want)
	}
	if got := whyBroken(c, true, time.Minute, nil); got != "timeout after 1m0s" {
		t.Errorf("broken: %q", got)
	}
}

func TestNewMarker(t *testing.T) {
	if first := newMarker(); first == newMarker() {
		t.Error("two runs have the same marker")
	}
}

func TestPlain(t *testing.T) {
	const in = "\x1bc\x1b[?7l\x1b[2J\x1b[01;00H\x1b(BSeaBIOS\t1.16\r"
	if got, want := plain(in), "SeaBIOS\t1.16"; got != want {
		t.Errorf("plain = %q, want %q", got, want)
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(s string) { got = append(got, s) }}
	for _, p := range []string{"a", "b\n", "\nc\nd"} {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.flush()
	w.flush()
	if want := []string{"ab", "", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
}

func TestHostName(t *testing.T) {
	for _, tt := range []struct{ release, want string }{
		{"6.18.44", "6.18"}, {"6.1.0-13-amd64", "6.1 host"}, {"7", "host"},
	} {
		if got := hostName(tt.release, []string{"6.1", "6.12"}); got != tt.want {
			t.Errorf("hostName(%q) = %q, want %q", tt.release, got, tt.want)
		}
	}
}
