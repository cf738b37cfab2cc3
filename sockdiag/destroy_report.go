package sockdiag

import (
	"fmt"
	"strings"
	"time"
)

// DestroyOutcome is what became of one socket that DestroyAll was given.
type DestroyOutcome uint8

// The outcomes.
const (
	Destroyed    DestroyOutcome = iota + 1 // ended
	Gone                                   // not there any more
	Refused                                // no socket that can be destroyed, or the kernel said no
	Protected                              // left alone: not asked for by DestroyOptions
	WouldDestroy                           // a dry run found it
	Unknown                                // asked to be destroyed, and no answer was read
	Skipped                                // not tried: DestroyAll ended before
)

var outcomeNames = [...]string{"", "destroyed", "gone", "refused", "protected", "would destroy", "unknown", "skipped"}

// String returns a word for the outcome, such as "destroyed".
func (o DestroyOutcome) String() string {
	if o > 0 && int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// DestroyReport is what DestroyAll did, or would do: how many of the sockets it
// took had which outcome. Their sum is how many it took.
type DestroyReport struct {
	Destroyed, Gone, Refused, Protected int
	// WouldDestroy is Destroyed of a dry run.
	WouldDestroy int
	// Unknown and Skipped are not 0 only beside an error: Unknown is the
	// sockets that were asked about when the conversation with the kernel
	// broke, at most 128, and Skipped those that had been taken and were not
	// asked about.
	Unknown, Skipped int
	// Limited says that there were more sockets than DestroyOptions.Limit
	// allowed.
	Limited  bool
	Duration time.Duration
}

// Total is how many sockets were taken from the sequence.
func (r DestroyReport) Total() int {
	return r.Destroyed + r.Gone + r.Refused + r.Protected + r.WouldDestroy + r.Unknown + r.Skipped
}

// String tells the report in a line: "destroyed 3, gone 1, in 12ms".
func (r DestroyReport) String() string {
	var parts []string
	for o := Destroyed; o <= Skipped; o++ {
		if n := *r.count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", o, n))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to destroy")
	}
	if r.Limited {
		parts = append(parts, "stopped at the limit")
	}
	return strings.Join(parts, ", ") + fmt.Sprintf(", in %v", r.Duration.Round(time.Microsecond))
}

// count returns the count of an outcome.
func (r *DestroyReport) count(o DestroyOutcome) *int {
	return [...]*int{
		Destroyed: &r.Destroyed, Gone: &r.Gone, Refused: &r.Refused, Protected: &r.Protected,
		WouldDestroy: &r.WouldDestroy, Unknown: &r.Unknown, Skipped: &r.Skipped,
	}[o]
}
