package nft_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// sameRule is a rule and what nft(8) calls it.
type sameRule struct {
	rule nft.Rule
	text string
}

var inputRules = []sameRule{
	{nft.Rule{CTState: nft.Established | nft.Related, Verdict: nft.Accept}, "ct state established,related accept"},
	{nft.Rule{CTState: nft.New, Verdict: nft.Accept}, "ct state new accept"},
	{nft.Rule{CTState: nft.Invalid | nft.Untracked, Verdict: nft.Drop}, "ct state invalid,untracked drop"},
	{nft.Rule{Proto: nft.TCP, DstPort: 80, Verdict: nft.Accept}, "tcp dport 80 accept"},
	{nft.Rule{Proto: nft.UDP, SrcPort: 53, DstPort: 40000, Verdict: nft.Drop}, "udp sport 53 udp dport 40000 drop"},
	{nft.Rule{Proto: nft.SCTP, DstPort: 9, Verdict: nft.Drop}, "sctp dport 9 drop"},
	{nft.Rule{Proto: nft.ICMPv6, Verdict: nft.Accept}, "meta l4proto 58 accept"},
	{nft.Rule{Src: prefix("192.0.2.1/32"), Verdict: nft.Drop}, "ip saddr 192.0.2.1 drop"},
	{nft.Rule{Src: prefix("10.0.0.0/8"), Dst: prefix("192.0.2.0/25"), Verdict: nft.Drop}, "ip saddr 10.0.0.0/8 ip daddr 192.0.2.0/25 drop"},
	{nft.Rule{Src: prefix("2001:db8::/61"), Dst: prefix("2001:db8::1/128"), Verdict: nft.Drop}, "ip6 saddr 2001:db8::/61 ip6 daddr 2001:db8::1 drop"},
	{nft.Rule{InIface: "client", Verdict: nft.Drop}, `iifname "client" drop`},
	{nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Verdict: nft.Drop}, "tcp flags & rst == rst drop"},
	{nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.SYN | nft.ACK, Value: nft.SYN}, Verdict: nft.Drop}, "tcp flags & (syn | ack) == syn drop"},
	{nft.Rule{Proto: nft.ICMP, ICMPType: nft.ICMPUnreachable, Verdict: nft.Drop}, "icmp type destination-unreachable drop"},
	{nft.Rule{Proto: nft.ICMPv6, ICMPType: nft.ICMPv6Unreachable, Verdict: nft.Drop}, "icmpv6 type destination-unreachable drop"},
	{nft.Rule{Direction: nft.Original, Verdict: nft.Drop}, "ct direction original drop"},
	{nft.Rule{Direction: nft.Reply, Verdict: nft.Drop}, "ct direction reply drop"},
	{nft.Rule{Trace: true}, "meta nftrace set 1"},
	{
		nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Limit: nft.Limit{PerSecond: 100, Burst: 20}, Trace: true},
		"tcp flags & rst == rst limit rate 100/second burst 20 packets meta nftrace set 1",
	},
	{nft.Rule{Limit: nft.Limit{PerSecond: 1}, Verdict: nft.Drop}, "limit rate 1/second drop"},
	{nft.Rule{Counter: true}, "counter packets 0 bytes 0"},
	{nft.Rule{Log: &nft.Log{Group: 5, Prefix: "seen ", Snaplen: 128, Threshold: 2}}, `log prefix "seen " group 5 snaplen 128 queue-threshold 2`},
	{nft.Rule{Log: &nft.Log{}}, `log group 0`},
	{nft.Rule{Verdict: nft.RejectAdminProhibited, Counter: true, Comment: "last"}, `counter packets 0 bytes 0 reject with icmpx admin-prohibited comment "last"`},
	{nft.Rule{Verdict: nft.RejectPort}, "reject with icmpx port-unreachable"},
	{nft.Rule{Verdict: nft.RejectHost}, "reject with icmpx host-unreachable"},
	{nft.Rule{Verdict: nft.RejectNoRoute}, "reject with icmpx no-route"},
	{nft.Rule{Verdict: nft.RejectNetProhibited}, "meta nfproto ipv4 reject with icmp net-prohibited"},
	{nft.Rule{Verdict: nft.RejectHostProhibited}, "meta nfproto ipv4 reject with icmp host-prohibited"},
	{nft.Rule{Proto: nft.TCP, Verdict: nft.RejectTCPReset}, "meta l4proto tcp reject with tcp reset"},
	{
		nft.Rule{InIface: "eth0", Src: prefix("192.0.2.0/24"), Proto: nft.TCP, DstPort: 443, CTState: nft.New, Counter: true, Log: &nft.Log{Group: 1}, Verdict: nft.RejectTCPReset},
		`iifname "eth0" ip saddr 192.0.2.0/24 tcp dport 443 ct state new counter packets 0 bytes 0 log group 1 reject with tcp reset`,
	},
}

