package reject

import (
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// What evidence can lack.
const (
	lackPacket   = "the refused packet"
	lackFlags    = "the packet's TCP flags: too little of it was quoted"
	lackState    = "the packet's conntrack state"
	lackEntry    = "the conntrack entry"
	lackSocket   = "the socket, on the host that has it"
	lackListener = "whether a socket listens, on the host that has it"
	lackReason   = "the kernel's reason"
	lackSettings = "the tracker's settings"
	lackRule     = "the rule that refused"
)

// TestExplainUnknown has the counter-examples: evidence that differs in one
// thing from what fits a row.
func TestExplainUnknown(t *testing.T) {
	for _, tt := range []struct {
		name    string
		seen    seen
		missing []string
	}{
		// not C01, C02
		{"forgotten, but a SYN", seen{packet: "in SYN", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED"}, []string{lackListener}},
		{"forgotten, but a SYN|ACK", seen{packet: "in SYN|ACK", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED"}, []string{lackRule}},
		{"forgotten, but not an ACK", seen{packet: "in PSH", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED"}, []string{lackRule}},
		{"forgotten, but the entry exists", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: alive, ended: expired, socket: "ESTABLISHED"}, []string{lackRule}},
		{"forgotten, but no socket was looked for", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired}, []string{lackSocket}},
		{"forgotten, but no entry was looked for", seen{packet: "in PSH|ACK", how: Logged, state: New, ended: expired, socket: "ESTABLISHED"}, []string{lackEntry}},
		{"forgotten, but not refused", seen{packet: "in PSH|ACK", state: New, entry: "-", ended: expired, socket: "ESTABLISHED"}, []string{lackRule}},

		// not C05, C06
		{"ghost, but in its own direction", seen{packet: "in SYN", how: Logged, state: Invalid, entry: "tcp 6 299 ESTABLISHED " + fromPeer + "[UNREPLIED] " + fromHost, socket: "-", listen: host}, []string{lackReason}},
		{"port reuse, but state not known", seen{packet: "in SYN", how: Logged, entry: alive, socket: "-", listen: host}, []string{lackState}},

		// not C07
		{"late data, but for whom this host translates", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "-",
			ended: "tcp 6 ESTABLISHED src=10.1.99.1 dst=10.1.41.192 sport=4000 dport=51522 " + fromPeer}, []string{lackRule}},

		// not C08
		{"CLOSE_WAIT, but no entry was looked for", seen{socket: "CLOSE_WAIT"}, []string{lackPacket, lackState, lackEntry}},
		{"another state", seen{entry: "-", socket: "ESTABLISHED"}, []string{lackPacket, lackState}},

		// not C19, C20
		{"new, but no listener was looked for", seen{packet: "in SYN", how: Logged, state: New, entry: "-"}, []string{lackSocket, lackListener}},
		{"new, but another's entry", seen{packet: "in SYN", how: Logged, state: New, entry: opening, socket: "-", listen: host}, []string{lackRule}},
		{"new, but an older entry", seen{packet: "in SYN", how: Logged, state: New, entry: "tcp 6 119 TIME_WAIT " + fromPeer + fromHost, socket: "-", listen: host}, []string{lackRule}},
		{"new, but no entry was looked for", seen{packet: "in SYN", how: Logged, state: New, socket: "-", listen: host}, []string{lackEntry}},

		// not C26, C28
		{"by the peer, but a RST", seen{packet: "out RST", how: ICMPReceived, icmp: peer, entry: "-", socket: "-"}, []string{lackRule}},
		{"by the peer, flags not quoted, no socket", seen{packet: "out ?", how: ICMPReceived, icmp: peer, entry: "-", socket: "-"}, []string{lackFlags}},

		{"nothing", seen{unset: true}, []string{lackPacket, lackState, lackEntry, lackSocket, lackSettings}},
		{"only the packet", seen{packet: "in PSH|ACK", how: Logged, unset: true}, []string{lackState, lackEntry, lackSocket, lackSettings}},
		{"only the flags missing", seen{packet: "in ?", how: ICMPSent, icmp: host, state: New, entry: "-", socket: "-"}, []string{lackFlags}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				v := explainTwice(t, tt.seen.evidence(t, f))
				if v.Cause != CauseUnknown || v.Rule != "" || v.Confidence != 0 || v.Summary == "" {
					t.Errorf("got %s %v", v.Rule, v)
				}
				if !slices.Equal(v.Missing, tt.missing) || v.Decide == "" {
					t.Errorf("missing %q, want %q; decide by %q", v.Missing, tt.missing, v.Decide)
				}
			})
		})
	}
}

// A UDP packet fits no row, and none of TCP's facts is said to be missing.
func TestExplainUDP(t *testing.T) {
	e := seen{packet: "in ?", how: Logged, state: New, entry: "-", socket: "-"}.evidence(t, func(s string) string { return s })
	e.Packet.Value.Proto, e.Packet.Value.Have = packet.ProtoUDP, packet.HaveProto|packet.HavePorts
	if v := Explain(e); v.Cause != CauseUnknown || !slices.Equal(v.Missing, []string{lackRule}) || v.Flow.Proto != conntrack.ProtoUDP {
		t.Errorf("got %v, missing %q, flow %v", v, v.Missing, v.Flow)
	}
}

// Each row has its own rule and cause, and each of them is in TestExplain or TestCauses.
func TestTable(t *testing.T) {
	tested := map[string]Cause{"C32": CauseDiscovery} // TestExplainDiscovery
	for _, tt := range verdictTable {
		tested[tt.rule] = tt.cause
	}
	for _, tt := range causeTable {
		tested[tt.rule] = tt.cause
	}
	causes := make(map[Cause]string)
	for _, r := range table {
		if tested[r.rule] != r.cause {
			t.Errorf("%s is tested as %q, want %q", r.rule, tested[r.rule], r.cause)
		}
		if other, ok := causes[r.cause]; ok || strings.ContainsAny(string(r.cause), " _") {
			t.Errorf("%s: the cause is that of %s, or has a blank: %s", r.rule, other, r.cause)
		}
		causes[r.cause] = r.rule
	}
	if len(tested) != len(table) {
		t.Errorf("%d rules are tested, there are %d", len(tested), len(table))
	}
}

func TestOtherPort(t *testing.T) {
	for p, want := range map[uint16]uint16{1: 2, 65534: 65535, 65535: 65534} {
		if got := otherPort(p); got != want {
			t.Errorf("other than %d: %d, want %d", p, got, want)
		}
	}
}
