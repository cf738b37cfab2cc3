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
	match   func(*known) bool
	explain func(*known, *Verdict)
}

// table is tried in order; the first match wins.
var table = []row{
	// Another refused a packet of this host.
	{"C25", CauseOnPath, onPath, explainOnPath},
	{"C29", CausePeerNoService, isPeerNoService, explainPeerNoService},
	{"C28", CausePeerForgot, isPeerForgot, explainPeerForgot},
	{"C26", CauseByPeer, isByPeer, explainByPeer},

	// This host refused: whatever the connection, the rule or the packet says why.
	{"C30", CauseBanned, isBanned, explainBanned},
	{"C31", CauseOverLimit, isOverLimit, explainOverLimit},
	{"C32", CauseDiscovery, isDiscovery, explainDiscovery},
	{"C33", CauseFragment, isFragment, explainFragment},

	// INVALID: the packet itself, then against its entry.
	{"C13", CauseDamaged, isDamaged, explainDamaged},
	{"C12", CauseInvalidFlags, isInvalidFlags, explainInvalidFlags},
	{"C05", CauseGhost, isGhost, explainGhost},
	{"C06", CausePortReuse, isPortReuse, explainPortReuse},
	{"C24", CauseNotTranslated, isNotTranslated, explainNotTranslated},
	{"C11", CauseInvalidReset, isInvalidReset, explainInvalidReset},
	{"C10", CauseLateDuplicate, isLateDuplicate, explainLateDuplicate},
	{"C14", CauseWrongZone, isWrongZone, explainWrongZone},
	{"C15", CauseUntrackedReturn, isUntrackedReturn, explainUntrackedReturn},
	{"C16", CauseAsymmetric, isAsymmetric, explainAsymmetric},
	{"C34", CauseOutOfState, isOutOfState, explainOutOfState},
	{"C09", CauseOutOfWindow, isOutOfWindow, explainOutOfWindow},

	// The tracker knows the connection, or was told not to.
	{"C22", CauseRuleOrder, isRuleOrder, explainRuleOrder},
	{"C23", CauseUntracked, isUntracked, explainUntracked},

	// The tracker does not know the connection, which is not new.
	{"C03", CauseEntryEvicted, isEvicted, explainEvicted},
	{"C02", CauseEntryDeleted, isDeleted, explainDeleted},
	{"C04", CauseTrackedLate, isTrackedLate, explainTrackedLate},
	{"C01", CauseEntryExpired, isForgotten, explainForgotten},
	{"C17", CauseSynMissed, isSynMissed, explainSynMissed},
	{"C18", CauseBackscatter, isBackscatter, explainBackscatter},
	{"C35", CauseLateReset, isLateReset, explainLateReset},
	{"C07", CauseLateData, isLateData, explainLateData},
	{"C36", CauseLateAnswer, isLateAnswer, explainLateAnswer},

	// The connection is new.
	{"C21", CauseMissingHelper, isMissingHelper, explainMissingHelper},
	{"C37", CauseNotAllowedOut, isNotAllowedOut, explainNotAllowedOut},
	{"C19", CauseNotAllowed, isNotAllowed, explainNotAllowed},
	{"C20", CauseNoService, isNoService, explainNoService},

	// There is no packet.
	{"C08", CauseClosingEntryEnds, isClosingEntry, explainClosingEntry},
	{"S1", CauseTableFull, isTableFull, explainTableFull},
	{"S3", CauseLongChains, isLongChains, explainLongChains},
	{"S2", CauseInsertFailed, isInsertFailed, explainInsertFailed},
	{"S4", CauseReversePath, isReversePath, explainReversePath},
	{"S5", CauseAcceptQueueFull, isAcceptQueueFull, explainAcceptQueueFull},
	{"C27", CauseRateLimited, isRateLimited, explainRateLimited},
	{"L1", CauseIdleFlood, isIdleFlood, explainIdleFlood},
	{"L2", CauseStatePile, isStatePile, explainStatePile},
}

// Explain finds the first row of the decision table that the evidence fits.
// Evidence that fits none gets CauseUnknown, its facts, and what is missing.
// Evidence without a packet is of a socket whose entry ends, of Counters and
// Usage, or of a Load.
//
// The confidence is Certain where the kernel itself told of the event (its
// reason, the end of the entry, the rule that refused, its counters), Likely
// where tables read after it agree, Possible where other causes fit as well,
// as of an ICMP error from elsewhere.
func Explain(e Evidence) Verdict {
	k := newKnown(&e)
	for _, r := range table {
		if r.match(k) {
			return k.verdict(r)
		}
	}
	return k.verdict(row{"", CauseUnknown, nil, explainUnknown})
}

// ExplainAll returns a verdict for every row that the evidence fits, Explain's
// first: counters can tell of several troubles at once. It is empty for
// CauseUnknown.
func ExplainAll(e Evidence) []Verdict {
	var all []Verdict
	k := newKnown(&e)
	for _, r := range table {
		if r.match(k) {
			all = append(all, k.verdict(r))
		}
	}
	return all
}

func (e *known) verdict(r row) Verdict {
	v := Verdict{Rule: r.rule, Cause: r.cause, Evidence: *e.Evidence, Facts: e.facts()}
	if e.Packet.Result == Present {
		v.Flow = PacketTuple(e.Packet.Value)
	}
	r.explain(e, &v)
	return v
}

func explainUnknown(e *known, v *Verdict) {
	v.Summary = "the evidence fits no known cause"
	if rule := e.rule(); rule != "" {
		v.Summary += "; refused by " + rule
	}
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
func icmpName(e *known) string {
	if e.ICMP.Result != Present {
		if e.Refusal == ResetReceived {
			return "a RST that no socket sent"
		}
		return "no ICMP error was seen"
	}
	h := e.ICMP.Value
	return packet.ICMPName(h.Proto == packet.ProtoICMPv6, h.ICMPType, h.ICMPCode)
}
