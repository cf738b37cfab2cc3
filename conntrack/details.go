package conntrack

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unique"
)

// Details are the parts that few entries have. A Flow holds them as one word,
// so that they cost the others nothing: see Flow.Details. It is comparable.
type Details struct {
	// Labels are the bits that rules have set (CTA_LABELS).
	Labels Labels
	// Helper is the name of the tracking helper, such as "ftp" (CTA_HELP).
	Helper string
	// Master is the original tuple of the connection whose helper expected
	// this one (CTA_TUPLE_MASTER), and MasterZone the zone of its direction.
	Master     Tuple
	MasterZone uint16
	// OriginalSeq and ReplySeq correct the sequence numbers of connections
	// whose payload NAT changes the length of (CTA_SEQ_ADJ_*).
	OriginalSeq, ReplySeq SeqAdj
	// Synproxy is kept for connections that the kernel accepted on behalf of
	// a server (CTA_SYNPROXY). The zero one that entries made over ctnetlink
	// carry counts as absent.
	Synproxy Synproxy
	// SecurityContext is the LSM's name for the connection's mark
	// (CTA_SECCTX), such as "system_u:object_r:client_packet_t:s0".
	SecurityContext string
	SCTP            SCTPInfo
	DCCP            DCCPInfo
}

// SeqAdj is struct nf_ct_seqadj: Before is added to the sequence numbers
// before Position, After to those behind it.
type SeqAdj struct {
	Position      uint32 // CTA_SEQADJ_CORRECTION_POS
	Before, After int32  // CTA_SEQADJ_OFFSET_BEFORE, _AFTER
}

// Synproxy is struct nf_conn_synproxy.
type Synproxy struct {
	ISN             uint32 // initial sequence number given to the client (CTA_SYNPROXY_ISN)
	ITS             uint32 // initial timestamp given to the client (CTA_SYNPROXY_ITS)
	TimestampOffset uint32 // added to the server's timestamps (CTA_SYNPROXY_TSOFF)
}

// SCTPInfo is what the tracker knows of an SCTP association
// (CTA_PROTOINFO_SCTP).
type SCTPInfo struct {
	State SCTPState
	// OriginalTag and ReplyTag are the verification tags of each direction.
	OriginalTag, ReplyTag uint32
}

// DCCPInfo is what the tracker knows of a DCCP connection
// (CTA_PROTOINFO_DCCP), which kernels track up to 6.15.
type DCCPInfo struct {
	State DCCPState
	// Role is that of the original direction: 0 client, 1 server.
	Role uint8
	// HandshakeSeq is the sequence number of the handshake.
	HandshakeSeq uint64
}

// Labels is a set of the connection labels 0 to 127 (struct nf_conn_labels).
type Labels [16]byte

// LabelSet makes a set of labels; numbers above 127 are left out.
func LabelSet(bits ...uint8) Labels {
	var l Labels
	for _, n := range bits {
		if n < 128 {
			l[n/8] |= 1 << (n % 8)
		}
	}
	return l
}

// Has reports whether the label is set.
func (l Labels) Has(bit uint8) bool { return bit < 128 && l[bit/8]&(1<<(bit%8)) != 0 }

// HasAll reports whether all labels of want are set.
func (l Labels) HasAll(want Labels) bool {
	for i := range l {
		if l[i]&want[i] != want[i] {
			return false
		}
	}
	return true
}

// IsZero reports that no label is set.
func (l Labels) IsZero() bool { return l == Labels{} }

// Bits returns the numbers of the labels, in order.
func (l Labels) Bits() []uint8 {
	var bits []uint8
	for n := range uint8(128) {
		if l.Has(n) {
			bits = append(bits, n)
		}
	}
	return bits
}

// String returns the numbers of Bits joined by commas. conntrack -L -o labels
// has names in their place, those of /etc/xtables/connlabel.conf.
func (l Labels) String() string { return string(l.append(nil)) }

func (l Labels) append(b []byte) []byte {
	for i, n := range l.Bits() {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Append(b, n)
	}
	return b
}

// parseLabels reads what String writes.
func parseLabels(s string) (Labels, error) {
	var l Labels
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(word, 10, 7)
		if err != nil {
			return Labels{}, fmt.Errorf("%q is no label's number", word)
		}
		l[n/8] |= 1 << (n % 8)
	}
	return l, nil
}

// MarshalText writes the 16 bytes in hexadecimal, label 0 in the lowest bit of
// the first.
func (l Labels) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, l[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (l *Labels) UnmarshalText(b []byte) error {
	var v Labels
	if len(b) != hex.EncodedLen(len(v)) {
		return fmt.Errorf("labels %q: want %d hexadecimal digits", b, hex.EncodedLen(len(v)))
	}
	if _, err := hex.Decode(v[:], b); err != nil {
		return fmt.Errorf("labels %q: %w", b, err)
	}
	*l = v
	return nil
}

// Details returns the parts that few entries have; Has tells which of them were
// given.
func (f Flow) Details() Details {
	if f.details == (unique.Handle[Details]{}) {
		return Details{}
	}
	return f.details.Value()
}

// WithDetails returns f with other details, of which Fields names those that
// are not zero.
func (f Flow) WithDetails(d Details) Flow {
	f.Fields = f.Fields&^fieldsDetails | d.fields()
	f.setDetails(d)
	return f
}

func (f *Flow) setDetails(d Details) {
	f.details = unique.Handle[Details]{}
	if d != (Details{}) {
		f.details = unique.Make(d)
	}
}

const fieldsDetails = FieldLabels | FieldHelper | FieldMaster | FieldSeqAdjust | FieldSynproxy |
	FieldSecurityContext | FieldSCTP | FieldDCCP

// fields are those that are not zero.
func (d *Details) fields() Fields {
	var fields Fields
	for _, part := range []struct {
		there bool
		field Fields
	}{
		{!d.Labels.IsZero(), FieldLabels},
		{d.Helper != "", FieldHelper},
		{d.Master != Tuple{}, FieldMaster},
		{d.OriginalSeq != SeqAdj{} || d.ReplySeq != SeqAdj{}, FieldSeqAdjust},
		{d.Synproxy != Synproxy{}, FieldSynproxy},
		{d.SecurityContext != "", FieldSecurityContext},
		{d.SCTP != SCTPInfo{}, FieldSCTP},
		{d.DCCP != DCCPInfo{}, FieldDCCP},
	} {
		if part.there {
			fields |= part.field
		}
	}
	return fields
}
