package reject

import (
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Evidence is what is known of one refused packet. Every part can be missing,
// and what was looked for and not found is told apart from what was not looked
// for: see Lookup.
type Evidence struct {
	// Packet is the refused packet: the logged one, or the one that an ICMP
	// error quotes.
	Packet Lookup[packet.Header]
	// Refusal is how the refusal was seen.
	Refusal Refusal
	// At is when the packet was seen; zero is not known.
	At time.Time
	// ICMP is the error that told the sender; its Src is who refused.
	ICMP Lookup[packet.Header]
	// State is the packet's conntrack state in the refusing host.
	State State
	// Reason is the kernel's own text for an INVALID packet.
	Reason string
	// Answer is the kernel's own text for the SYN|ACK that came before the packet
	// from the other side, if the tracker did not know that: where Entry still
	// waits for it, it was looked up in another zone.
	Answer string

	// Entry is the conntrack entry of the packet's connection on this host.
	Entry Lookup[conntrack.Flow]
	// Ended is the end of that entry, or of an earlier one of the connection,
	// when it was lately.
	Ended Lookup[Ended]
	// Socket is this host's socket of the connection.
	Socket Lookup[sockdiag.Socket]
	// Owner is the user whose socket the packet met on its way in, as the
	// kernel's log tells: proof that the socket lived at that moment.
	Owner Lookup[uint32]
	// Listener is this host's socket that listens on the packet's destination
	// port.
	Listener Lookup[sockdiag.Socket]
	// Hook is where the packet was seen.
	Hook Lookup[nflog.Hook]
	// Elsewhere is an entry of the packet's connection in another conntrack
	// zone, or one that half of the connection made: the packet's opposite in
	// its original direction.
	Elsewhere Lookup[conntrack.Flow]
	// Control is a connection between the same hosts that may have announced
	// the packet's, such as FTP's to port 21.
	Control Lookup[conntrack.Flow]
	// Rule is the rule that refused the packet.
	Rule Lookup[Rule]
	// Rules is what the rule set holds.
	Rules Lookup[Rules]
	// Local tells whether the packet's destination is an address of this host.
	Local Lookup[bool]

	// Settings are the tracker's.
	Settings Lookup[conntrack.Settings]
	// Usage is how full the table is.
	Usage Lookup[conntrack.Usage]
	// Counters is what was counted lately.
	Counters Lookup[Counters]
	// Load is what one source holds.
	Load Lookup[Load]
	// Listening is since when the ends of entries were listened to; zero is not
	// at all. What ended before is not in Ended.
	Listening time.Time
	// Kernel is the kernel's release, such as "6.12.0-1-amd64"; empty is not
	// known.
	Kernel string
}

// Rule is a rule of nftables.
type Rule struct {
	Family, Table, Chain string
	Handle               uint64
	// Text is the rule as nft(8) prints it; empty is not known. Verdict is what
	// became of the packet: "drop" for a reject too.
	Text, Verdict string
}

// Rules are rules, as nft(8) prints them, that decide some cases; empty is none.
type Rules struct {
	Notrack   string // exempts packets from tracking
	Zone      string // assigns a conntrack zone
	Helper    string // assigns a conntrack helper
	DropReset string // drops packets with the RST flag
	Legacy    bool   // there are rules of iptables-legacy, which cannot be read
}

// Counters is what the kernel counted, and Watch saw, during Window.
type Counters struct {
	Window    time.Duration
	Conntrack conntrack.Stats // of all processors
	// Refused are the packets of which Watch knows that this host refused them,
	// and Errors the ICMP errors that it sent for them.
	Refused, Errors uint64
	// RateLimited are ICMP errors that were not sent, for one peer's limit or
	// for that of all (IcmpOutRateLimitHost, IcmpOutRateLimitGlobal and those
	// of ICMPv6); RateLimited6 those of them that are ICMPv6's.
	RateLimited, RateLimited6 uint64
	// ReversePath are packets of IPv4 that were dropped because the route to
	// their sender leaves by another interface (TcpExtIPReversePathFilter), and
	// Overflows packets of handshakes that found a listener's queue full
	// (TcpExtListenOverflows).
	ReversePath, Overflows uint64
}

// Load is what one source holds.
type Load struct {
	Source netip.Prefix
	State  sockdiag.State // of its connections
	Count  uint64
	Limit  uint64
	// Idle tells that the connections carry nothing.
	Idle bool
	// Descriptors are those that the process has open, of Allowed.
	Descriptors, Allowed uint64
}

// Ended is how an entry ended.
type Ended struct {
	Event conntrack.Event
	At    time.Time
}

// Lookup is a value that was found, or was looked for and not found, or, as the
// zero Lookup, was not looked for.
type Lookup[T any] struct {
	Value  T
	Result Result
}

// Result is the outcome of a Lookup.
type Result uint8

// The outcomes.
const (
	NotLooked Result = iota
	Absent
	Present
)

// Found returns a Lookup that found v.
func Found[T any](v T) Lookup[T] { return Lookup[T]{v, Present} }

// NotFound returns a Lookup that found nothing.
func NotFound[T any]() Lookup[T] { return Lookup[T]{Result: Absent} }

// Refusal is how a refusal was seen.
type Refusal uint8

// The ways a refusal is seen.
const (
	RefusalUnseen Refusal = iota // none was: a prediction
	Logged                       // this host's firewall logged the packet
	ICMPSent                     // this host sent an ICMP error
	ICMPReceived                 // this host received an ICMP error about its own packet
	ResetSent                    // this host's firewall answered with a RST
	ResetReceived                // another answered this host's packet with a RST that no socket sent
	Traced                       // the rule set's trace shows the verdict
	Counted                      // only counters tell: the packets themselves were not seen
)

// State is the conntrack state of a packet, as rules know it (ct state).
type State uint8

// The states of a packet.
const (
	StateUnknown State = iota
	New
	Established
	Related
	Invalid
	Untracked
)

var stateNames = [...]string{"unknown", "new", "established", "related", "invalid", "untracked"}

// String returns nft's word for the state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return stateNames[StateUnknown]
}

// ParsePrefix finds the state's word in a log prefix, in any case.
func ParsePrefix(prefix string) State {
	notWord := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
	for _, word := range strings.FieldsFunc(prefix, notWord) {
		for s, name := range stateNames {
			if s != 0 && strings.EqualFold(word, name) {
				return State(s)
			}
		}
	}
	return StateUnknown
}

// PacketTuple returns the tuple of a packet's direction.
func PacketTuple(h packet.Header) conntrack.Tuple {
	return conntrack.Tuple{
		Src: h.Src, Dst: h.Dst, SrcPort: h.SrcPort, DstPort: h.DstPort,
		Proto: conntrack.Proto(h.Proto), ICMPType: h.ICMPType, ICMPCode: h.ICMPCode, ICMPID: h.ICMPID,
	}
}
