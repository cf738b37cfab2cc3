package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// mixed are entries of both families, several protocols, marks, zones and
// statuses, some of them translated.
func mixed() []Flow {
	var list []Flow
	for i := range 48 {
		proto, status := ProtoTCP, Status(0)
		if i%3 == 0 {
			proto = ProtoUDP
		}
		if i%4 < 2 {
			status = SeenReply | Assured
		}
		src, dst := fmt.Sprintf("10.0.0.%d:%d", 1+i%2, 1000+i), "10.0.1.1:443"
		if i%5 == 0 {
			src, dst = fmt.Sprintf("[fd00::%d]:%d", 1+i%2, 1000+i), "[fd00::1:1]:443"
		}
		f := entry(tuple(proto, src, dst))
		f.Status, f.Mark = status, uint32(i%6)
		switch i % 8 {
		case 3:
			f.Zone = 7
		case 5:
			f.OriginalZone = 9
		case 6:
			f.Reply.SrcPort = 8443
		}
		list = append(list, f)
	}
	none, both, original, reply := zoned()
	for _, f := range []*Flow{&none, &both, &original, &reply} {
		f.Mark = 0x105
	}
	return append(list, none, both, original, reply, entry(tupleEcho), entry(tupleUDP6),
		entry(tuple(ProtoGRE, "10.0.0.1:18", "10.0.0.2:52")), entry(tuple(112, "10.0.0.1:0", "224.0.0.18:0")))
}

// kernelParts are filters that the kernel may check, and the feature each
// needs.
var kernelParts = []struct{ feature, expr string }{
	{"family", "-f ipv4"}, {"family", "-f ipv6"}, {"family", "-s 10.0.0.0/31"},
	{"mark", "-m 3"}, {"mark", "-m 0"}, {"mark", "-m 0x5/0xff"}, {"mark", "-m 0x0/0x1"}, {"mark", "-f ipv6 -m 0x1/0x1"},
	{"status", "-u UNREPLIED"}, {"status", "-u ASSURED"}, {"status", "-u CONFIRMED,!ASSURED"}, {"status", "-u DYING"},
	{"zone", "-w 0"}, {"zone", "-w 7"}, {"zone", "-w 9"}, {"zone", "-w 11"}, {"zone", "-w 5"},
	{"tuple", "-s 10.0.0.1"}, {"tuple", "-s 10.0.0.2 -d 10.0.1.1"}, {"tuple", "-s ::ffff:10.0.0.2"},
	{"tuple", "-f ipv4 -p tcp"}, {"tuple", "-f ipv6 -p udp"}, {"tuple", "-f ipv4 -p gre"}, {"tuple", "-f ipv4 -p icmp"}, {"tuple", "-f ipv4 -p 112"},
	{"tuple", "-f ipv4 -p tcp --dport 443"}, {"tuple", "-f ipv6 -p udp --sport 1015"}, {"tuple", "-f ipv4 -p tcp --sport 1004:1004 --dport 443"},
	{"tuple", "-s 10.0.0.1 -p tcp --sport 40000 --dport 443"}, {"tuple", "-f ipv4 --state ESTABLISHED"},
	{"zone and mark", "-w 7 -m 3"}, {"zone and tuple", "-w 7 -f ipv4 -p udp"},
	{"all parts", "-f ipv4 -p tcp -s 10.0.0.2 -u !ASSURED -m 0x1/0x1 -w 7"},
}

// TestKernelFilters compares what the kernel sends with the whole table
// filtered in Go: nothing that matches may be missing, and what should not have
// come must be what Explain says.
func TestKernelFilters(t *testing.T) {
	c, _ := emptyTable(t)
	create(t, c, mixed()...)
	whole, err := all(t, c, nil)
	must(t, err)
	support := make(map[string]bool)
	for _, tt := range kernelParts {
		f, err := ParseFilter(tt.expr)
		must(t, err)
		want := slices.DeleteFunc(slices.Clone(whole), func(flow Flow) bool { return !f.Match(&flow) })
		if len(want) == 0 && tt.expr != "-u DYING" && tt.expr != "-w 5" {
			t.Errorf("%s: nothing in the table matches", tt.expr)
		}
		got, err := all(t, c, &f)
		if !sameFlows(got, want) || err != nil {
			t.Errorf("%s: got %d, %v, want %d", tt.expr, len(got), err, len(want))
		}
		plan, err := c.Explain(within(t), &f)
		must(t, err)
		checkExplained(t, c, &f, plan, whole)
		inKernel := true
		for _, part := range plan.Parts {
			inKernel = inKernel && (part.push == 0 || part.Place == InKernel)
		}
		support[tt.feature] = inKernel
	}
	for _, feature := range []string{"mark", "status", "zone", "tuple"} {
		t.Logf("SUPPORT: dump filter by %s in the kernel, as Explain finds: %s", feature, yesNo(support[feature]))
	}
}

