package nft_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// silence is how long a test waits for what must not come.
const silence = 300 * time.Millisecond

// connect tells how a connect by TCP ends: nil, an errno, or
// context.DeadlineExceeded.
func connect(ctx context.Context, from *lab.Host, to netip.AddrPort) error {
	c, err := from.Dial(ctx, "tcp", netip.AddrPort{}, to, nil)
	if err == nil {
		return c.Close()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// serve accepts and closes connections at a port of a host, both families.
func serve(t *testing.T, h *lab.Host) (port uint16) {
	t.Helper()
	l, err := h.Listen("tcp", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// verdictTests are verdicts and how a connect ends that meets them.
var verdictTests = []struct {
	verdict      nft.Verdict
	want4, want6 error
}{
	{nft.Continue, nil, nil},
	{nft.Accept, nil, nil},
	{nft.Drop, context.DeadlineExceeded, context.DeadlineExceeded},
	{nft.RejectAdminProhibited, syscall.EHOSTUNREACH, syscall.EACCES},
	{nft.RejectPort, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
	{nft.RejectHost, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH},
	{nft.RejectNoRoute, syscall.ENETUNREACH, syscall.ENETUNREACH},
	{nft.RejectNetProhibited, syscall.ENETUNREACH, nil},
	{nft.RejectHostProhibited, syscall.EHOSTUNREACH, nil},
	{nft.RejectTCPReset, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
}

// TestVerdicts connects to a server with one rule for TCP.
func TestVerdicts(t *testing.T) {
	for _, test := range verdictTests {
		t.Run(test.verdict.String(), func(t *testing.T) {
			t.Parallel()
			client, server := lab.Two(t)
			port := serve(t, server)
			rule := nft.Rule{Proto: nft.TCP, DstPort: port, Counter: true, Verdict: test.verdict, Comment: "it"}
			if err := server.Rules(within(t), input(rule)); err != nil {
				t.Fatal(err)
			}
			ctx := within(t)
			if test.verdict == nft.Drop {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, silence)
				defer cancel()
			}
			got4 := connect(ctx, client, netip.AddrPortFrom(server.Addr4(), port))
			hits4 := hits(t, server)
			if !errors.Is(got4, test.want4) || hits4 == 0 {
				t.Errorf("IPv4: got %v after %d packets, want %v", got4, hits4, test.want4)
			}
			if test.verdict == nft.Drop {
				return // IPv6 would find the time used up
			}
			got6 := connect(ctx, client, netip.AddrPortFrom(server.Addr6(), port))
			hits6 := hits(t, server) - hits4
			ipv4Only := test.want4 != nil && test.want6 == nil
			if !errors.Is(got6, test.want6) || (hits6 == 0) != ipv4Only {
				t.Errorf("IPv6: got %v after %d packets, want %v", got6, hits6, test.want6)
			}
		})
	}
}

// hits is what the only rule has counted.
func hits(t *testing.T, h *lab.Host) uint64 {
	t.Helper()
	counters, err := h.Counters(within(t), nft.INet, "t", "c")
	if err != nil || len(counters) != 1 || !counters[0].Counted || counters[0].Comment != "it" {
		t.Fatalf("counters: %+v, %v", counters, err)
	}
	return counters[0].Packets
}

// TestMatches counts the packets of one connect with every kind of match.
func TestMatches(t *testing.T) {
	client, server := lab.Two(t)
	port := serve(t, server)
	rules := []nft.Rule{
		{CTState: nft.New, Proto: nft.TCP, DstPort: port},
		{CTState: nft.Untracked | nft.Invalid},
		{InIface: "client", Src: prefix("192.0.2.0/30"), Dst: prefix("192.0.2.2/32"), Proto: nft.TCP},
		{InIface: "other"},
		{Src: prefix("192.0.2.128/25")},
		{Src: prefix("2001:db8:1::/64"), Dst: prefix("2001:db8:1::2/128"), Proto: nft.TCP},
		{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.SYN | nft.ACK, Value: nft.SYN}},
		{Proto: nft.TCP, SrcPort: port},
	}
	matches := []bool{true, false, true, false, false, true, true, false}
	for i := range rules {
		rules[i].Counter = true
	}
	if err := server.Rules(within(t), input(rules...)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{server.Addr4(), server.Addr6()} {
		if err := connect(within(t), client, netip.AddrPortFrom(a, port)); err != nil {
			t.Fatal(err)
		}
	}
	counters, err := server.Counters(within(t), nft.INet, "t", "c")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range counters {
		if (c.Packets > 0) != matches[i] || (c.Bytes > 0) != matches[i] {
			t.Errorf("rule %d: %+v, want a match: %v", i+1, c, matches[i])
		}
	}
	if counters[0].Packets != 2 || counters[6].Packets != 2 {
		t.Errorf("2 connections, %d of them new, by %d SYNs", counters[0].Packets, counters[6].Packets)
	}
}

// TestTranslation connects to a port where nobody listens, and to an address
// nobody has.
func TestTranslation(t *testing.T) {
	client, router, server := lab.Three(t)
	port := serve(t, server)
	to4, to6 := netip.AddrPortFrom(server.Addr4(), port), netip.AddrPortFrom(server.Addr6(), port)
	dnat := nft.Chain{Name: "dnat", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT, Rules: []nft.Rule{
		{InIface: "client", Proto: nft.TCP, DstPort: 1, Verdict: nft.DNAT, To: to4},
		{InIface: "client", Proto: nft.TCP, DstPort: 1, Verdict: nft.DNAT, To: to6},
	}}
	snat := nft.Chain{Name: "snat", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
		{OutIface: "server", Counter: true, Verdict: nft.Masquerade},
	}}
	redirect := table(nft.INet, nft.Chain{Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT},
		nft.Rule{Proto: nft.TCP, DstPort: 2, Verdict: nft.Redirect, To: netip.AddrPortFrom(netip.Addr{}, port)})
	err := errors.Join(
		router.Rules(within(t), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{dnat, snat}}),
		server.Rules(within(t), redirect),
	)
	if err != nil {
		t.Fatal(err)
	}
	router4, router6 := router.Addrs(client)
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(router4, 1), netip.AddrPortFrom(router6, 1),
		netip.AddrPortFrom(server.Addr4(), 2), netip.AddrPortFrom(server.Addr6(), 2),
	} {
		if err := connect(within(t), client, to); err != nil {
			t.Errorf("%v: %v", to, err)
		}
	}
	counters, err := router.Counters(within(t), nft.INet, "nat", "snat")
	if err != nil || counters[0].Packets != 4 {
		t.Errorf("masqueraded: %+v, %v, want 4 connections", counters, err)
	}
}

// TestNoTrack exempts what comes in from tracking, and sees it untracked.
func TestNoTrack(t *testing.T) {
	client, server := lab.Two(t)
	port := serve(t, server)
	err := server.Rules(within(t), nft.Table{Family: nft.INet, Name: "t", Chains: []nft.Chain{
		{Name: "raw", Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.NoTrack}}},
		{Name: "c", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.Untracked, Counter: true, Comment: "it"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := connect(within(t), client, netip.AddrPortFrom(server.Addr4(), port)); err != nil {
		t.Error(err)
	}
	if hits(t, server) == 0 {
		t.Error("no packet was untracked")
	}
}

func TestReplaceAndDelete(t *testing.T) {
	c, _ := dial(t)
	ctx := within(t)
	other := input(nft.Rule{Counter: true})
	other.Name = "other"
	if err := c.Apply(ctx, small, other); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ctx, input(nft.Rule{Counter: true, Comment: "only"})); err != nil {
		t.Fatal(err)
	}
	want := []nft.Counter{{Counted: true, Comment: "only"}}
	if got, err := c.Counters(ctx, nft.INet, "t", "c"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := c.Delete(ctx, nft.INet, "t"); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, nft.INet, "t"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete again: got %v, want fs.ErrNotExist", err)
	}
	if _, err := c.Counters(ctx, nft.INet, "t", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("counters of a deleted table: got %v, want fs.ErrNotExist", err)
	}
	if got, err := c.Counters(ctx, nft.INet, "other", "c"); err != nil || len(got) != 1 {
		t.Errorf("the other table: %+v, %v", got, err)
	}
}
