package reject

import (
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// The texts are those of net/netfilter/nf_conntrack_proto_*.c in the named
// releases, as nf_log_packet formats them: with a blank at the end.
func TestParseReason(t *testing.T) {
	for _, tt := range []struct {
		release, text string
		want          Reason
	}{
		{"any", "", Reason{}},
		{"any", " ", Reason{}},
		{"any", "nf_ct_proto_6: ", Reason{}},

		{"6.18", "nf_ct_proto_6: invalid new ", Reason{Kind: ReasonNew, Proto: 6}},
		{"6.1", "nf_ct_proto_6: packet (index 0) in dir 1 invalid, state ESTABLISHED ",
			Reason{Kind: ReasonState, Proto: 6, Reply: true, State: conntrack.TCPEstablished, Exact: true}},
		{"6.12", "nf_ct_proto_6: packet (index 3) in dir 0 invalid, state SYN_SENT ",
			Reason{Kind: ReasonState, Proto: 6, Index: 3, State: conntrack.TCPSynSent, Exact: true}},
		{"6.12", "nf_ct_proto_6: packet (index 1) in dir 1 ignored, state ESTABLISHED ",
			Reason{Kind: ReasonIgnored, Proto: 6, Index: 1, Reply: true, State: conntrack.TCPEstablished, Exact: true}},
		{"6.1", "nf_ct_proto_6: SEQ is over upper bound 4294967295 (over the window of the receiver) ",
			Reason{Kind: ReasonSeqOver, Proto: 6, Bound: 4294967295, Exact: true}},
		{"6.1", "nf_ct_proto_6: ACK is over upper bound 12 (ACKed data not seen yet) ",
			Reason{Kind: ReasonAckOver, Proto: 6, Bound: 12, Exact: true}},
		{"6.1", "nf_ct_proto_6: SEQ is under lower bound 0 (already ACKed data retransmitted) ",
			Reason{Kind: ReasonSeqUnder, Proto: 6, Exact: true}},
		{"6.1", "nf_ct_proto_6: ignored ACK under lower bound 7 (possible overly delayed) ",
			Reason{Kind: ReasonAckUnder, Proto: 6, Bound: 7, Exact: true}},
		{"6.1", "nf_ct_proto_6: 1448 bytes more than expected ", Reason{Kind: ReasonOvershot, Proto: 6, Bound: 1448, Exact: true}},
		{"6.1", "nf_ct_proto_6: truncated packet ", Reason{Kind: ReasonTruncated, Proto: 6}},
		{"6.1", "nf_ct_proto_6: packet (index 4, dir 1) response for index 2 lower timeout to 300 ", Reason{Kind: ReasonOther, Proto: 6}},
		{"5.10", "nf_ct_proto_6: challenge-ack ignored ", Reason{Kind: ReasonIgnored, Proto: 6}},
		{"5.10", "nf_ct_proto_6: invalid rst ", Reason{Kind: ReasonReset, Proto: 6}},
		{"5.10", "nf_ct_proto_6: invalid state ", Reason{Kind: ReasonState, Proto: 6}},
		{"5.10", "nf_ct_proto_6: invalid packet ignored in state ESTABLISHED  ", Reason{Kind: ReasonIgnored, Proto: 6}},
		{"5.10", "nf_ct_proto_6: ACK is under the lower bound (possible overly delayed ACK) ", Reason{Kind: ReasonAckUnder, Proto: 6}},
		{"5.10", "nf_ct_proto_6: ACK is over the upper bound (ACKed data not seen yet) ", Reason{Kind: ReasonAckOver, Proto: 6}},
		{"5.10", "nf_ct_proto_6: SEQ is under the lower bound (already ACKed data retransmitted) ", Reason{Kind: ReasonSeqUnder, Proto: 6}},
		{"5.10", "nf_ct_proto_6: SEQ is over the upper bound (over the window of the receiver) ", Reason{Kind: ReasonSeqOver, Proto: 6}},
		{"5.10", "nf_ct_proto_6: invalid tcp flag combination ", Reason{Kind: ReasonFlags, Proto: 6}},
		{"5.10", "nf_ct_proto_17: bad checksum ", Reason{Kind: ReasonChecksum, Proto: 17}},
		{"5.10", "nf_ct_proto_17: truncated/malformed packet ", Reason{Kind: ReasonTruncated, Proto: 17}},
		{"5.10", "nf_ct_proto_136: checksum missing ", Reason{Kind: ReasonChecksum, Proto: 136}},
		{"5.10", "nf_ct_proto_1: bad hw icmp checksum ", Reason{Kind: ReasonChecksum, Proto: 1}},
		{"5.10", "nf_ct_proto_58: ICMPv6 checksum failed ", Reason{Kind: ReasonChecksum, Proto: 58}},
		{"5.10", "nf_ct_proto_1: short packet ", Reason{Kind: ReasonTruncated, Proto: 1}},
		{"5.10", "nf_ct_proto_1: invalid icmp type ", Reason{Kind: ReasonOther, Proto: 1}},
		{"5.10", "nf_ct_proto_1: outer daddr 192.0.2.1 != inner 192.0.2.2 ", Reason{Kind: ReasonForeign, Proto: 1}},
		{"4.19", "nf_ct_tcp: invalid packet ignored ", Reason{Kind: ReasonIgnored, Proto: 6}},
		{"4.19", "nf_ct_tcp: invalid TCP flag combination ", Reason{Kind: ReasonFlags, Proto: 6}},
		{"4.19", "nf_ct_tcp: bad TCP checksum ", Reason{Kind: ReasonChecksum, Proto: 6}},
		{"4.19", "nf_ct_dccp: invalid state transition ", Reason{Kind: ReasonOther, Proto: 33}},

		{"none", "invalid new", Reason{Kind: ReasonNew}},
		{"none", "nf_ct_proto_999: invalid rst ", Reason{Kind: ReasonReset}},
		{"none", "nf_ct_proto_6: packet (index 0) in dir 1 invalid, state SINGING ", Reason{Kind: ReasonState, Proto: 6, Reply: true}},
		{"none", "nf_ct_proto_6: SEQ is over upper bound 4294967296 (", Reason{Kind: ReasonSeqOver, Proto: 6}},
		{"none", "nf_ct_proto_6: packet (index 0) in dir 2 invalid, state ESTABLISHED ", Reason{Kind: ReasonOther, Proto: 6}},
	} {
		if got := ParseReason(tt.text); got != tt.want {
			t.Errorf("%s: %q: %+v, want %+v", tt.release, tt.text, got, tt.want)
		}
	}
}

func TestReasonPasses(t *testing.T) {
	for text, want := range map[string]bool{
		"nf_ct_proto_6: SEQ is under lower bound 9 (already ACKed data retransmitted) ":   true,
		"nf_ct_proto_6: SEQ is under the lower bound (already ACKed data retransmitted) ": false,
		"nf_ct_proto_6: ignored ACK under lower bound 9 (possible overly delayed) ":       true,
		"nf_ct_proto_6: ACK is under the lower bound (possible overly delayed ACK) ":      false,
		"nf_ct_proto_6: 9 bytes more than expected ":                                      true,
		"nf_ct_proto_6: SEQ is over upper bound 9 (over the window of the receiver) ":     false,
		"nf_ct_proto_6: packet (index 1) in dir 1 ignored, state ESTABLISHED ":            true,
		"nf_ct_proto_6: packet (index 1) in dir 0 invalid, state ESTABLISHED ":            false,
		"": false,
	} {
		if got := ParseReason(text).Passes(); got != want {
			t.Errorf("%q passes: %t", text, got)
		}
	}
}

func TestReasonBeyond(t *testing.T) {
	h := packet.Header{Proto: packet.ProtoTCP, Seq: 5, Ack: 1000, DataLen: 10, Have: packet.HaveSeq | packet.HaveFlags}
	cut := h
	cut.Have = packet.HaveSeq
	for _, tt := range []struct {
		r    Reason
		h    packet.Header
		want uint32
		ok   bool
	}{
		{Reason{Kind: ReasonSeqOver, Bound: 5, Exact: true}, h, 1, true},
		{Reason{Kind: ReasonSeqOver, Bound: 4294967291, Exact: true}, h, 11, true}, // it wraps
		{Reason{Kind: ReasonSeqOver, Bound: 6, Exact: true}, h, 0, false},
		{Reason{Kind: ReasonSeqOver, Bound: 5}, h, 1, false},
		{Reason{Kind: ReasonSeqOver, Bound: 5, Exact: true}, cut, 1, false},
		{Reason{Kind: ReasonAckOver, Bound: 901, Exact: true}, h, 100, true},
		{Reason{Kind: ReasonAckUnder, Bound: 1099, Exact: true}, h, 100, true},
		{Reason{Kind: ReasonSeqUnder, Bound: 114, Exact: true}, h, 100, true},
		{Reason{Kind: ReasonOvershot, Bound: 9, Exact: true}, h, 9, true},
		{Reason{Kind: ReasonReset, Exact: true}, h, 0, false},
	} {
		if got, ok := tt.r.beyond(tt.h); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%+v of %v: %d, %t, want %d, %t", tt.r, tt.h, got, ok, tt.want, tt.ok)
		}
	}
}
