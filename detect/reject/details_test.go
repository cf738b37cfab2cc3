package reject

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
)

// What one more or one less fact makes of a case.
func TestDetails(t *testing.T) {
	const dnat = "tcp 6 431999 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.99.1 dst=10.1.32.70 sport=80 dport=9102 [ASSURED] use=1"
	pptp := strings.ReplaceAll(strings.ReplaceAll(ftp, "dport=21 ", "dport=1723 "), "sport=21 ", "sport=1723 ")
	owned := func(e *Evidence) { e.Owner = Found(uint32(1000)) }
	for _, tt := range []struct {
		name       string
		seen       seen
		change     func(*Evidence)
		rule       string
		confidence detect.Confidence
		mention    string
	}{
		{"the log tells of the socket", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired}, owned, "C01", certain, "user 1000"},
		{"no socket was looked for", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired}, nil, "", 0, ""},
		{"the rules are not known", seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: asked, hook: "forward"}, nil,
			"C16", likely, "exempt the other direction"},
		{"from one service to another", seen{packet: "in udp 53 53", how: Logged, state: New, entry: "-", listen: "-"}, nil, "C20", likely, ""},
		{"to a group", seen{packet: "in udp 137 5353", how: Logged, state: New, entry: "-", listen: "-"},
			func(e *Evidence) { e.Packet.Value.Dst = netip.MustParseAddr("224.0.0.251") }, "C20", likely, "`ip daddr 224.0.0.251 drop`"},
		{"a helper for others", seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host, control: ftp, rules: &Rules{Helper: "tcp dport 2121 ct helper set \"ftp\""}},
			nil, "C21", possible, "not to this connection"},
		{"GRE announced", seen{packet: "in proto 47", how: Logged, state: New, entry: "-", control: pptp}, nil, "C21", possible, "pptp"},
		{"TCP not announced", seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host, control: pptp}, nil, "C19", likely, ""},
		{"half of the errors", seen{counters: &Counters{Refused: 15, Errors: 10}}, nil, "", 0, ""},
		{"RSTs are let through", seen{packet: "in RST", how: Logged, state: Invalid, entry: alive, settings: map[string]string{"tcp_ignore_invalid_rst": "1"}}, nil, "", 0, ""},
		{"RSTs are not", seen{packet: "in RST", how: Logged, state: Invalid, entry: alive}, nil, "C11", possible, "SEQ 1000"},
		{"an answer to what ended", seen{packet: "out udp", how: ICMPReceived, icmp: peer, ended: "udp 17 " + fromPeer + fromHost}, nil, "C28", possible, "too long ago"},
		{"an answer that nobody waits for", seen{packet: "out udp", how: ICMPReceived, icmp: peer + " port", entry: askedUDP}, nil, "C29", likely, "given up"},
		{"the destination translated", seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: dnat, socket: "ESTABLISHED"}, nil, "C28", likely, "hides who sent"},
		{"the source not liked", seen{packet: "out SYN", how: ICMPReceived, icmp: router},
			func(e *Evidence) { toIPv6Code(e, 5) }, "C25", possible, "BCP 38"},
		{"a route", seen{packet: "out SYN", how: ICMPReceived, icmp: router},
			func(e *Evidence) { toIPv6Code(e, 6) }, "C25", possible, "a route rejects"},
		{"an access list", seen{packet: "out SYN", how: ICMPReceived, icmp: router}, nil, "C25", possible, "access list"},
		{"the chain's policy", seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: host, rule: "drop"},
			func(e *Evidence) { e.Rule.Value.Handle = 0 }, "C19", certain, "refused by the policy of inet filter input"},
		{"the SYN|ACK in another zone", seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, answer: reasonNew, entry: asked, socket: "SYN_RECV"},
			nil, "C14", certain, "the SYN|ACK was of no connection"},
		{"the SYN|ACK alone is not the packet's reason", seen{packet: "in ACK", how: Logged, state: Invalid, answer: reasonNew, entry: asked, socket: "SYN_RECV"},
			nil, "C14", likely, "Config.Reasons"},
		{"a rule to put one before", seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: host, rule: "reject"},
			nil, "C19", certain, "`nft insert rule inet filter input handle 12 ct state new tcp dport 9102 accept`"},
		{"a rule of iptables", seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: host, rule: "reject"},
			func(e *Evidence) { e.Rule.Value.Chain = "INPUT" }, "C19", certain, "`ct state new tcp dport 9102 accept` before the reject"},
		{"another unknown, with its rule", seen{packet: "in SYN", how: Traced, state: New, rule: "drop"}, nil, "", 0, "refused by rule handle 12"},
	} {
		e := tt.seen.evidence(t, same)
		if tt.change != nil {
			tt.change(&e)
		}
		v := explainTwice(t, e)
		if v.Rule != tt.rule || v.Confidence != tt.confidence || !strings.Contains(v.Text(), tt.mention) {
			t.Errorf("%s: got %q, want %s, %v, %q:\n%s", tt.name, v.Rule, tt.rule, tt.confidence, tt.mention, v.Text())
		}
	}
}

func toIPv6Code(e *Evidence, code uint8) {
	e.ICMP.Value.Proto, e.ICMP.Value.ICMPType, e.ICMP.Value.ICMPCode = 58, 1, code
}