// checkExplained compares the rows that the kernel sends with what the parts
// that the plan places there leave of the table.
func checkExplained(t *testing.T, c *Conn, f *Filter, plan Plan, whole []Flow) {
	t.Helper()
	var parts []string
	for _, part := range plan.Parts {
		if part.Place == InKernel {
			parts = append(parts, part.Expr)
		}
		if part.Place == PlaceUnknown {
			t.Errorf("%v: %+v", f, part)
		}
	}
	kernel, err := ParseFilter(strings.Join(parts, " "))
	must(t, err)
	want, rows := 0, 0
	for _, flow := range whole {
		if kernel.Match(&flow) {
			want++
		}
	}
	for m, err := range c.rows(within(t), f) {
		must(t, err)
		if rows++; len(parts) > 0 && !m.Filtered() {
			t.Logf("%v: filtered, and the kernel does not say so", f)
		}
	}
	if rows != want {
		t.Errorf("%v: the kernel sent %d rows, and %q leaves %d", f, rows, kernel, want)
	}
}

// TestZeroing reads counters twice: the second time there is nothing in them,
// and what a filter left out still has its own.
func TestZeroing(t *testing.T) {
	client, server := lab.Two(t)
	must(t, client.SetSysctl("net.netfilter.nf_conntrack_acct", "1"), client.Rules(within(t), nft.Table{
		Family: nft.INet, Name: "track", Chains: []nft.Chain{{Name: "out", Hook: nft.Output, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Accept}}}}}))
	c := dialHost(t, client)
	for _, to := range []netip.Addr{server.Addr4(), server.Addr6()} {
		datagram(t, client, netip.AddrPortFrom(to, 9))
	}
	v6 := &Filter{IPv6Only: true, Proto: ProtoUDP, DstPort: PortRange{9, 0}}
	packets := func(f *Filter, flows []Flow) (n uint64) {
		for _, flow := range flows {
			if f.Match(&flow) && flow.Original.Proto == ProtoUDP {
				n += flow.OriginalCounter.Packets
			}
		}
		return n
	}
	flows, err := all(t, c, nil)
	must(t, err)
	if packets(nil, flows) != 2 {
		t.Fatalf("want a packet of each family: %v", flows)
	}
	for _, want := range []uint64{1, 0} {
		var zeroed []Flow
		for flow, err := range c.AllZeroing(within(t), v6) {
			if err != nil {
				plan, _ := c.Explain(within(t), v6)
				t.Skipf("%v\n%v", err, plan)
			}
			zeroed = append(zeroed, flow)
		}
		if n := packets(v6, zeroed); n != want || len(zeroed) != 1 {
			t.Errorf("got %d packets, want %d: %v", n, want, zeroed)
		}
	}
	flows, err = all(t, c, &Filter{IPv4Only: true})
	must(t, err)
	if packets(nil, flows) != 1 {
		t.Errorf("the entry left out: %v", flows)
	}
}

// datagram sends one that nobody answers.
func datagram(t *testing.T, from *lab.Host, to netip.AddrPort) {
	t.Helper()
	conn, err := from.Dial(within(t), "udp", netip.AddrPort{}, to, nil)
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	_, err = conn.Write([]byte("x"))
	must(t, err)
}

