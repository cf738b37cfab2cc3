package packet

import "strconv"

// Anomaly is something odd about the flags of a TCP segment, which no TCP in
// good health sends.
type Anomaly uint8

// The anomalies. Zero is none. In all but PSHRST and SYNData, conntrack calls
// the segment INVALID and touches no entry.
const (
	// NoFlags is a segment without FIN, SYN, RST, PSH, ACK and URG: a NULL scan.
	NoFlags Anomaly = iota + 1
	// SYNFIN opens and closes at once.
	SYNFIN
	// SYNRST opens and resets at once.
	SYNRST
	// RSTFIN resets and closes at once.
	RSTFIN
	// PSHRST delivers and resets at once.
	PSHRST
	// XMAS is FIN, PSH and URG without ACK: an Xmas scan.
	XMAS
	// FINNoACK closes without acknowledging: a FIN scan.
	FINNoACK
	// SYNData opens with data and without TCP fast open.
	SYNData
	// InvalidFlags is any other set of flags that conntrack does not take.
	InvalidFlags
)

var anomalyNames = [...]string{
	"none", "no flags", "SYN|FIN", "SYN|RST", "RST|FIN", "PSH|RST", "Xmas", "FIN without ACK", "SYN with data", "invalid flags",
}

const invalidCombination = "; conntrack: INVALID, invalid tcp flag combination"

var anomalyMeanings = [...]string{
	"",
	"a NULL scan: a closed port answers with a RST, an open one not at all" + invalidCombination,
	"a scan, or an attempt to pass filters that look at SYN or FIN alone" + invalidCombination,
	"a scan, or an attempt to pass filters that look at SYN or RST alone" + invalidCombination,
	"a broken stack or a crafted segment: a RST takes no FIN with it" + invalidCombination,
	"data that the RST beside it throws away, unless a rule drops the RST and the connection hangs; " +
		"conntrack: valid, a RST as any, and the entry goes to CLOSE",
	"an Xmas scan: a closed port answers with a RST, an open one not at all" + invalidCombination,
	"a FIN scan: a closed port answers with a RST, an open one not at all" + invalidCombination,
	"data before the handshake, which the receiver throws away: a scan, a flood, or fast open without a cookie " +
		"(net.ipv4.tcp_fastopen = 4 of the sender); conntrack: valid, a SYN as any",
	"a broken stack or a crafted segment" + invalidCombination,
}

// String names the anomaly: "PSH|RST".
func (a Anomaly) String() string { return nameOf(a, anomalyNames[:]) }

// Meaning says in one sentence who sends such segments or what becomes of
// them, and what conntrack does with them. It is empty for none.
func (a Anomaly) Meaning() string {
	if int(a) < len(anomalyMeanings) {
		return anomalyMeanings[a]
	}
	return ""
}

// nameOf is the name of a value, or its number.
func nameOf[T ~uint8](v T, names []string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

// Valid reports whether conntrack takes a segment with these flags; otherwise
// it is INVALID, for an "invalid tcp flag combination". PSH, ECE and CWR do not
// count (tcp_valid_flags in net/netfilter/nf_conntrack_proto_tcp.c).
func (f TCPFlags) Valid() bool {
	switch f &^ (PSH | ECE | CWR) {
	case SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG:
		return true
	}
	return false
}

// Anomaly returns what is odd about the flags, 0 if nothing is. It does not
// know of data: see [Header.Anomaly].
func (f TCPFlags) Anomaly() Anomaly {
	switch f = f &^ (ECE | CWR); {
	case f == 0:
		return NoFlags
	case f.Has(SYN | FIN):
		return SYNFIN
	case f.Has(SYN | RST):
		return SYNRST
	case f.Has(RST | FIN):
		return RSTFIN
	case f == FIN|PSH|URG:
		return XMAS
	case f.Has(FIN) && !f.Has(ACK):
		return FINNoACK
	case !f.Valid():
		return InvalidFlags
	case f.Has(PSH | RST):
		return PSHRST
	}
	return 0
}

// Anomaly returns what is odd about the flags of a TCP segment and how sure
// that is, or 0 and Unknown if nothing is, or the flags are not there.
//
// b are the bytes that h was decoded from, from its own IP header on (for a
// quoted header, the Payload of the packet around it). They tell whether a SYN
// with data has the option of TCP fast open (RFC 7413), which makes it a proper
// one. If they end before the options do, or b is nil, SYNData is but Possible.
func (h Header) Anomaly(b []byte) (Anomaly, Confidence) {
	if !h.Have.Has(HaveFlags) {
		return 0, Unknown
	}
	if a := h.Flags.Anomaly(); a != 0 {
		return a, Certain
	}
	if !h.Flags.Has(SYN) || h.Flags.Has(ACK) || h.DataLen <= 0 && h.PayloadLen == 0 {
		return 0, Unknown
	}
	options, whole := h.tcpOptions(b)
	switch {
	case fastOpen(options):
		return 0, Unknown
	case whole:
		return SYNData, Certain
	}
	return SYNData, Possible
}
