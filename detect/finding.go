package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Finding is a trouble that a detector found, why it is one, and what to do.
type Finding struct {
	// Detector is the name of the one that found it: "Ghosts".
	Detector string
	Severity Severity
	// Confidence grades Cause. Evidence.Missing says what would raise it.
	Confidence Confidence
	// Subject is who or what is in trouble, such as a connection.
	Subject string
	// Sources are the remote addresses behind it, when it is somebody's doing.
	Sources []netip.Prefix
	// Count is how many of what Cause counts there are, and Limit how many are
	// taken for normal; both are 0 where nothing is counted.
	Count, Limit uint64
	// Since is from when on it is so, as far as the rows tell: it may have begun
	// before. Until is when it ends by itself. The zero Time is not known.
	Since, Until time.Time
	// Cause says in a sentence what is wrong and why.
	Cause string
	// Fix is what to do, the most direct first. Words in backquotes are
	// commands, or parts of rules. What begins with "see " tells more, and
	// changes nothing that is wrong.
	Fix []string

	Evidence Evidence
}

// String returns the finding on one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s (%s): %s", f.Severity, f.Subject, f.Confidence, f.Cause)
	if len(f.Fix) > 0 {
		s += "; fix: " + strings.Join(f.Fix, "; or: ")
	}
	return s
}

// Evidence is what a Finding rests on.
type Evidence struct {
	// Flows and Sockets are the rows in question.
	Flows   []conntrack.Flow
	Sockets []sockdiag.Socket
	// Settings are those that decided, with their values.
	Settings []Setting
	// Log are lines of the kernel's log.
	Log []string
	// Missing says what was not known and would have helped.
	Missing []string
}

// Setting is a sysctl and its value.
type Setting struct {
	Name, Value string
}

// String returns name = value, as sysctl(8).
func (s Setting) String() string { return s.Name + " = " + s.Value }

// Severity is how much a trouble hurts.
type Severity uint8

// The severities.
const (
	Info     Severity = iota + 1 // worth knowing
	Warning                      // will hurt, or does so rarely
	Critical                     // hurts now
)

// String returns the severity in lower case.
func (s Severity) String() string {
	return word(s, map[Severity]string{Info: "info", Warning: "warning", Critical: "critical"})
}

// Confidence is how sure a cause is.
type Confidence uint8

// The confidences.
const (
	// Unknown is no cause named.
	Unknown Confidence = iota
	// Possible fits what was seen, as other causes do.
	Possible
	// Likely rests on state seen after the fact: rows of tables.
	Likely
	// Certain rests on the kernel's own word about the event: its reason, or
	// the event itself.
	Certain
)

// String returns the confidence in lower case.
func (c Confidence) String() string {
	return word(c, map[Confidence]string{Unknown: "unknown", Possible: "possible", Likely: "likely", Certain: "certain"})
}

func word[T ~uint8](v T, words map[T]string) string {
	if s, ok := words[v]; ok {
		return s
	}
	return fmt.Sprint(uint8(v))
}
