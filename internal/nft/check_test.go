package nft_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// impossible is what must be refused without asking the kernel, and words of
// the error.
var impossible = []struct {
	table nft.Table
	want  string
}{
	{input(nft.Rule{Verdict: nft.Drop}, nft.Rule{DstPort: 80, Verdict: nft.Drop}), "nft: rule 2 of chain c of table inet t: a port needs"},
	{input(nft.Rule{Proto: nft.ICMP, SrcPort: 80, Verdict: nft.Drop}), "rule 1 of chain c of table inet t: a port needs"},
	{input(nft.Rule{Proto: nft.UDP, Verdict: nft.RejectTCPReset}), "reject with tcp reset needs protocol TCP"},
	{input(nft.Rule{Proto: nft.UDP, TCPFlags: nft.TCPFlags{Mask: nft.RST}, Verdict: nft.Drop}), "TCP flags need protocol TCP"},
	{input(nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.SYN}, Verdict: nft.Drop}), "not in mask"},
	{input(nft.Rule{}), "does nothing"},
	{input(nft.Rule{CTState: nft.New}), "does nothing"},
	{input(nft.Rule{CTState: 1 << 10, Verdict: nft.Drop}), "unknown connection states 0x400"},
	{input(nft.Rule{Direction: 3, Verdict: nft.Drop}), "unknown direction 3"},
	{input(nft.Rule{Limit: nft.Limit{Burst: 1}, Verdict: nft.Drop}), "burst 1 has no rate"},
	{input(nft.Rule{Proto: nft.TCP, ICMPType: 3, Verdict: nft.Drop}), "an ICMP type needs protocol ICMP"},
	{table(nft.INet, nft.Chain{Hook: nft.Output, Priority: nft.PriorityRaw}, nft.Rule{Direction: nft.Reply, Verdict: nft.Drop}), "not known yet at priority -300"},
	{nft.Table{Family: nft.INet, Name: "t", Comment: strings.Repeat("x", 129)}, "table inet t: comment of 129 bytes"},
	{nft.Table{Family: nft.INet, Name: "t", Comment: "a\x00b"}, "comment with a NUL byte"},
	{input(nft.Rule{Verdict: 200}), "unknown verdict 200"},
	{input(nft.Rule{Src: prefix("10.0.0.1/8"), Verdict: nft.Drop}), "10.0.0.1/8 is not a prefix"},
	{input(nft.Rule{Src: netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 99), Verdict: nft.Drop}), "is not a prefix"},
	{input(nft.Rule{Src: prefix("::ffff:10.0.0.0/104"), Verdict: nft.Drop}), "is not a prefix"},
	{input(nft.Rule{Src: prefix("10.0.0.0/8"), Dst: prefix("::/0"), Verdict: nft.Drop}), "no packet is of IPv4 and of IPv6"},
	{input(nft.Rule{Src: prefix("2001:db8::/32"), Verdict: nft.RejectHostProhibited}), "no packet is of IPv4 and of IPv6"},
	{table(nft.IPv6, nft.Chain{Hook: nft.Input}, nft.Rule{Verdict: nft.RejectHostProhibited}), "a table of family ip6 never sees"},
	{table(nft.IPv4, nft.Chain{Hook: nft.Input}, nft.Rule{Dst: prefix("::1/128"), Verdict: nft.Drop}), "a table of family ip never sees"},
	{input(nft.Rule{InIface: "sixteen-bytes-xx", Verdict: nft.Drop}), "interface name of 16 bytes: at most 15"},
	{input(nft.Rule{OutIface: "eth0", Verdict: nft.Drop}), "no packet goes out"},
	{table(nft.INet, nft.Chain{Hook: nft.Output}, nft.Rule{InIface: "eth0", Verdict: nft.Drop}), "no packet comes in"},
	{input(nft.Rule{Verdict: nft.Drop, Comment: strings.Repeat("x", 129)}), "comment of 129 bytes: at most 128"},
	{input(nft.Rule{Log: &nft.Log{Prefix: strings.Repeat("x", 128)}}), "log prefix of 128 bytes: at most 127"},
	{input(nft.Rule{Verdict: nft.Drop, Comment: "a\x00b"}), "NUL byte"},
	{input(nft.Rule{Verdict: nft.NoTrack}), "notrack cannot be carried out at hook input"},
	{table(nft.INet, nft.Chain{Hook: nft.Prerouting}, nft.Rule{Verdict: nft.NoTrack}), "too late"},
	{table(nft.INet, nft.Chain{Hook: nft.Prerouting}, nft.Rule{Zone: 5}), "zone at priority 0 is too late"},
	{table(nft.INet, nft.Chain{Hook: nft.Postrouting, Priority: nft.PriorityRaw}, nft.Rule{Zone: 5}), "zone cannot be set at hook postrouting"},
	{table(nft.INet, nft.Chain{Hook: nft.Output, Priority: nft.PriorityRaw}, nft.Rule{Zone: 5, Verdict: nft.NoTrack}), "not tracked"},
	{table(nft.INet, nft.Chain{Hook: nft.Prerouting, Priority: nft.PriorityRaw}, nft.Rule{CTState: nft.New, Verdict: nft.Drop}), "not known yet at priority -300"},
	{table(nft.INet, nft.Chain{Hook: nft.Postrouting}, nft.Rule{Verdict: nft.RejectPort}), "cannot be carried out at hook postrouting"},
	{table(nft.INet, nft.Chain{Hook: nft.Postrouting}, nft.Rule{Verdict: nft.Masquerade}), "needs a chain of type nat"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Output}, nft.Rule{Verdict: nft.RejectPort}), "needs a chain of type filter"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Prerouting}, nft.Rule{Verdict: nft.DNAT}), "dnat needs an address in To"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Prerouting}, nft.Rule{Verdict: nft.Redirect, To: netip.MustParseAddrPort("127.0.0.1:1")}), "must have a port only"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Prerouting}, nft.Rule{Verdict: nft.Redirect, To: netip.AddrPortFrom(netip.Addr{}, 1)}), "to a port needs protocol TCP or UDP"},
	{input(nft.Rule{Verdict: nft.Drop, To: netip.MustParseAddrPort("127.0.0.1:1")}), "To must be empty"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Forward}), "chain c of table inet t: a nat chain cannot hook forward"},
	{table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Output, Priority: -200}), "before connection tracking"},
	{table(nft.INet, nft.Chain{}), "chain c of table inet t: no hook"},
	{table(nft.INet, nft.Chain{Hook: 9}), "no hook: got hook 9"},
	{table(nft.INet, nft.Chain{Hook: nft.Input, Type: 9}), "unknown type"},
	{table(nft.INet, nft.Chain{Hook: nft.Input, Policy: 9}), "unknown policy"},
	{table(99, nft.Chain{Hook: nft.Input}), "table family 99 t: unknown family"},
	{nft.Table{Family: nft.INet}, "name is empty"},
	{nft.Table{Family: nft.INet, Name: strings.Repeat("x", 256)}, "name of 256 bytes: at most 255"},
	{nft.Table{Family: nft.INet, Name: "a\x00b"}, "NUL byte"},
	{nft.Table{Family: nft.INet, Name: "t", Chains: []nft.Chain{{Hook: nft.Input}}}, "name is empty"},
	{nft.Table{Family: nft.INet, Name: "t", Chains: []nft.Chain{{Name: "c", Hook: nft.Input}, {Name: "c", Hook: nft.Output}}}, "chain c of table inet t: given twice"},
}

