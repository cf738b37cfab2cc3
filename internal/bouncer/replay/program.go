package replay

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/program"
)

// Program is the example at work in a host.
type Program struct {
	*program.Program
	t *testing.T
}

// Start starts the example in a host. It is killed when the test ends.
func Start(t *testing.T, h *lab.Host, args ...string) *Program {
	t.Helper()
	return &Program{program.Start(t, h, args...), t}
}

// Line is what an example tells with -json.
type Line struct {
	Time                                                       time.Time
	Action, Prefix, Until, Reason, Note, Error, Subject, Cause string
	Evidence, Preview                                          json.RawMessage
	Prefixes, Fix                                              []string
	Cut                                                        struct{ Done bool }
}

// Lines returns what it told with -json so far.
func (p *Program) Lines() []Line {
	p.t.Helper()
	out, _ := p.Text()
	var lines []Line
	for text := range strings.Lines(out) {
		if !strings.HasSuffix(text, "\n") {
			break // being written
		}
		var l Line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			p.t.Fatalf("%v in %q", err, text)
		}
		lines = append(lines, l)
	}
	return lines
}

// Find returns the first line about a prefix with an action.
func (p *Program) Find(action, prefix string) (Line, bool) {
	p.t.Helper()
	for _, l := range p.Lines() {
		if l.Action == action && (l.Prefix == prefix || prefix == "" || slices.Contains(l.Prefixes, prefix)) {
			return l, true
		}
	}
	return Line{}, false
}

// Await waits for a line about a prefix with an action.
func (p *Program) Await(action, prefix string) (l Line) {
	p.t.Helper()
	p.Until(action+" "+prefix, func() (ok bool) {
		l, ok = p.Find(action, prefix)
		return ok
	})
	return l
}
