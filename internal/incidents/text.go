package incidents

import (
	"fmt"
	"io"
	"strings"
)

// Text returns a report that writes each incident as a time line under its
// title: what was set, what was seen, and the result of each step.
func Text(w io.Writer) func(Report) {
	words := map[Kind]string{Set: "set", Seen: "seen", Wait: "..."}
	last := ""
	return func(r Report) {
		if s, err := Find(r.Scenario); err == nil && s.Name != last {
			last = s.Name
			fmt.Fprintf(w, "\n=== %s: %s\n\n", s.Name, s.Title)
		}
		if r.Kind != Result {
			item(w, fmt.Sprintf("%6.2fs  %-5s ", r.At.Seconds(), words[r.Kind]), r.Text)
			return
		}
		outcome := "verified"
		if !r.OK {
			outcome = "FAILED"
		}
		fmt.Fprintf(w, "\n%6.2fs  %s: %s\n", r.At.Seconds(), strings.ToUpper(string(r.Step)), outcome)
		if v := r.Verdict; v != nil {
			item(w, indent, fmt.Sprintf("%s, row %s of the decision table, %v", v.Cause, v.Rule, v.Confidence))
		}
		item(w, indent, r.Text)
		if v := r.Verdict; v != nil {
			list(w, "facts", v.Facts)
			list(w, "missing", v.Missing)
			list(w, "fix", v.Fix)
		}
		fmt.Fprintln(w)
	}
}

const (
	indent = "               "
	width  = 118
)

func list(w io.Writer, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(w, "%s%s:\n", indent, title)
	for _, s := range items {
		item(w, indent+"- ", s)
	}
}

// item writes text after a head, broken between words, with the lines after
// the first as far in as the first.
func item(w io.Writer, head, text string) {
	line, margin := head, strings.Repeat(" ", len(head))
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && strings.TrimSpace(line) != "" && line != head {
			fmt.Fprintln(w, line)
			line = margin
		}
		if line != head && line != margin {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
