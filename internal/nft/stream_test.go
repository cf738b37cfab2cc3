package nft_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// traceData is a payload of NFT_MSG_TRACE, with or without the packet.
func traceData(id uint32, header []byte) []byte {
	b := nfnl.NewNetfilter(10, 17, 0, uint8(nft.INet))
	b.String(1, "t")
	b.U32(4, uint32(nft.TraceRule))
	b.Nested(5, func() { b.U32(1, 0xffffffff) }) // NFT_CONTINUE
	b.U32(6, id)
	if header != nil {
		b.U32(10, 3) // NFTA_TRACE_IIF
		b.Bytes(8, header)
		b.U32(18, 77) // NFTA_TRACE_CT_ID
	}
	return b.Message().Data
}

const msgTrace = 0xa11

// TestTracesOverrun loses messages: what comes after is not taken for the same
// packet.
func TestTracesOverrun(t *testing.T) {
	nl, peer := nfnltest.Dial(func(nfnltest.Request) [][]byte { return nil })
	message := func(id uint32, header []byte) []byte { return nfnltest.Message(msgTrace, 0, 0, traceData(id, header)) }
	header := slices.Repeat([]byte{0x45}, 20)
	ready := func() {
		peer.Multicast(9, message(1, header), nfnltest.Message(newRule, 0, 0, nil), message(1, nil), message(2, nil), message(1+512, nil), nil, message(1, nil),
			nfnltest.Message(msgTrace, 0, 0, []byte{1}))
	}
	var got []string
	for trace, err := range nft.NewConn(nl).Traces(t.Context(), &nft.TraceOptions{ReadBuffer: 1, Ready: ready}) {
		switch n := len(trace.Headers.Network()); {
		case errors.Is(err, nft.ErrOverrun):
			got = append(got, "lost")
		case err != nil:
			got = append(got, err.Error())
		case n == 20 && trace.InIndex == 3 && trace.CT.ID == 77:
			got = append(got, "packet")
		case n == 0 && trace.InIndex == 0 && trace.CT == nft.TraceCT{}:
			got = append(got, "bare")
		default:
			t.Errorf("%+v", trace)
		}
	}
	want := []string{"packet", "packet", "bare", "bare", "lost", "bare", "nft: trace: netlink message truncated or malformed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTracesEnd(t *testing.T) {
	c, _ := dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	for _, err := range c.Traces(ctx, &nft.TraceOptions{Ready: cancel}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range c.Traces(t.Context(), nil) {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: got %v", err)
		}
	}
}

// TestHeaders puts packets together from what the kernel sends of them.
func TestHeaders(t *testing.T) {
	six := func(next byte) []byte { return append([]byte{0x60, 0, 0, 0, 0, 0, next}, make([]byte, 33)...) }
	four := func(words byte, n int) []byte { return append([]byte{0x40 | words}, make([]byte, n-1)...) }
	tests := []struct {
		name   string
		header []byte
		want   int // bytes, or -1
	}{
		{"IPv4", four(5, 20), 24},
		{"IPv4 with options", four(10, 40), 44},
		{"IPv4 with more options than are sent", four(11, 44), -1},
		{"IPv6", six(6), 44},
		{"IPv6 with a fragment header", six(44), -1},
		{"IPv6 cut short", six(6)[:30], -1},
		{"neither", four(5, 20)[1:], -1},
	}
	for _, test := range tests {
		b := nfnl.NewNetfilter(10, 17, 0, 1)
		b.Bytes(8, test.header)
		b.Bytes(9, []byte{1, 2, 3, 4})
		var trace nft.Trace
		if err := nft.NewTraceDecoder().Decode(b.Message().Data, &trace); err != nil {
			t.Fatal(err)
		}
		got, ok := trace.Headers.AppendPacket(nil)
		if ok != (test.want > 0) || ok && (len(got) != test.want || !slices.Equal(got[test.want-4:], []byte{1, 2, 3, 4})) {
			t.Errorf("%s: % x, %v, want %d bytes", test.name, got, ok, test.want)
		}
	}
}

// TestOddTraces decodes what only odd rules lead to.
func TestOddTraces(t *testing.T) {
	d := nft.NewTraceDecoder()
	for i := range 5000 {
		b := nfnl.NewNetfilter(10, 17, 0, 1)
		b.String(2, strconv.Itoa(i))
		b.Nested(5, func() { b.U32(1, 5<<16|uint32(nft.CodeQueue)) })
		var trace nft.Trace
		if err := d.Decode(b.Message().Data, &trace); err != nil || trace.Chain != strconv.Itoa(i) || trace.Verdict != nft.CodeQueue {
			t.Fatalf("%+v, %v", trace, err)
		}
	}
	if n := d.Names(); n > 4096 {
		t.Errorf("%d names are kept", n)
	}
	for _, trace := range []nft.Trace{{}, {Type: nft.TraceReturn}, {Type: nft.TraceRule, Verdict: nft.CodeQueue}} {
		if trace.Refused() {
			t.Errorf("%+v is refused", trace)
		}
	}
	resets := nft.Facts{Verdict: nft.CodeAccept, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}}
	if resets.DropsResets() {
		t.Errorf("%+v drops", resets)
	}
}