// toolExprs are expressions that conntrack(8) takes for its options, too.
var toolExprs = []string{
	"-p tcp", "-p udp", "-p icmp", "-p icmpv6", "-p gre", "-f ipv4", "-f ipv6", "-f ipv6 -p tcp",
	"-f ipv4 -s CLIENT4", "-f ipv6 -s CLIENT6", "-f ipv6 -d SERVER6 -p udp", "-f ipv4 -s 10.0.0.0/24", "-f ipv6 -s fd00::/64",
	"-f ipv4 -r SERVER4", "-f ipv4 -q 192.0.2.77", "-p tcp --dport 443", "-p tcp --sport 1001", "-p tcp --reply-port-src 80",
	"-p tcp --state SYN_SENT", "-p tcp --state ESTABLISHED", "-f ipv6 -p tcp --state TIME_WAIT", "-p tcp --state NONE",
	"-u ASSURED", "-u UNREPLIED", "-u SEEN_REPLY", "-p udp -u ASSURED", "-m 3", "-m 0x1/0x1", "-m 0", "-p tcp -m 0",
	"-w 7", "-p tcp --orig-zone 9", "--reply-zone 11",
	"-p icmp --icmp-type 8",
	// Of ICMP, whose reply has another type, conntrack(8) thinks that ports are translated.
	"-f ipv4 -p udp -n", "-f ipv4 -p udp -g", "-f ipv4 -p tcp -g", "-f ipv4 -p tcp -j", "-f ipv4 -p udp -j",
	// And of -j ADDR it looks at the source alone.
	"-f ipv4 -n 192.0.2.77", "-f ipv4 -g SERVER4", "-f ipv4 -j 192.0.2.77",
}

// TestAgainstConntrack lists the same table with the same options.
func TestAgainstConntrack(t *testing.T) {
	lab.Tool(t, "conntrack")
	s := newStage(t)
	server := netip.PrefixFrom(s.server.Addr4(), 32)
	must(t, s.client.Rules(within(t), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
		{Name: "snat", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{{
			Proto: nft.UDP, DstPort: 99, Dst: server, Verdict: nft.SNAT, To: netip.MustParseAddrPort("192.0.2.77:0"),
		}}},
		{Name: "dnat", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDstNAT, Rules: []nft.Rule{{
			Proto: nft.UDP, DstPort: 98, Dst: netip.MustParsePrefix("192.0.2.99/32"), Verdict: nft.DNAT, To: netip.AddrPortFrom(server.Addr(), 97),
		}}},
	}}))
	c := dialHost(t, s.client)
	s.everything(c)
	s.settled(c)
	datagram(t, s.client, netip.MustParseAddrPort("192.0.2.99:98"))
	datagram(t, s.client, netip.AddrPortFrom(s.server.Addr4(), 99))
	names := strings.NewReplacer("CLIENT4", s.client.Addr4().String(), "CLIENT6", s.client.Addr6().String(),
		"SERVER4", s.server.Addr4().String(), "SERVER6", s.server.Addr6().String())
	for _, expr := range toolExprs {
		expr = names.Replace(expr)
		t.Run(expr, func(t *testing.T) {
			f, err := ParseFilter(expr)
			must(t, err)
			eventually(t, func() (got, want map[string]int) {
				return timeouts(t, filtered(t, c, &f)), timeouts(t, toolLists(t, s.client, expr))
			})
		})
	}
}

// filtered is what All shows of the table.
func filtered(t *testing.T, c *Conn, f *Filter) []byte {
	t.Helper()
	flows, err := all(t, c, f)
	must(t, err)
	var b []byte
	for _, flow := range flows {
		b, _ = flow.AppendText(b)
		b = append(b, '\n')
	}
	return b
}

// toolLists is what conntrack -L shows of it, of both families unless the
// expression names one.
func toolLists(t *testing.T, h *lab.Host, expr string) []byte {
	t.Helper()
	families := []string{"-f ipv4", "-f ipv6"}
	if strings.Contains(expr, "-f ") {
		families = []string{""}
	}
	var text []byte
	for _, family := range families {
		if strings.Contains(expr, "icmp ") && family == "-f ipv6" || strings.Contains(expr, "icmpv6") && family == "-f ipv4" {
			continue
		}
		args := append([]string{"-L", "-o", "extended,id"}, strings.Fields(expr+" "+family)...)
		out, err := h.Exec(within(t), "conntrack", args...)
		must(t, err)
		text = append(text, out...)
	}
	return deltaTime.ReplaceAll(text, nil)
}
