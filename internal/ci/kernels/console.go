package main

import (
	"bytes"
	"crypto/rand"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A marker starts the lines that frame the output of jobs on a console:
//
//	<marker> begin <job name>
//	<marker> end <job name> <exit status>
//	<marker> notloaded <kernel module>
//	<marker> done
//
// It is made anew for every run, so no output can be taken for one.
type marker string

func newMarker() marker { return marker("@@kernels-" + rand.Text()[:12]) }

// A result is how one job went on one kernel.
type result struct {
	job    job
	begun  bool
	ended  bool // with a status: without, the job has no verdict
	status int
	took   time.Duration
	log    testLog

	began time.Time
}

func (r *result) passed() bool { return r.ended && r.status == 0 }

// A console reads what a machine prints, line by line.
type console struct {
	mark      marker
	results   []result // one for each job, in order
	notLoaded []string // modules that exist and did not load
	panicked  string   // the kernel's last words
	done      bool     // every job had its turn
	tail      ring

	running *result
}

func newConsole(mark marker, jobs []job) *console {
	c := &console{mark: mark, results: make([]result, len(jobs)), tail: ring{size: 40}}
	for i, j := range jobs {
		c.results[i].job = j
	}
	return c
}

// line takes the next line. It returns the result that the line completes, if any.
func (c *console) line(s string, now time.Time) *result {
	c.tail.add(s)
	if i := strings.Index(s, "Kernel panic - not syncing"); i >= 0 && c.panicked == "" {
		c.panicked = s[i:]
	}
	// Output that did not end its last line stands before a marker.
	text, event, found := strings.Cut(s, string(c.mark)+" ")
	if c.running != nil && (!found || text != "") {
		c.running.log.line(text)
	}
	if !found {
		return nil
	}
	return c.event(strings.Fields(event), now)
}

// event ignores what it does not understand: a job without a verdict is a
// failure, so nothing passes by mistake.
func (c *console) event(words []string, now time.Time) *result {
	switch {
	case len(words) == 1 && words[0] == "done":
		c.done = true
	case len(words) == 2 && words[0] == "notloaded":
		c.notLoaded = append(c.notLoaded, words[1])
	case len(words) == 2 && words[0] == "begin":
		c.begin(words[1], now)
	case len(words) == 3 && words[0] == "end":
		return c.end(words[1], words[2], now)
	}
	return nil
}

func (c *console) begin(name string, now time.Time) {
	c.running = nil
	for i := range c.results {
		if r := &c.results[i]; r.job.name == name && !r.begun {
			r.begun, r.began = true, now
			c.running = r
		}
	}
}

func (c *console) end(name, status string, now time.Time) *result {
	r := c.running
	n, err := strconv.Atoi(status)
	if r == nil || r.job.name != name || err != nil {
		return nil
	}
	r.ended, r.status, r.took = true, n, now.Sub(r.began)
	c.running = nil
	return r
}

var terminalCodes = regexp.MustCompile(`\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[A-Za-z])`)

// plain takes out of a line what would steer a terminal: firmware clears the
// screen, and the serial line ends lines with \r\n.
func plain(s string) string {
	s = terminalCodes.ReplaceAllString(s, "")
	return strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\t') || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// A lineWriter calls a function for each line written to it.
type lineWriter struct {
	line    func(string)
	partial []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.partial = append(w.partial, p...)
	for {
		line, rest, found := bytes.Cut(w.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.line(string(line))
		w.partial = append(w.partial[:0], rest...)
	}
}

// flush passes on a last line that nothing ended.
func (w *lineWriter) flush() {
	if len(w.partial) > 0 {
		w.line(string(w.partial))
		w.partial = nil
	}
}
