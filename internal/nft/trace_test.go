package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// tracing is a table that traces TCP to a port, its owner's.
func tracing(port uint16) nft.Table {
	t := table(nft.INet, nft.Chain{Hook: nft.Prerouting, Priority: nft.PriorityRaw - 1}, nft.Rule{Proto: nft.TCP, DstPort: port, Trace: true})
	t.Name = "tracing"
	return t
}

// refusal connects to a host, which traces, and returns the trace of the end
// of the packet and the rules.
func refusal(t *testing.T, client, server *lab.Host, to netip.AddrPort) (nft.Trace, *nft.Ruleset) {
	t.Helper()
	c, err := nft.Dial(server.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o, err := c.Own(within(t), tracing(to.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	set, err := c.Ruleset(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan struct{})
	ready := func() {
		go func() {
			defer close(done)
			_ = connect(ctx, client, to) // is refused
		}()
	}
	defer func() { cancel(); <-done }()
	for trace, err := range c.Traces(ctx, &nft.TraceOptions{Ready: ready}) {
		if err != nil {
			t.Fatal(err)
		}
		if trace.Refused() {
			return trace, set
		}
	}
	t.Fatal("no packet was refused")
	return nft.Trace{}, nil
}

// refusing is rules that refuse TCP to port 7, and what a trace of a packet
// that they refuse leads to.
type refusing struct {
	name  string
	table nft.Table // to apply, or
	rules string    // for nft(8), or
	tool  []string  // a command
	v6    bool
	want  string // text of the rule, or the policy
	facts nft.Facts
}

func (r refusing) install(t *testing.T, h *lab.Host) {
	t.Helper()
	tool := r.tool
	switch {
	case r.table.Name != "":
		if err := h.Rules(within(t), r.table); err != nil {
			t.Fatal(err)
		}
		return
	case tool == nil:
		tool = []string{"nft", r.rules}
	}
	lab.Tool(t, tool[0])
	if _, err := h.Exec(within(t), tool[0], tool[1:]...); err != nil {
		t.Fatal(err)
	}
}

var refusals = []refusing{
	{
		name: "ours", table: table(nft.INet, nft.Chain{Hook: nft.Input}, nft.Rule{Proto: nft.TCP, DstPort: 7, Counter: true, Verdict: nft.RejectPort}),
		want:  "inet t c: tcp dport 7 counter packets 0 bytes 0 reject",
		facts: nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectICMPX, Code: 1}, Proto: nft.TCP},
	},
	{
		name: "drop", rules: "table inet t { chain c { type filter hook input priority 0; ct state new tcp dport 7 drop; }; }",
		want:  "inet t c: ct state new tcp dport 7 drop",
		facts: nft.Facts{Verdict: nft.CodeDrop, State: nft.New, Proto: nft.TCP},
	},
	{
		name: "reject", rules: "table ip t { chain c { type filter hook input priority 0; tcp dport 7 reject with icmp host-prohibited; }; }",
		want:  "ip t c: tcp dport 7 reject with icmp host-prohibited",
		facts: nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectICMP, Code: 10}, Proto: nft.TCP},
	},
	{
		name: "reset in another chain", v6: true,
		rules: "table inet t { chain x { meta l4proto tcp counter reject with tcp reset; }; chain c { type filter hook input priority 0; tcp dport 7 jump x; }; }",
		want:  "inet t x: meta l4proto tcp counter packets 0 bytes 0 reject with tcp reset",
		facts: nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectReset}, Proto: nft.TCP},
	},
	{
		name: "admin-prohibited", v6: true, rules: "table inet t { chain c { type filter hook input priority 0; reject with icmpx admin-prohibited comment \"last\"; }; }",
		want:  `inet t c: reject with icmpx admin-prohibited comment "last"`,
		facts: nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectICMPX, Code: 3}},
	},
	{
		name: "map", rules: "table inet t { chain c { type filter hook input priority 0; ct state vmap { established : accept, new : drop }; }; }",
		want:  "inet t c: ct state vmap { established : accept, new : drop }",
		facts: nft.Facts{Verdict: nft.CodeContinue, Unknown: true},
	},
	{
		name: "policy", rules: "table ip t { chain c { type filter hook input priority 0; policy drop; tcp dport 8 accept; }; }",
		want: "ip t c: policy",
	},
	{
		name: "iptables", tool: []string{"iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "7", "-j", "REJECT", "--reject-with", "icmp-net-prohibited"},
		want:  "ip filter INPUT: tcp dport 7 counter packets 0 bytes 0 reject with icmp net-prohibited",
		facts: nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectICMP, Code: 9}, Proto: nft.TCP},
	},
	{
		name: "iptables reset", tool: []string{"iptables-nft", "-A", "INPUT", "-p", "tcp", "-m", "conntrack", "--ctstate", "NEW", "-j", "REJECT", "--reject-with", "tcp-reset"},
		want:  "ip filter INPUT: meta l4proto tcp ct state new counter packets 0 bytes 0 reject with tcp reset",
		facts: nft.Facts{Verdict: nft.CodeDrop, State: nft.New, Reject: nft.Reject{Kind: nft.RejectReset}, Proto: nft.TCP},
	},
	{
		name: "ip6tables", v6: true, tool: []string{"ip6tables-nft", "-A", "INPUT", "-p", "tcp", "-m", "state", "--state", "NEW", "-j", "REJECT", "--reject-with", "icmp6-adm-prohibited"},
		want:  "ip6 filter INPUT: meta l4proto tcp ct state new counter packets 0 bytes 0 reject with icmpv6 admin-prohibited",
		facts: nft.Facts{Verdict: nft.CodeDrop, State: nft.New, Reject: nft.Reject{Kind: nft.RejectICMP, Code: 1}, Proto: nft.TCP},
	},
}

