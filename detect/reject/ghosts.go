package reject

import (
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
)

const synInReply = "(index 0) in dir 1 invalid, state "

// C05: a SYN in the reply direction of an entry that is ESTABLISHED and
// [UNREPLIED].
func isGhost(e *Evidence) bool {
	f := e.Entry.Value
	return e.refusedHere() && e.opens() && e.reversed() && f.Unreplied() &&
		f.Has(conntrack.FieldTCP) && f.TCP.State == conntrack.TCPEstablished
}

func explainGhost(e *Evidence, v *Verdict) {
	f := e.Entry.Value
	v.Confidence = detect.Likely
	if strings.Contains(e.Reason, synInReply+"ESTABLISHED") {
		v.Confidence = detect.Certain
	} else {
		v.missing("the kernel's reason for the packet (Config.Reasons)", "sysctl net.netfilter.nf_conntrack_log_invalid=6")
	}
	v.Summary = fmt.Sprintf("ghost entry %v: picked up in the middle of an earlier connection (tcp_loose)%s, it outlived "+
		"the connection and lasts another %ds; the new SYN comes in its reply direction, which makes it INVALID",
		f, howRaised(e), int64(f.Timeout/time.Second))
	s := e.Settings.Value
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_loose", bit(s.TCPLoose))...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_timeout_close_wait", secs(s.Timeouts.TCPCloseWait))...)
	v.Facts = append(v.Facts, e.setting("nf_conntrack_tcp_timeout_unacknowledged", secs(s.Timeouts.TCPUnacknowledged))...)
	v.fix("delete the entry: `"+detect.DeleteCommand(&f)+"`",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request: the peer then answers the "+
			"late data with a RST, and both sides are clean",
		"let the application close when the peer has closed (end of file)",
		"`sysctl net.netfilter.nf_conntrack_tcp_loose=0`: nothing is picked up in the middle; connections that live "+
			"while the table is flushed are cut")
}

// howRaised says how the entry before a ghost ended, if that was seen.
func howRaised(e *Evidence) string {
	end := e.Ended.Value.Event
	if e.Ended.Result != Present || !end.Expired() {
		return ""
	}
	return fmt.Sprintf(" whose entry had expired in %v at %s, with the application still at work", end.Flow.TCP.State,
		e.Ended.Value.At.Format(time.TimeOnly))
}

// C06: the same with any other state, which the kernel's reason names.
func isPortReuse(e *Evidence) bool {
	return e.refusedHere() && e.opens() && e.reversed() && e.Entry.Value.Has(conntrack.FieldTCP) &&
		(e.State == Invalid || e.Reason != "")
}

func explainPortReuse(e *Evidence, v *Verdict) {
	f := e.Entry.Value
	v.Confidence = detect.Likely
	if strings.Contains(e.Reason, synInReply) {
		v.Confidence = detect.Certain
	}
	v.Summary = fmt.Sprintf("a new connection uses the addresses and ports of entry %v, which is not over and was begun "+
		"from this side: a SYN in the reply direction is INVALID", f)
	v.fix("delete the entry if its connection is dead: `"+detect.DeleteCommand(&f)+"`", "use other source ports")
}