// sameChains are chains of other families, hooks and types.
var sameChains = []struct {
	family nft.Family
	chain  nft.Chain
	head   string
	rules  []sameRule
}{
	{nft.INet, nft.Chain{Hook: nft.Input}, "type filter hook input priority 0; policy accept;", inputRules},
	{nft.IPv4, nft.Chain{Hook: nft.Forward, Policy: nft.PolicyDrop}, "type filter hook forward priority 0; policy drop;", []sameRule{
		{nft.Rule{OutIface: "eth1", Dst: prefix("10.0.0.0/9"), Verdict: nft.Accept}, `oifname "eth1" ip daddr 10.0.0.0/9 accept`},
		{nft.Rule{Verdict: nft.RejectHostProhibited}, "reject with icmp host-prohibited"},
	}},
	{nft.IPv6, nft.Chain{Hook: nft.Output, Priority: 5}, "type filter hook output priority 5;", []sameRule{
		{nft.Rule{Dst: prefix("2001:db8::/64"), Proto: nft.TCP, Verdict: nft.RejectTCPReset}, "ip6 daddr 2001:db8::/64 meta l4proto tcp reject with tcp reset"},
	}},
	{nft.INet, nft.Chain{Hook: nft.Prerouting, Priority: nft.PriorityRaw}, "type filter hook prerouting priority raw;", []sameRule{
		{nft.Rule{Proto: nft.UDP, DstPort: 53, Verdict: nft.NoTrack}, "udp dport 53 notrack"},
		{nft.Rule{Proto: nft.TCP, DstPort: 80, Zone: 5}, "tcp dport 80 ct zone set 5"},
	}},
	{nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT}, "type nat hook prerouting priority dstnat;", []sameRule{
		{nft.Rule{Proto: nft.TCP, DstPort: 80, Verdict: nft.DNAT, To: netip.MustParseAddrPort("10.0.0.1:8080")}, "meta nfproto ipv4 tcp dport 80 dnat ip to 10.0.0.1:8080"},
		{nft.Rule{Proto: nft.TCP, DstPort: 80, Verdict: nft.DNAT, To: netip.MustParseAddrPort("[2001:db8::1]:8080")}, "meta nfproto ipv6 tcp dport 80 dnat ip6 to [2001:db8::1]:8080"},
		{nft.Rule{Dst: prefix("192.0.2.1/32"), Verdict: nft.DNAT, To: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 0)}, "ip daddr 192.0.2.1 dnat ip to 10.0.0.1"},
		{nft.Rule{Proto: nft.TCP, DstPort: 80, Verdict: nft.Redirect, To: netip.AddrPortFrom(netip.Addr{}, 8080)}, "tcp dport 80 redirect to :8080"},
		{nft.Rule{Verdict: nft.Redirect}, "redirect"},
	}},
	{nft.IPv4, nft.Chain{Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT}, "type nat hook postrouting priority srcnat;", []sameRule{
		{nft.Rule{OutIface: "eth0", Verdict: nft.Masquerade}, `oifname "eth0" masquerade`},
		{nft.Rule{Verdict: nft.SNAT, To: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), 0)}, "snat to 192.0.2.9"},
	}},
}

// TestSameAsTool applies each chain, and has nft(8) apply the same as text: the
// two rule sets must then be listed alike.
func TestSameAsTool(t *testing.T) {
	lab.Tool(t, "nft")
	ours, h1 := dial(t)
	_, h2 := dial(t)
	for _, same := range sameChains {
		for _, r := range same.rules {
			want := "table " + same.family.String() + " t {\n chain c {\n" + same.head + "\n" + r.text + "\n}\n}\n"
			if err := ours.Apply(within(t), table(same.family, same.chain, r.rule)); err != nil {
				t.Error(err)
				continue
			}
			load(t, h2, want)
			if got, want := list(t, h1), list(t, h2); got != want || !strings.Contains(got, "chain c") {
				t.Errorf("%s:\ngot  %s\nwant %s", r.text, got, want)
			}
			if err := ours.Delete(within(t), same.family, "t"); err != nil {
				t.Error(err)
			}
		}
	}
}

// list is the rule set as nft(8) shows it, without handles.
func list(t *testing.T, h *lab.Host) string {
	t.Helper()
	out, err := h.Exec(within(t), "nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// load makes the rule set that of the text.
func load(t *testing.T, h *lab.Host, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Exec(within(t), "nft", "-f", file); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}