// TestRefusals refuses a packet by every kind of rule, and finds the rule by
// its trace.
func TestRefusals(t *testing.T) {
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client, server := lab.Two(t)
			test.install(t, server)
			from, to := client.Addr4(), server.Addr4()
			if test.v6 {
				from, to = client.Addr6(), server.Addr6()
			}
			trace, set := refusal(t, client, server, netip.AddrPortFrom(to, 7))
			got := fmt.Sprintf("%v %s %s: %v", trace.Family, trace.Table, trace.Chain, trace.Type)
			if rule, ok := set.Rule(trace.Rule()); ok {
				got = strings.TrimSuffix(got, "rule") + rule.Text()
				if facts := rule.Facts(); facts != test.facts {
					t.Errorf("got  %+v\nwant %+v", facts, test.facts)
				}
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			checkPacket(t, trace, from, to)
		})
	}
}

// checkPacket looks for the SYN in what the trace has of the packet.
func checkPacket(t *testing.T, trace nft.Trace, from, to netip.Addr) {
	t.Helper()
	if trace.InIndex == 0 || trace.OutIndex != 0 {
		t.Errorf("interfaces %d and %d", trace.InIndex, trace.OutIndex)
	}
	b, ok := trace.Headers.AppendPacket(nil)
	offset, size := 12, 20
	if to.Is6() {
		offset, size = 8, 40
	}
	addrs := append(from.AsSlice(), to.AsSlice()...)
	if !ok || len(b) != size+20 || !slices.Equal(b[offset:offset+len(addrs)], addrs) || b[size+13] != nft.SYN {
		t.Errorf("packet % x, %v, want a SYN from %v to %v", b, ok, from, to)
	}
	// Kernels before 6.16 do not say.
	if ct := trace.CT; ct != (nft.TraceCT{}) && (ct.State != nft.New || ct.ID == 0 || ct.Reply) {
		t.Errorf("connection %+v, want a new one", ct)
	}
}
