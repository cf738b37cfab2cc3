package conntrack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// ParseError is a line that is not a conntrack entry.
type ParseError struct {
	Line   int    // from 1; 0 from ParseFlow
	Column int    // in bytes, from 1: where the fault begins
	Token  string // what stands there; empty at the end of the line
	Msg    string // what is wrong with it
}

func (e *ParseError) Error() string {
	where := fmt.Sprintf("column %d", e.Column)
	if e.Line > 0 {
		where = fmt.Sprintf("line %d, %s", e.Line, where)
	}
	if e.Token == "" {
		return fmt.Sprintf("conntrack: %s: %s", where, e.Msg)
	}
	return fmt.Sprintf("conntrack: %s: %q: %s", where, e.Token, e.Msg)
}

// maxLine bytes are the most a line may have.
const maxLine = 64 << 10

// ReadFlows reads the lines of /proc/net/nf_conntrack, of the older
// /proc/net/ip_conntrack, and of conntrack -L in all its textual layouts
// (extended, id, labels, ktimestamp). Empty lines and the tool's summary are
// skipped. A line that is none of these yields a *ParseError, and reading goes
// on with the next; any other error is the last.
//
// Times are read as whole seconds of time.Local, as the tool prints them.
// Labels are read as their numbers; a line that shows one by its name in
// /etc/xtables/connlabel.conf gives none. delta-time= is not kept.
func ReadFlows(r io.Reader) iter.Seq2[Flow, error] { return readLines(r, ParseFlow) }

// ReadEvents reads the lines of conntrack -E in all its textual layouts
// (extended, id, labels, timestamp, ktimestamp, userspace), as ReadFlows does
// those of entries.
func ReadEvents(r io.Reader) iter.Seq2[Event, error] { return readLines(r, ParseEvent) }

func readLines[T any](r io.Reader, parse func(string) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		n := 0
		for lines.Scan() {
			n++
			line := lines.Text()
			if isSummary(line) {
				continue
			}
			v, err := parse(line)
			if perr, ok := errors.AsType[*ParseError](err); ok {
				perr.Line = n
			}
			if !yield(v, err) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			var none T
			yield(none, fmt.Errorf("conntrack: line %d: %w", n+1, err))
		}
	}
}

// isSummary tells lines that say nothing of an entry: empty ones, and
// "conntrack v1.4.7 (conntrack-tools): 12 flow entries have been shown."
func isSummary(line string) bool {
	return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "conntrack v")
}
