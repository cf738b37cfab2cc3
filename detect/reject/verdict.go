package reject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// Verdict is why a packet was refused.
type Verdict struct {
	Cause Cause
	// Rule is the row of the decision table: "C05"; empty for CauseUnknown.
	Rule       string
	Confidence detect.Confidence
	// Summary says the cause in a sentence, with the names and values of this
	// case.
	Summary string
	// Facts are what the verdict rests on, and Missing what was not known and
	// would raise the confidence.
	Facts, Missing []string
	// Decide is one command that would settle what is open; empty when nothing
	// is.
	Decide string
	// Fix is what to do, the most direct first. Words in backquotes are
	// commands or settings.
	Fix []string

	// Flow is the tuple of the refused packet.
	Flow conntrack.Tuple
	// Count is how many packets of Flow were refused from First to Last. They
	// are Watch's.
	Count       int
	First, Last time.Time
	// Ports is 0 for one flow. Else the verdict stands for flows that Watch
	// does not tell apart (Config.SourceFlows, Config.Flows), to so many
	// destination ports, and Flow has only their source, if it is one: an
	// address of IPv4 or the first of a /64 of IPv6. Evidence is on one of them.
	Ports int

	Evidence Evidence
}

// String returns cause, confidence and summary on one line.
func (v Verdict) String() string {
	times := ""
	switch {
	case v.Ports > 0:
		times = fmt.Sprintf(" (%d times, %d ports)", v.Count, v.Ports)
	case v.Count > 1:
		times = fmt.Sprintf(" (%d times)", v.Count)
	}
	return plain(fmt.Sprintf("%s%s, %s: %s", v.Cause, times, v.Confidence, v.Summary))
}

// Line returns what String does and the most direct thing to do, on one line.
func (v Verdict) Line() string {
	if len(v.Fix) == 0 {
		return v.String()
	}
	return v.String() + "; to do: " + plain(v.Fix[0])
}

// Text returns the whole verdict on several lines: that of String, and below it
// one for each fact, what is missing, the command that would decide, and one for
// each thing to do.
func (v Verdict) Text() string {
	var b strings.Builder
	b.WriteString(v.String())
	lines := func(head string, texts ...string) {
		for _, t := range texts {
			fmt.Fprintf(&b, "\n  %-8s %s", head, plain(t))
		}
	}
	lines("fact", v.Facts...)
	lines("missing", v.Missing...)
	if v.Decide != "" {
		lines("decide", v.Decide)
	}
	lines("fix", v.Fix...)
	return b.String()
}

// plain leaves out what would break a line, or a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

type verdictJSON struct {
	Cause      Cause      `json:"cause"`
	Rule       string     `json:"rule"`
	Confidence string     `json:"confidence"`
	Summary    string     `json:"summary"`
	Facts      []string   `json:"facts"`
	Missing    []string   `json:"missing"`
	Decide     string     `json:"decide"`
	Fix        []string   `json:"fix"`
	Flow       *flowJSON  `json:"flow"`
	Count      int        `json:"count"`
	Ports      int        `json:"ports"`
	First      *time.Time `json:"first"`
	Last       *time.Time `json:"last"`
}

type flowJSON struct {
	Src   netip.Addr `json:"src"`
	Dst   netip.Addr `json:"dst,omitzero"`
	Proto string     `json:"proto,omitempty"`
	Sport *uint16    `json:"sport,omitempty"`
	Dport *uint16    `json:"dport,omitempty"`
	Type  *uint8     `json:"type,omitempty"`
	Code  *uint8     `json:"code,omitempty"`
	ID    *uint16    `json:"id,omitempty"`
}

// MarshalJSON writes v with these keys, all of them always:
//
//	{
//	  "cause": "ghost", "rule": "C05", "confidence": "certain", "summary": "…",
//	  "facts": ["…"], "missing": ["…"], "decide": "…", "fix": ["…"],
//	  "flow": {"src": "192.0.2.1", "dst": "192.0.2.2", "proto": "tcp", "sport": 40000, "dport": 443},
//	  "count": 3, "ports": 0, "first": "2026-11-21T09:11:51.123456789Z", "last": "2026-11-21T09:11:54.123456789Z"
//	}
//
// Without a packet "flow" is null, and so are "first" and "last" when they are
// zero. Of flows that are not told apart ("ports" above 0) "flow" has only the
// source, and is null for those of all sources. The flow of ICMP has "type",
// "code" and "id" for ports, those of other protocols neither, and their number
// for a name. Instants are RFC 3339 in UTC.
// The evidence is left out.
func (v Verdict) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // whoever embeds it decides
	err := enc.Encode(verdictJSON{
		Cause: v.Cause, Rule: v.Rule, Confidence: v.Confidence.String(), Summary: v.Summary,
		Facts: orEmpty(v.Facts), Missing: orEmpty(v.Missing), Decide: v.Decide, Fix: orEmpty(v.Fix),
		Flow: newFlowJSON(v.Flow), Count: v.Count, Ports: v.Ports, First: instant(v.First), Last: instant(v.Last),
	})
	return b.Bytes(), err
}

// orEmpty makes an empty list of none, which is null in JSON.
func orEmpty(s []string) []string { return append([]string{}, s...) }

// instant is nil for what JSON cannot say (RFC 3339 ends at the year 9999).
func instant(t time.Time) *time.Time {
	u := t.UTC()
	if t.IsZero() || u.Year() < 0 || u.Year() > 9999 {
		return nil
	}
	return &u
}

func newFlowJSON(t conntrack.Tuple) *flowJSON {
	if t == (conntrack.Tuple{}) {
		return nil
	}
	if !t.Dst.IsValid() {
		return &flowJSON{Src: t.Src}
	}
	j := &flowJSON{Src: t.Src, Dst: t.Dst, Proto: t.Proto.String()}
	switch uint8(t.Proto) {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		j.Type, j.Code, j.ID = &t.ICMPType, &t.ICMPCode, &t.ICMPID
	default:
		if t.SrcPort != 0 || t.DstPort != 0 {
			j.Sport, j.Dport = &t.SrcPort, &t.DstPort
		}
	}
	return j
}

// fix adds what to do.
func (v *Verdict) fix(steps ...string) { v.Fix = append(v.Fix, steps...) }

// fact adds what the verdict rests on.
func (v *Verdict) fact(facts ...string) { v.Facts = append(v.Facts, facts...) }

// missing adds a fact that was not known, and the command that would tell it.
func (v *Verdict) missing(fact, decide string) {
	v.Missing = append(v.Missing, fact)
	if v.Decide == "" {
		v.Decide = decide
	}
}