func TestWords(t *testing.T) {
	var got []string
	for _, c := range []nft.Code{
		nft.CodeDrop, nft.CodeAccept, nft.CodeStolen, nft.CodeQueue, nft.CodeRepeat, 5,
		nft.CodeContinue, nft.CodeBreak, nft.CodeJump, nft.CodeGoto, nft.CodeReturn, -6,
	} {
		got = append(got, c.String())
	}
	for _, typ := range []nft.TraceType{0, nft.TracePolicy, nft.TraceReturn, nft.TraceRule, 9} {
		got = append(got, typ.String())
	}
	const want = "drop accept stolen queue repeat verdict 5 continue break jump goto return verdict -6 unknown policy return rule unknown"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

// listing answers as a kernel with one chain whose rule set is changed so many
// times while it is read.
func listing(changes int) nfnltest.Handler {
	generation, dumps := uint32(5), 0
	return func(r nfnltest.Request) [][]byte {
		answer := func(typ uint16, fill func(*nfnl.Builder)) []byte {
			b := nfnl.NewNetfilter(10, 0, 0, uint8(nft.INet))
			fill(b)
			return nfnltest.Message(typ, nfnl.Multi, r.Seq, b.Message().Data)
		}
		switch r.Type {
		case 0xa10: // NFT_MSG_GETGEN
			return [][]byte{
				answer(0xa0f, func(b *nfnl.Builder) { b.U32(1, generation) }),
				nfnltest.Acknowledge(r, 0, "", 0),
			}
		case 0xa01: // NFT_MSG_GETTABLE
			return [][]byte{answer(newTable, func(b *nfnl.Builder) { b.String(1, "t"); b.U32(2, 1); b.U64(4, 9) }), nfnltest.Done(r.Seq, 0)}
		case getChain:
			return [][]byte{answer(newChain, func(b *nfnl.Builder) { b.String(1, "t"); b.U64(2, 3); b.String(3, "c") }), nfnltest.Done(r.Seq, 0)}
		}
		chain := "c"
		switch dumps++; {
		case dumps > changes:
		case dumps%2 == 0: // one that came after the chains were listed
			chain = "another"
		default:
			generation++
		}
		return [][]byte{answer(newRule, func(b *nfnl.Builder) { b.String(1, "t"); b.String(2, chain); b.U64(3, 4) }), nfnltest.Done(r.Seq, 0)}
	}
}

func TestRulesetChanged(t *testing.T) {
	for changes := range 5 {
		nl, _ := nfnltest.Dial(listing(changes))
		set, err := nft.NewConn(nl).Ruleset(t.Context())
		if err != nil || set.Generation != 5+uint32(changes+1)/2 || len(set.Tables) != 1 || !set.Tables[0].Dormant || set.Tables[0].Handle != 9 {
			t.Errorf("%d changes: got %+v, %v", changes, set, err)
			continue
		}
		if chains := set.Tables[0].Chains; len(chains) != 1 || len(chains[0].Rules) != 1 || chains[0].Handle != 3 || chains[0].Rules[0].Handle != 4 {
			t.Errorf("%d changes: got %+v", changes, chains)
		}
	}
	nl, _ := nfnltest.Dial(listing(5))
	if set, err := nft.NewConn(nl).Ruleset(t.Context()); !errors.Is(err, nft.ErrChanged) || set != nil {
		t.Errorf("5 changes: got %+v, %v, want ErrChanged", set, err)
	}
	nl, _ = nfnltest.Dial(func(r nfnltest.Request) [][]byte { return [][]byte{nfnltest.Acknowledge(r, syscall.EPERM, "", 0)} })
	if _, err := nft.NewConn(nl).Ruleset(t.Context()); err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without privilege: got %v", err)
	}
}

