package reject

import (
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// facts says in words all that the evidence holds.
func (e *known) facts() []string {
	var f factList
	e.packetFacts(&f)
	e.tableFacts(&f)
	e.socketFacts(&f)
	e.hostFacts(&f)
	return f
}

type factList []string

func (f *factList) add(format string, args ...any) {
	*f = append(*f, plain(fmt.Sprintf(format, args...)))
}

func (e *known) packetFacts(f *factList) {
	if e.Packet.Result == Present {
		seen := ""
		if e.State != StateUnknown {
			seen = fmt.Sprintf(", conntrack state %v", e.State)
		}
		if e.Hook.Result == Present {
			seen += fmt.Sprintf(", hook %v", e.Hook.Value)
		}
		f.add("packet %v%s", e.Packet.Value, seen)
	}
	if e.Reason != "" {
		f.add("the kernel's reason: %s", strings.TrimSpace(e.Reason))
	}
	if e.ICMP.Result == Present {
		f.add("ICMP error %v: %s", e.ICMP.Value, icmpName(e))
	}
	if rule := e.rule(); rule != "" {
		f.add("refused by %s", rule)
	}
}

func (e *known) tableFacts(f *factList) {
	switch e.Entry.Result {
	case Present:
		f.add("entry: %v", e.Entry.Value)
	case Absent:
		f.add("no conntrack entry for the connection")
	}
	if e.Elsewhere.Result == Present {
		f.add("entry elsewhere: %v", e.Elsewhere.Value)
	}
	if e.Ended.Result == Present {
		which := "the"
		if e.Entry.Result == Present {
			which = "an earlier"
		}
		f.add("%s entry %s at %s: %v", which, howEnded(e.Ended.Value.Event), e.Ended.Value.At.Format(time.TimeOnly),
			e.Ended.Value.Event.Flow)
	}
	if e.Control.Result == Present {
		f.add("control connection: %v", e.Control.Value)
	}
}

func howEnded(e conntrack.Event) string {
	switch e.Reason() {
	case conntrack.ReasonExpired:
		return "expired"
	case conntrack.ReasonDeleted:
		return fmt.Sprintf("was deleted by netlink port %d", e.Port)
	case conntrack.ReasonRemoved:
		return "was removed by the kernel"
	}
	return "ended" // an old kernel does not tell how
}

func (e *known) socketFacts(f *factList) {
	switch e.Socket.Result {
	case Present:
		s := e.Socket.Value
		f.add("socket: %v %v > %v, inode %d", s.State, s.Local, s.Remote, s.Inode)
	case Absent:
		f.add("no socket for the connection")
	}
	if e.Owner.Result == Present {
		f.add("the packet met a live socket of user %d", e.Owner.Value)
	}
	switch e.Listener.Result {
	case Present:
		f.add("a socket listens on %v", e.Listener.Value.Local)
	case Absent:
		f.add("nothing listens on port %d", e.Packet.Value.DstPort)
	}
}

func (e *known) hostFacts(f *factList) {
	if e.Usage.Result == Present {
		f.add("table: %v", e.Usage.Value)
	}
	if c := e.Counters.Value; e.Counters.Result == Present {
		f.add("in %v: %v", c.in(), c.Conntrack)
		f.add("in %v: %d packets refused, %d ICMP errors sent, %d held back", c.in(), c.Refused, c.Errors, c.RateLimited)
		if c.ReversePath+c.Overflows > 0 {
			f.add("in %v: %d packets dropped by the reverse path filter, %d for a full accept queue", c.in(), c.ReversePath, c.Overflows)
		}
	}
	if l := e.Load.Value; e.Load.Result == Present {
		f.add("%v has %d connections in %v, limit %d", l.who(), l.Count, l.State, l.Limit)
		if l.Allowed > 0 {
			f.add("%d of %d descriptors are open", l.Descriptors, l.Allowed)
		}
	}
}

// rule names the rule that refused: "rule handle 12 of inet filter input: tcp dport
// 22 drop". It is empty if that is not known.
func (e *known) rule() string {
	r := e.Rule.Value
	if e.Rule.Result != Present {
		return ""
	}
	name := fmt.Sprintf("rule handle %d of %s %s %s", r.Handle, r.Family, r.Table, r.Chain)
	if r.Handle == 0 {
		name = fmt.Sprintf("the policy of %s %s %s", r.Family, r.Table, r.Chain)
	}
	if r.Text != "" {
		name += ": " + r.Text
	}
	return plain(name)
}

// byRule names the rule in a sentence, or asks for it.
func (e *known) byRule(v *Verdict) {
	if rule := e.rule(); rule != "" {
		v.Summary += "; refused by " + rule
		return
	}
	v.missing("which rule refused", "nft monitor trace")
}
