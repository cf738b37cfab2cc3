package conntrack

import (
	"fmt"
	"strings"
	"time"
)

// DeleteOutcome is what became of one flow that DeleteAll was given.
type DeleteOutcome uint8

// The outcomes.
const (
	Deleted     DeleteOutcome = iota + 1 // removed
	Gone                                 // not in the table any more
	Changed                              // another entry, of another ID, has the tuple now: left alone
	Refused                              // not a deletable flow, or the kernel said no
	WouldDelete                          // a dry run found it
	Unknown                              // asked to be removed, and no answer was read
	Skipped                              // not tried: DeleteAll ended before
)

var outcomeNames = [...]string{"", "deleted", "gone", "changed", "refused", "would delete", "unknown", "skipped"}

// String returns a word for the outcome, such as "deleted".
func (o DeleteOutcome) String() string {
	if o > 0 && int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// DeleteReport is what DeleteAll did, or would do: how many of the flows it took
// had which outcome. Their sum is how many it took.
type DeleteReport struct {
	Deleted, Gone, Changed, Refused int
	// WouldDelete is Deleted of a dry run.
	WouldDelete int
	// Unknown and Skipped are not 0 only beside an error: Unknown is the flows
	// that were under way when the conversation with the kernel broke, at most
	// 128, and Skipped those that had been taken and were not sent.
	Unknown, Skipped int
	// Limited says that there were more flows than DeleteOptions.Limit allowed.
	Limited  bool
	Duration time.Duration
}

// Total is how many flows were taken from the sequence.
func (r DeleteReport) Total() int {
	return r.Deleted + r.Gone + r.Changed + r.Refused + r.WouldDelete + r.Unknown + r.Skipped
}

// String tells the report in a line: "deleted 3, gone 1, in 12ms".
func (r DeleteReport) String() string {
	var parts []string
	for o := Deleted; o <= Skipped; o++ {
		if n := *r.count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", o, n))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing to delete")
	}
	if r.Limited {
		parts = append(parts, "stopped at the limit")
	}
	return strings.Join(parts, ", ") + fmt.Sprintf(", in %v", r.Duration.Round(time.Microsecond))
}

// count returns the count of an outcome.
func (r *DeleteReport) count(o DeleteOutcome) *int {
	return [...]*int{
		Deleted: &r.Deleted, Gone: &r.Gone, Changed: &r.Changed, Refused: &r.Refused,
		WouldDelete: &r.WouldDelete, Unknown: &r.Unknown, Skipped: &r.Skipped,
	}[o]
}