// TestRuleset reads back what Apply has written.
func TestRuleset(t *testing.T) {
	t.Parallel()
	c, _ := dial(t)
	table := owned("what to restore")
	table.Chains[0].Priority, table.Chains[0].Policy = -7, nft.PolicyDrop
	if err := c.Apply(within(t), table); err != nil {
		t.Fatal(err)
	}
	set, err := c.Ruleset(within(t))
	if err != nil || len(set.Tables) != 1 || len(set.Tables[0].Chains) != 1 {
		t.Fatalf("got %+v, %v", set, err)
	}
	got := set.Tables[0]
	chain := got.Chains[0]
	if got.Family != nft.INet || got.Name != "t" || got.Comment != "keeps what to restore" || got.Owner != 0 || got.Dormant || got.Handle == 0 {
		t.Errorf("table %+v", got)
	}
	if chain.Name != "c" || !chain.Base || chain.Type != "filter" || chain.Hook != nft.Input || chain.Priority != -7 || chain.Policy != nft.PolicyDrop {
		t.Errorf("chain %+v", chain)
	}
	ref := nft.RuleRef{Family: nft.INet, Table: "t", Chain: "c", Handle: chain.Rules[0].Handle}
	if rule, ok := set.Rule(ref); !ok || rule.Comment != "what to restore" || rule.Text() != `counter packets 0 bytes 0 comment "what to restore"` {
		t.Errorf("rule %+v, %v", rule, ok)
	}
	rule := chain.Rules[0]
	rule.Comment = "\x1b[2J\nx"
	if got := rule.Text(); !strings.HasSuffix(got, "comment \"\ufffd[2J\ufffdx\"") {
		t.Errorf("unprintable: %q", got)
	}
	ref.Handle++
	if rule, ok := set.Rule(ref); ok {
		t.Errorf("a rule that is not there: %+v", rule)
	}
}

// BenchmarkTraced sends datagrams that one rule counts: alone, and while their
// way, of three messages each, is traced and read.
func BenchmarkTraced(b *testing.B) {
	for _, trace := range []bool{false, true} {
		b.Run(map[bool]string{false: "floor", true: "traced"}[trace], func(b *testing.B) {
			h := lab.New(b).MustHost(b, "host")
			if err := h.Rules(b.Context(), table(nft.INet, nft.Chain{Hook: nft.Input, Priority: 1}, nft.Rule{Proto: nft.UDP, Trace: trace, Counter: true})); err != nil {
				b.Fatal(err)
			}
			conn, err := h.ListenPacket("udp4", netip.AddrPort{})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9"))
			read := reading(b, h)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.WriteTo([]byte("x"), to); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(read())/float64(b.N), "messages/op")
		})
	}
}

// reading reads traces until the returned function is called, which tells how
// many there were.
func reading(b *testing.B, h *lab.Host) (stop func() int) {
	c, err := nft.Dial(h.NetNS())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	count, ready := make(chan int), make(chan struct{})
	go func() {
		n := 0
		for _, err := range c.Traces(ctx, &nft.TraceOptions{Ready: func() { close(ready) }}) {
			if err == nil {
				n++
			}
		}
		count <- n
	}()
	<-ready
	return func() int {
		cancel()
		defer c.Close()
		return <-count
	}
}
