package reject

import (
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
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
	// Fix is what to do, the most direct first.
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
	if v.Count > 1 {
		times = fmt.Sprintf(" (%d times)", v.Count)
	}
	return fmt.Sprintf("%s%s, %s: %s", v.Cause, times, v.Confidence, v.Summary)
}

// fix adds what to do.
func (v *Verdict) fix(steps ...string) { v.Fix = append(v.Fix, steps...) }

// missing adds a fact that was not known, and the command that would tell it.
func (v *Verdict) missing(fact, decide string) {
	v.Missing = append(v.Missing, fact)
	if v.Decide == "" {
		v.Decide = decide
	}
}

// facts says in words all that the evidence holds.
func (e *Evidence) facts() []string {
	var facts []string
	add := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	switch {
	case e.Packet.Result != Present:
	case e.State == StateUnknown:
		add("packet %v", e.Packet.Value)
	default:
		add("packet %v, conntrack state %v", e.Packet.Value, e.State)
	}
	if e.Reason != "" {
		add("the kernel's reason: %s", strings.TrimSpace(e.Reason))
	}
	if e.ICMP.Result == Present {
		add("ICMP error %v: %s", e.ICMP.Value, icmpName(e))
	}
	switch e.Entry.Result {
	case Present:
		add("entry: %v", e.Entry.Value)
	case Absent:
		add("no conntrack entry for the connection")
	}
	if e.Ended.Result == Present {
		which := "the"
		if e.Entry.Result == Present {
			which = "an earlier"
		}
		add("%s entry %s at %s: %v", which, howEnded(e.Ended.Value.Event), e.Ended.Value.At.Format(time.TimeOnly),
			e.Ended.Value.Event.Flow)
	}
	switch e.Socket.Result {
	case Present:
		s := e.Socket.Value
		add("socket: %v %v > %v, inode %d", s.State, s.Local, s.Remote, s.Inode)
	case Absent:
		add("no socket for the connection")
	}
	if e.Owner.Result == Present {
		add("the packet met a live socket of user %d", e.Owner.Value)
	}
	switch e.Listener.Result {
	case Present:
		add("a socket listens on %v", e.Listener.Value.Local)
	case Absent:
		add("nothing listens on port %d", e.Packet.Value.DstPort)
	}
	return facts
}

func howEnded(e conntrack.Event) string {
	switch {
	case e.Expired():
		return "expired"
	case e.Flow.Has(conntrack.FieldTimeout):
		return "was deleted or evicted"
	}
	return "ended" // an old kernel does not tell how
}
