package reject

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// Reason is what the tracker says of a packet that it calls INVALID, or lets
// through without believing it: Evidence.Reason, read. The zero Reason is none.
type Reason struct {
	Kind ReasonKind
	// Proto is the protocol whose tracker said it (IPPROTO_*); 0 is not told.
	Proto uint8
	// Index is what the segment is to the tracker (0 SYN, 1 SYN|ACK, 2 FIN,
	// 3 ACK, 4 RST, 5 none of these), Reply its direction and State the entry's
	// before it: of ReasonState and ReasonIgnored, if Exact.
	Index uint8
	Reply bool
	State conntrack.TCPState
	// Bound is the first sequence number beyond the window, or the last below
	// it, and of ReasonOvershot the bytes beyond: if Exact.
	Bound uint32
	// Exact tells that the text has the numbers: Linux 5.10 has none, 6.1 has
	// them all.
	Exact bool
}

// ReasonKind is the kind of a Reason.
type ReasonKind uint8

// The kinds of reasons, with the words of Linux 6.18.
const (
	ReasonNone      ReasonKind = iota
	ReasonNew                  // "invalid new": it cannot begin a connection; silent before Linux 6.7
	ReasonState                // "packet (index I) in dir D invalid, state S"
	ReasonIgnored              // "packet (index I) in dir D ignored, state S", "challenge-ack ignored"
	ReasonSeqOver              // "SEQ is over upper bound N (over the window of the receiver)"
	ReasonAckOver              // "ACK is over upper bound N (ACKed data not seen yet)"
	ReasonSeqUnder             // "SEQ is under lower bound N (already ACKed data retransmitted)"
	ReasonAckUnder             // "ignored ACK under lower bound N (possible overly delayed)"
	ReasonOvershot             // "N bytes more than expected"
	ReasonReset                // "invalid rst"
	ReasonFlags                // "invalid tcp flag combination"
	ReasonChecksum             // "bad checksum" and the like
	ReasonTruncated            // "truncated packet" and the like
	ReasonForeign              // "outer daddr A != inner B": an ICMP error that was not sent to its connection's host
	ReasonOther                // any other
)

// reasonTexts are the texts that have no numbers, in lower case: of Linux 4.19
// (nf_ct_tcp: …), 5.10, 6.1 and 6.18, net/netfilter/nf_conntrack_proto_*.c.
var reasonTexts = map[string]ReasonKind{
	"invalid new":                  ReasonNew,
	"invalid state":                ReasonState,
	"invalid packet ignored":       ReasonIgnored,
	"challenge-ack ignored":        ReasonIgnored,
	"invalid rst":                  ReasonReset,
	"invalid tcp flag combination": ReasonFlags,
	"bad checksum":                 ReasonChecksum,
	"bad tcp checksum":             ReasonChecksum,
	"bad hw icmp checksum":         ReasonChecksum,
	"icmpv6 checksum failed":       ReasonChecksum,
	"checksum missing":             ReasonChecksum, // UDP-Lite
	"invalid checksum coverage":    ReasonTruncated,
	"short packet":                 ReasonTruncated,
	"short redirect":               ReasonTruncated,
	"truncated packet":             ReasonTruncated,
	"truncated/malformed packet":   ReasonTruncated,
}

