package reject

// Cause is a root cause, as a word that does not change between releases.
type Cause string

// The causes that Explain knows, with the rows of its decision table. Those of
// packets that this host refused, or that others refused to this host:
const (
	// CauseEntryExpired, C01: the tracker forgot a connection that was idle
	// for longer than its timeout, while both ends kept it.
	CauseEntryExpired Cause = "entry-expired"
	// CauseEntryDeleted, C02: as C01, but the entry had time left: somebody
	// deleted it.
	CauseEntryDeleted Cause = "entry-deleted"
	// CauseEntryEvicted, C03: as C02, but the table was full, and the tracker
	// itself dropped the entry early.
	CauseEntryEvicted Cause = "entry-evicted"
	// CauseTrackedLate, C04: the connection is older than its tracking.
	CauseTrackedLate Cause = "tracked-late"
	// CauseGhost, C05: a new connection meets an entry that was picked up in
	// the middle of an earlier one and outlived it.
	CauseGhost Cause = "ghost"
	// CausePortReuse, C06: a new connection meets the entry of one that has
	// not finished closing.
	CausePortReuse Cause = "port-reuse"
	// CauseLateData, C07: the peer sends on a connection that this host has
	// long closed.
	CauseLateData Cause = "late-data"
	// CauseClosingEntryEnds, C08: no packet yet; a socket in CLOSE_WAIT
	// outlives its entry, which predicts C05 and C07.
	CauseClosingEntryEnds Cause = "closing-entry-ends"
	// CauseOutOfWindow, C09: the segment's SEQ or ACK is beyond what the
	// tracker has seen.
	CauseOutOfWindow Cause = "out-of-window"
	// CauseLateDuplicate, C10: a delayed duplicate below the window, which
	// Linux before 6.1 calls INVALID.
	CauseLateDuplicate Cause = "late-duplicate"
	// CauseInvalidReset, C11: a RST whose SEQ does not fit the connection.
	CauseInvalidReset Cause = "invalid-reset"
	// CauseInvalidFlags, C12: TCP flags that no honest stack sends.
	CauseInvalidFlags Cause = "invalid-flags"
	// CauseDamaged, C13: a wrong checksum, or headers that are cut or
	// contradict each other.
	CauseDamaged Cause = "damaged"
	// CauseWrongZone, C14: the two directions of a connection are looked up in
	// different conntrack zones.
	CauseWrongZone Cause = "wrong-zone"
	// CauseUntrackedReturn, C15: one direction of a tracked connection is
	// exempt from tracking (notrack).
	CauseUntrackedReturn Cause = "untracked-return"
	// CauseAsymmetric, C16: the two directions of a forwarded connection take
	// different ways, so that this host sees half of it.
	CauseAsymmetric Cause = "asymmetric-route"
	// CauseSynMissed, C17: the answer to a SYN that the tracker does not know.
	CauseSynMissed Cause = "syn-missed"
	// CauseBackscatter, C18: the answer to a SYN that was never sent from here:
	// somebody forges this host's address.
	CauseBackscatter Cause = "backscatter"
	// CauseNotAllowed, C19: no rule lets new connections to a service in.
	CauseNotAllowed Cause = "not-allowed"
	// CauseNoService, C20: a new connection to a port nobody listens on.
	CauseNoService Cause = "no-service"
	// CauseMissingHelper, C21: a connection that another one announced (FTP,
	// SIP), which no helper read.
	CauseMissingHelper Cause = "missing-helper"
	// CauseRuleOrder, C22: a packet of a known connection is refused: the rule
	// that refuses comes before the one that accepts those.
	CauseRuleOrder Cause = "rule-order"
	// CauseUntracked, C23: the packet is exempt from tracking (notrack), and no
	// rule accepts what is untracked.
	CauseUntracked Cause = "untracked"
	// CauseNotTranslated, C24: an INVALID packet of a translated connection
	// passes without its translation being undone, and is answered with a RST.
	CauseNotTranslated Cause = "not-translated"
	// CauseOnPath, C25: a device between the hosts refused.
	CauseOnPath Cause = "refused-on-path"
	// CauseByPeer, C26: the peer's firewall refused a new connection.
	CauseByPeer Cause = "refused-by-peer"
	// CausePeerForgot, C28: the peer's firewall refused a packet of a
	// connection that is made.
	CausePeerForgot Cause = "peer-forgot"
	// CausePeerNoService, C29: the peer says that nothing listens on a UDP port.
	CausePeerNoService Cause = "no-service-at-peer"
	// CauseBanned, C30: the rule that refused looks the source up in a set.
	CauseBanned Cause = "banned"
	// CauseOverLimit, C31: the rule that refused counts: a rate, or
	// connections.
	CauseOverLimit Cause = "over-limit"
	// CauseDiscovery, C32: a neighbour or router discovery message of IPv6 is
	// refused, without which the link does not work.
	CauseDiscovery Cause = "discovery-refused"
	// CauseFragment, C33: a fragment other than the first, which has no ports
	// for rules to match.
	CauseFragment Cause = "fragment"
	// CauseOutOfState, C34: the packet does not fit the state of its entry in
	// any other way.
	CauseOutOfState Cause = "out-of-state"
	// CauseLateReset, C35: a RST of a connection that nobody here has.
	CauseLateReset Cause = "late-reset"
	// CauseLateAnswer, C36: a UDP answer or an ICMP reply to what the tracker
	// has forgotten, or never saw.
	CauseLateAnswer Cause = "late-answer"
	// CauseNotAllowedOut, C37: this host's own rules refuse what it sends.
	CauseNotAllowedOut Cause = "not-allowed-out"
	// CauseUnknown: the evidence fits no row.
	CauseUnknown Cause = "unknown"
)

// And those of no single packet:
const (
	// CauseRateLimited, C27: more packets are refused than ICMP errors are sent
	// (net.ipv4.icmp_ratelimit): the senders of the others learn nothing.
	CauseRateLimited Cause = "icmp-rate-limited"
	// CauseTableFull, S1: packets are dropped without a word, because the
	// connection table is full.
	CauseTableFull Cause = "table-full"
	// CauseInsertFailed, S2: packets are dropped without a word, because their
	// connection would answer to the tuple of another (a clash, or NAT without
	// a free port).
	CauseInsertFailed Cause = "insert-failed"
	// CauseLongChains, S3: packets are dropped without a word, because their
	// hash chain is too long.
	CauseLongChains Cause = "chain-too-long"
	// CauseReversePath, S4: packets are dropped without a word, because the
	// route back to their sender leaves by another interface (rp_filter).
	CauseReversePath Cause = "reverse-path"
	// CauseAcceptQueueFull, S5: packets of handshakes are dropped without a
	// word, because the connections that a listener holds are not accepted.
	CauseAcceptQueueFull Cause = "accept-queue-full"
	// CauseIdleFlood, L1: nothing is refused; one source holds so many idle
	// connections that descriptors run out.
	CauseIdleFlood Cause = "idle-flood"
	// CauseStatePile, L2: nothing is refused; connections of one source pile up
	// in a state that should be short.
	CauseStatePile Cause = "state-pile"
)
