package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/detect/packet"
)

// row is one row of the decision table.
type row struct {
	rule    string
	cause   Cause
	match   func(*Evidence) bool
	explain func(*Evidence, *Verdict)
}

// table is tried in order; the first match wins.
var table = []row{
	{"C25", CauseOnPath, onPath, explainOnPath},
	{"C26", CauseByPeer, func(e *Evidence) bool { return e.own() && e.opens() }, explainByPeer},
	{"C28", CausePeerForgot, func(e *Evidence) bool { return e.own() && e.goesOn() }, explainPeerForgot},
	{"C05", CauseGhost, isGhost, explainGhost},
	{"C06", CausePortReuse, isPortReuse, explainPortReuse},
	{"C02", CauseEntryDeleted, func(e *Evidence) bool { return forgotten(e) && e.removed() }, explainDeleted},
	{"C01", CauseEntryExpired, forgotten, explainForgotten},
	{"C07", CauseLateData, isLateData, explainLateData},
	{"C19", CauseNotAllowed, func(e *Evidence) bool { return refusedNew(e) && e.Listener.Result == Present }, explainNotAllowed},
	{"C20", CauseNoService, func(e *Evidence) bool { return refusedNew(e) && e.Listener.Result == Absent }, explainNoService},
	{"C08", CauseClosingEntryEnds, isClosingEntry, explainClosingEntry},
}

// Explain finds the first row of the decision table that the evidence fits.
// Evidence that fits none gets CauseUnknown, its facts, and what is missing.
//
// The confidence is Certain where the kernel itself told of the event (its
// reason, or the end of the entry), Likely where tables read after it agree,
// Possible where an ICMP error is all there is.
func Explain(e Evidence) Verdict {
	v := Verdict{Evidence: e, Facts: e.facts()}
	if e.Packet.Result == Present {
		v.Flow = PacketTuple(e.Packet.Value)
	}
	for _, r := range table {
		if r.match(&e) {
			v.Rule, v.Cause = r.rule, r.cause
			r.explain(&e, &v)
			return v
		}
	}
	explainUnknown(&e, &v)
	return v
}

func explainUnknown(e *Evidence, v *Verdict) {
	v.Cause = CauseUnknown
	v.Summary = "the evidence fits no known cause"
	lookups := []struct {
		missing      bool
		fact, decide string
	}{
		{e.Packet.Result != Present, "the refused packet", "nft monitor trace"},
		{e.cut(), "the packet's TCP flags: too little of it was quoted", "tcpdump -ni any tcp"},
		{e.State == StateUnknown && !e.own(), "the packet's conntrack state", "nft monitor trace"},
		{e.Entry.Result == NotLooked, "the conntrack entry", "conntrack -L"},
		{e.Socket.Result == NotLooked, "the socket, on the host that has it", "ss -tuanoe"},
		{e.refusedHere() && e.opens() && e.Listener.Result == NotLooked, "whether a socket listens, on the host that has it", "ss -tlne"},
		{e.State == Invalid && e.Reason == "", "the kernel's reason", "sysctl net.netfilter.nf_conntrack_log_invalid=255"},
		{e.Settings.Result != Present, "the tracker's settings", "sysctl net.netfilter"},
	}
	for _, l := range lookups {
		if l.missing {
			v.missing(l.fact, l.decide)
		}
	}
	if len(v.Missing) == 0 {
		v.missing("the rule that refused", "nft monitor trace")
	}
}

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func secs(d time.Duration) string { return fmt.Sprint(int64(d / time.Second)) }

// icmpName is the ICMP error in words.
func icmpName(e *Evidence) string {
	if e.ICMP.Result != Present {
		return "no ICMP error was seen"
	}
	h := e.ICMP.Value
	return packet.ICMPName(h.Proto == packet.ProtoICMPv6, h.ICMPType, h.ICMPCode)
}