// reasonForms are the texts with numbers, and their forms without.
var reasonForms = []struct {
	kind ReasonKind
	form *regexp.Regexp
}{
	{ReasonState, regexp.MustCompile(`^packet \(index (?P<index>\d)\) in dir (?P<dir>[01]) invalid, state (?P<state>\w+)$`)},
	{ReasonIgnored, regexp.MustCompile(`^packet \(index (?P<index>\d)\) in dir (?P<dir>[01]) ignored, state (?P<state>\w+)$`)},
	{ReasonIgnored, regexp.MustCompile(`^invalid packet ignored in state `)},
	{ReasonSeqOver, regexp.MustCompile(`^SEQ is over (the )?upper bound ((?P<bound>\d+) )?\(`)},
	{ReasonAckOver, regexp.MustCompile(`^ACK is over (the )?upper bound ((?P<bound>\d+) )?\(`)},
	{ReasonSeqUnder, regexp.MustCompile(`^SEQ is under (the )?lower bound ((?P<bound>\d+) )?\(`)},
	{ReasonAckUnder, regexp.MustCompile(`^(ignored ACK under|ACK is under the) lower bound ((?P<bound>\d+) )?\(`)},
	{ReasonOvershot, regexp.MustCompile(`^(?P<bound>\d+) bytes more than expected$`)},
	{ReasonForeign, regexp.MustCompile(`^outer daddr \S+ != inner `)},
}

// reasonPrefix is what comes before the text.
var reasonPrefix = regexp.MustCompile(`^nf_ct_(proto_(\d{1,3})|\w+): `)

// reasonProtos are the protocols as old kernels name them.
var reasonProtos = map[string]uint8{
	"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "udplite": packet.ProtoUDPLite, "icmp": packet.ProtoICMP,
	"icmpv6": packet.ProtoICMPv6, "sctp": packet.ProtoSCTP, "dccp": packet.ProtoDCCP,
}

// ParseReason reads the kernel's text: the prefix of a packet of NFLOG group 0,
// such as "nf_ct_proto_6: invalid rst ". Of an empty text it makes the zero
// Reason, of one that it does not know a ReasonOther.
func ParseReason(text string) Reason {
	var r Reason
	if m := reasonPrefix.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		r.Proto = reasonProtos[m[1]]
		if n, err := strconv.ParseUint(m[2], 10, 8); err == nil {
			r.Proto = uint8(n)
		}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return Reason{}
	}
	if r.Kind = reasonTexts[strings.ToLower(text)]; r.Kind == ReasonNone {
		r.readForm(text)
	}
	return r
}

func (r *Reason) readForm(text string) {
	r.Kind = ReasonOther
	for _, f := range reasonForms {
		m := f.form.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		r.Kind = f.kind
		for i, name := range f.form.SubexpNames() {
			if name != "" && m[i] != "" {
				r.set(name, m[i])
			}
		}
		return
	}
}

func (r *Reason) set(name, value string) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		n = 0
	}
	switch name {
	case "index":
		r.Index = uint8(n)
	case "dir":
		r.Reply = n == 1
	case "state":
		r.State, r.Exact = conntrack.ParseTCPState(value)
	case "bound":
		r.Bound, r.Exact = uint32(n), err == nil
	}
}

// Passes reports a reason that did not make the packet INVALID: the tracker
// let it through as ESTABLISHED and left the entry as it was. Linux before 6.1
// called segments below the window INVALID; its text has no numbers.
func (r Reason) Passes() bool {
	switch r.Kind {
	case ReasonIgnored, ReasonOvershot:
		return true
	case ReasonSeqUnder, ReasonAckUnder:
		return r.Exact
	}
	return false
}

// beyond is how far a segment is outside of the bound, in bytes; ok is false if
// the text has no bound, or the segment is not outside by what is known of it:
// of SACK blocks and of sequence numbers that a helper shifted nothing is.
func (r Reason) beyond(h packet.Header) (bytes uint32, ok bool) {
	var n int32 // sequence numbers wrap
	switch r.Kind {
	case ReasonSeqOver:
		n = int32(h.Seq-r.Bound) + 1
	case ReasonAckOver:
		n = int32(h.Ack-r.Bound) + 1
	case ReasonSeqUnder:
		n = int32(r.Bound-h.Seq-uint32(max(h.DataLen, 0))) + 1
	case ReasonAckUnder:
		n = int32(r.Bound-h.Ack) + 1
	case ReasonOvershot:
		return r.Bound, r.Exact
	}
	return uint32(max(n, 0)), r.Exact && n > 0 && h.Have.Has(packet.HaveFlags)
}
