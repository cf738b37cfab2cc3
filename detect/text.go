package detect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Text returns the finding for people, in lines: what is wrong, why, what shows
// it, and what to do.
func (f Finding) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%s, %s)\n", strings.ToUpper(f.Severity.String()), f.Subject, f.Detector, f.Confidence)
	fmt.Fprintf(&b, "  %s%s\n%s", f.Cause, f.counts(), f.times())
	for _, line := range f.Evidence.lines() {
		fmt.Fprintf(&b, "    | %s\n", line)
	}
	for _, m := range f.Evidence.Missing {
		fmt.Fprintf(&b, "  not known: %s\n", m)
	}
	for _, fix := range f.Fix {
		if rest, ok := strings.CutPrefix(fix, "see "); ok {
			fmt.Fprintf(&b, "  see: %s\n", rest)
			continue
		}
		fmt.Fprintf(&b, "  fix: %s\n", fix)
	}
	return b.String()
}

func (f Finding) counts() string {
	if f.Count == 0 || f.Limit == 0 {
		return ""
	}
	return fmt.Sprintf(" [%d, limit %d]", f.Count, f.Limit)
}

// times is a line, or nothing.
func (f Finding) times() string {
	s := ""
	if !f.Since.IsZero() {
		s += "  since: " + f.Since.Format(time.DateTime) + "\n"
	}
	if !f.Until.IsZero() {
		s += "  until: " + f.Until.Format(time.DateTime) + "\n"
	}
	return s
}

// lines are the rows, settings and lines of a log as the tools write them.
func (e Evidence) lines() []string {
	var lines []string
	for _, s := range e.Sockets {
		lines = append(lines, strings.Join(strings.Fields(s.String()), " "))
	}
	for _, f := range e.Flows {
		lines = append(lines, f.String())
	}
	for _, s := range e.Settings {
		lines = append(lines, s.String())
	}
	return append(lines, e.Log...)
}

type findingJSON struct {
	Detector   string         `json:"detector"`
	Severity   Severity       `json:"severity"`
	Confidence Confidence     `json:"confidence"`
	Subject    string         `json:"subject"`
	Sources    []netip.Prefix `json:"sources,omitempty"`
	Count      uint64         `json:"count"`
	Limit      uint64         `json:"limit"`
	Since      time.Time      `json:"since,omitzero"`
	Until      time.Time      `json:"until,omitzero"`
	Cause      string         `json:"cause"`
	Fix        []string       `json:"fix"`
	Evidence   evidenceJSON   `json:"evidence"`
}

type evidenceJSON struct {
	Flows    []conntrack.Flow  `json:"flows,omitempty"`
	Sockets  []sockdiag.Socket `json:"sockets,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
	Log      []string          `json:"log,omitempty"`
	Missing  []string          `json:"missing,omitempty"`
}

// MarshalJSON writes a finding as an object: detector, severity, confidence,
// subject, count, limit, cause, fix and evidence, and sources, since and until
// where they are known.
func (f Finding) MarshalJSON() ([]byte, error) {
	e := evidenceJSON{Flows: f.Evidence.Flows, Sockets: f.Evidence.Sockets, Log: f.Evidence.Log, Missing: f.Evidence.Missing}
	for _, s := range f.Evidence.Settings {
		if e.Settings == nil {
			e.Settings = make(map[string]string)
		}
		e.Settings[s.Name] = s.Value
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false) // it is read by people, too
	err := out.Encode(findingJSON{
		f.Detector, f.Severity, f.Confidence, f.Subject, f.Sources, f.Count, f.Limit, f.Since, f.Until,
		f.Cause, append([]string{}, f.Fix...), e,
	})
	return bytes.TrimSpace(b.Bytes()), err
}

// MarshalText returns String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads info, warning or critical.
func (s *Severity) UnmarshalText(text []byte) error {
	for _, known := range []Severity{Info, Warning, Critical} {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("%q is not info, warning or critical", text)
}

// MarshalText returns String.
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