func TestImpossible(t *testing.T) {
	nl, _ := nfnltest.Dial(func(nfnltest.Request) [][]byte {
		t.Error("the kernel was asked")
		return nil
	})
	c := nft.NewConn(nl)
	defer c.Close()
	for _, test := range impossible {
		err := c.Apply(t.Context(), test.table)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
	if err := c.Apply(t.Context(), input(), input()); err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("two tables of one name: got %v", err)
	}
	if err := c.Delete(t.Context(), nft.INet, ""); err == nil {
		t.Error("delete without a name succeeded")
	}
	if err := c.Apply(t.Context()); err != nil {
		t.Errorf("nothing to apply: %v", err)
	}
}

// TestLimits has the kernel accept the longest of everything, so that what is
// refused in Go is not refused too early.
func TestLimits(t *testing.T) {
	c, _ := dial(t)
	long := strings.Repeat("x", 255)
	err := c.Apply(within(t), nft.Table{Family: nft.INet, Name: long, Chains: []nft.Chain{{
		Name: long, Hook: nft.Input,
		Rules: []nft.Rule{{
			InIface: "fifteen-bytes-x", Log: &nft.Log{Group: 65535, Prefix: long[:127]},
			Comment: long[:128], Verdict: nft.Drop,
		}},
	}}})
	if err != nil {
		t.Error(err)
	}
}
