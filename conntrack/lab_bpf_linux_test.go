package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// eventFilters are filters of every part that the kernel checks of events, and
// of ones it does not.
var eventFilters = map[string]Filter{
	"TCP":                  {Proto: ProtoTCP},
	"ICMPv6":               {Proto: ProtoICMPv6},
	"IPv4":                 {IPv4Only: true},
	"IPv6":                 {IPv6Only: true},
	"source host":          {Src: netip.MustParsePrefix("10.0.1.10/32")},
	"source network":       {Src: netip.MustParsePrefix("10.0.0.0/23")},
	"any IPv4 source":      {Src: netip.MustParsePrefix("0.0.0.0/0")},
	"any IPv6 destination": {Dst: netip.MustParsePrefix("::/0")},
	"unmasked":             {Dst: netip.PrefixFrom(netip.MustParseAddr("192.0.2.77"), 26)},
	"IPv6 host":            {Src: netip.MustParsePrefix("fd00::9/128")},
	"IPv6, 33 bits":        {Src: netip.MustParsePrefix("fd00::/33")},
	"IPv6, odd bits":       {Src: netip.MustParsePrefix("fd00::/125"), Dst: netip.MustParsePrefix("fd01::/17")},
	"assured":              {StatusSet: Assured},
	"unreplied":            {StatusUnset: SeenReply},
	"assured, no helper":   {StatusSet: Assured | Confirmed, StatusUnset: Helper},
	"mapped source":        {Src: netip.MustParsePrefix("::ffff:10.0.0.0/119")},
	"port of a protocol":   {Proto: ProtoUDP, DstPort: PortRange{First: 443, Last: 443}},
	"all of them": {Proto: ProtoUDP, IPv4Only: true, Src: netip.MustParsePrefix("10.0.0.0/8"),
		Dst: netip.MustParsePrefix("192.0.2.0/24"), StatusSet: Confirmed, StatusUnset: Expected},
}

// looseFilters are filters of which the kernel checks a part, or only of events
// that have what they look at: an unmarked flow has no mark, and ICMP no port.
var looseFilters = map[string]Filter{
	"reply of a family": {ReplyDst: netip.MustParsePrefix("10.0.0.0/8")},
	"by state":          {TCPStates: TCPStateSet(TCPEstablished, TCPSynSent)},
	"port":              {DstPort: PortRange{First: 443}},
	"ports":             {SrcPort: PortRange{First: 1, Last: 1100}},
	"marked":            {Mark: 1, MarkMask: 1},
	"a mark":            {Mark: 3},
	"unmarked":          {MarkMask: ^uint32(0)},
}

// passing starts to listen with a program, and returns what gives the next n
// events it let through.
func passing(t *testing.T, c *Conn, program []nfnl.Instruction) func(n int) []Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done, events := make(chan bool), make(chan error, 1), make(chan Event, 10_000)
	cfg := nfnl.ListenConfig{Groups: []uint32{1, 2, 3}, ReadBuffer: defaultEventBuffer, Filter: program, Ready: func() { close(ready) }}
	go func() {
		var last error
		for m, err := range c.nl.Listen(ctx, cfg) {
			var e Event
			if last = err; err == nil {
				last = e.decode(m)
			}
			events <- e
		}
		done <- last
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return func(n int) []Event {
		got := make([]Event, 0, n)
		for ctx := within(t); len(got) < n; {
			select {
			case e := <-events:
				got = append(got, e)
			case <-ctx.Done():
				t.Fatalf("%d of %d events", len(got), n)
			}
		}
		return got
	}
}

// variety is flows of every protocol, family and status that the filters tell
// apart.
func variety() []Flow {
	list := flows(400)
	for i := range list {
		list[i].Mark = uint32(i % 5)
		switch i % 4 {
		case 0:
			list[i].Status = 0
		case 1:
			list[i].Status = SeenReply
		}
	}
	for i := range uint16(20) {
		v4, v6 := tupleEcho, tupleEcho
		v4.ICMPID = i
		v6.ICMPID, v6.Proto, v6.ICMPType = i, ProtoICMPv6, 128
		v6.Src, v6.Dst = netip.MustParseAddr("fd00::9"), netip.MustParseAddr("fd00:100::7")
		list = append(list, entry(v4), entry(v6))
	}
	return list
}

// TestEventFilters compares what the kernel lets through with what Filter.Match
// takes of all events: neither more nor less.
func TestEventFilters(t *testing.T) {
	c, _ := emptyTable(t)
	everything := passing(t, c, nil)
	filtered := make(map[string]func(int) []Event)
	for name, f := range eventFilters {
		filtered[name] = passing(t, c, f.events())
	}
	matched := make(map[string]int)
	for made := range slices.Chunk(variety(), 60) { // few enough for a small receive buffer
		churn(t, c, made)
		all := everything(2 * len(made))
		for name, f := range eventFilters {
			var want []Event
			for _, e := range all {
				if f.Match(&e.Flow) {
					want = append(want, e)
				}
			}
			matched[name] += len(want)
			for i, e := range filtered[name](len(want)) {
				if e != want[i] {
					t.Fatalf("%s: event %d of %d\ngot  %v %+v\nwant %v %+v", name, i, len(want), e.Type, plain(e.Flow), want[i].Type, plain(want[i].Flow))
				}
			}
		}
	}
	for name, f := range eventFilters {
		if n := matched[name]; n < 2 || n >= 2*len(variety()) && f.StatusUnset == 0 {
			t.Errorf("%s: %d events matched", name, n)
		}
	}
}

// TestEventFiltersLoose compares what Events tells with a filter and what
// matches of all events, where the kernel lets more through.
func TestEventFiltersLoose(t *testing.T) {
	c, _ := emptyTable(t)
	everything := passing(t, c, nil)
	filtered := make(map[string]*recorder)
	for name, f := range looseFilters {
		filtered[name] = recordEvents(t, c, EventOptions{Filter: &f})
	}
	matched := make(map[string]int)
	for made := range slices.Chunk(variety(), 60) {
		churn(t, c, made)
		for _, want := range everything(2 * len(made)) {
			for name, f := range looseFilters {
				if !f.Match(&want.Flow) {
					continue
				}
				matched[name]++
				if got := filtered[name].take(t); got != want {
					t.Fatalf("%s: event %d\ngot  %v %+v\nwant %v %+v", name, matched[name], got.Type, plain(got.Flow), want.Type, plain(want.Flow))
				}
			}
		}
	}
	for name := range looseFilters {
		if n := matched[name]; n < 2 || n >= 2*len(variety()) {
			t.Errorf("%s: %d events matched", name, n)
		}
	}
}

// TestEventFilterUnsure gives the kernel filters with parts it must leave to
// Go.
func TestEventFilterUnsure(t *testing.T) {
	for name, f := range map[string]*Filter{
		"none": nil, "zero": {}, "time left": {MinTimeout: 1}, "ports": {SrcPort: PortRange{1, 2}},
	} {
		if p := f.events(); p != nil {
			t.Errorf("%s: %v", name, p)
		}
	}
	c, _ := emptyTable(t)
	absent := program(nil)
	absent.check(path{ctaTupleMaster, ctaTupleIP, ctaIPv4Src}, nfnl.BPFWord, masked{0, ^uint32(0), 1})
	absent.check(path{ctaLabels}, nfnl.BPFWord, masked{0, ^uint32(0), 1})
	absent.check(path{ctaTupleOrig, ctaTupleZone}, nfnl.BPFByte, masked{0, 0xff, 1})
	pass := passing(t, c, append(absent, nfnl.Instruction{Code: nfnl.BPFReturn, K: nfnl.BPFReturnAll}))
	made := create(t, c, entry(tupleTCP), entry(tupleUDP6))
	for i, e := range pass(len(made)) {
		if e.Flow.Original != made[i].Original {
			t.Errorf("got %v, want %v", e.Flow, made[i])
		}
	}
}

// BenchmarkUnwantedEvent makes and deletes entries of which the reader wants
// none, and tells the processor time of the whole process, kernel and generator
// included, for each event: with the socket filter, without it, and with nobody
// listening.
func BenchmarkUnwantedEvent(b *testing.B) {
	unwanted := &Filter{Src: netip.MustParsePrefix("203.0.113.0/24")}
	for _, tt := range []struct {
		name    string
		listens bool
		program []nfnl.Instruction
	}{{"nobody", false, nil}, {"Go", true, nil}, {"kernel", true, unwanted.events()}} {
		b.Run(tt.name, func(b *testing.B) {
			c, _ := emptyTable(b)
			ctx, cancel := context.WithCancel(b.Context())
			done, ready := make(chan bool), make(chan bool)
			cfg := nfnl.ListenConfig{Groups: []uint32{1, 2, 3}, ReadBuffer: defaultEventBuffer, Filter: tt.program, Ready: func() { close(ready) }}
			go func() {
				defer close(done)
				if !tt.listens {
					close(ready)
					return
				}
				for m, err := range c.nl.Listen(ctx, cfg) {
					var e Event
					if err == nil && (e.decode(m) != nil || unwanted.Match(&e.Flow)) {
						b.Error("not unwanted")
					}
				}
			}()
			<-ready
			list := newChurner(b, flows(5000))
			before, events := cpuTime(b), 0
			for b.Loop() {
				list.turn(b, c)
				events += 2 * len(list.create)
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(events), "cpu-ns/event")
			cancel()
			<-done
		})
	}
}
