package reject

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// flooded is a host that logs and drops what comes, and counts it.
func flooded(t testing.TB, groups ...uint16) (client, server *lab.Host) {
	t.Helper()
	client, server = lab.Two(t)
	var rules []nft.Rule
	for _, g := range groups {
		rules = append(rules, nft.Rule{Proto: nft.TCP, Log: &nft.Log{Group: g, Prefix: "new "}})
	}
	rules = append(rules, nft.Rule{Proto: nft.TCP, Counter: true, Verdict: nft.Drop})
	must(t, server.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "refuse", Hook: nft.Input, Rules: rules},
	}}))
	return client, server
}

// dropped is what the last rule has counted.
func dropped(t testing.TB, h *lab.Host) int {
	t.Helper()
	counters, err := h.Counters(within(t), nft.INet, "filter", "refuse")
	must(t, err)
	return int(counters[len(counters)-1].Packets)
}

// syns are n first packets of so many flows in turn, at a rate, for at most most.
func syns(src, dst netip.Addr, n, flows, perSecond int, most time.Duration) iter.Seq[[]byte] {
	made := make([][]byte, flows)
	for i := range made {
		made[i] = tcpSegment(tcpTuple(src, uint16(20000+i%100), dst, uint16(1+i/100)), packet.SYN, 1, 0)
	}
	return func(yield func([]byte) bool) {
		start := time.Now()
		for i := range n {
			if i%64 == 0 {
				spent := time.Since(start)
				if spent > most {
					return
				}
				time.Sleep(time.Duration(i)*time.Second/time.Duration(perSecond) - spent)
			}
			if !yield(made[i%flows]) {
				return
			}
		}
	}
}

// floodWatch is what a Watch told during a flood.
type floodWatch struct {
	counts  map[conntrack.Tuple]int // the last of each flow
	lines   map[conntrack.Tuple]int
	lost    int
	overran bool
}

func (f *floodWatch) sum() int {
	n := f.lost
	for _, c := range f.counts {
		n += c
	}
	return n
}

// watchFlood watches until the flood has ended and all of it is accounted for.
func watchFlood(t testing.TB, server *lab.Host, cfg Config, flood func() error) *floodWatch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cfg.NetNS = server.NetNS()
	sent := make(chan error, 1)
	cfg.Ready = func() { go func() { sent <- flood() }() }
	f := &floodWatch{counts: make(map[conntrack.Tuple]int), lines: make(map[conntrack.Tuple]int)}
	over, want := false, 0
	for v, err := range Watch(ctx, &cfg) {
		if lost, ok := errors.AsType[*Lost](err); ok {
			f.lost += int(lost.Count)
			f.overran = f.overran || lost.Count == 0
		} else if err != nil {
			must(t, ctx.Err())
			break
		} else if v.Evidence.Refusal != Counted {
			f.counts[v.Flow] = v.Count
			f.lines[v.Flow]++
		}
		select {
		case err := <-sent:
			must(t, err)
			over, want = true, dropped(t, server)
		default:
		}
		if over && f.sum() >= want {
			break
		}
	}
	if got := f.sum(); !over || got != want {
		t.Errorf("%d packets are told or reported lost, of %d that the rule dropped", got, want)
	}
	return f
}

// TestLiveFlood refuses 50,000 packets a second of 10,000 flows: all are counted
// or reported lost, each flow has its line, and the memory stays small. That is
// so whether the rules log a packet once, or Install twice.
func TestLiveFlood(t *testing.T) {
	for name, cfg := range map[string]Config{"logged": {Groups: []uint16{group}}, "installed": {Install: &Install{}}} {
		t.Run(name, func(t *testing.T) { liveFlood(t, cfg) })
	}
}

func liveFlood(t *testing.T, cfg Config) {
	const rate = 50_000
	flows, packets := 10_000, 75_000
	if testing.Short() {
		flows, packets = 500, 2500
	}
	client, server := flooded(t, cfg.Groups...)
	before := heap()
	start := time.Now()
	cfg.Repeat, cfg.SourceFlows = time.Second, flows
	var during uint64
	f := watchFlood(t, server, cfg, func() error {
		err := send(client, server.Addr4(), syns(client.Addr4(), server.Addr4(), packets, flows, rate, 4*time.Second))
		during = heap()
		return err
	})
	took := time.Since(start)
	t.Logf("%d flows, %d packets, %d of them lost, in %v; heap %d KiB", len(f.counts), f.sum(), f.lost, took.Round(time.Millisecond), (int64(during)-int64(before))>>10)
	if len(f.counts) != flows && f.lost == 0 {
		t.Errorf("%d flows, want %d", len(f.counts), flows)
	}
	for flow, n := range f.lines {
		if most := 3 + int(took/cfg.Repeat); n > most {
			t.Errorf("%d lines on %v, want %d at most", n, flow, most)
		}
	}
	if grown := int64(during) - int64(before); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// TestLiveScan asks for 2,000 ports from one address: few lines, and none
// forgotten.
func TestLiveScan(t *testing.T) {
	t.Parallel()
	const ports, apart = 2000, 16
	client, server := flooded(t, group)
	f := watchFlood(t, server, Config{Groups: []uint16{group}, Repeat: time.Second, SourceFlows: apart}, func() error {
		return send(client, server.Addr4(), func(yield func([]byte) bool) {
			for i := range ports {
				if !yield(tcpSegment(tcpTuple(client.Addr4(), 20000, server.Addr4(), uint16(1+i)), packet.SYN, 1, 0)) {
					return
				}
			}
		})
	})
	if len(f.counts) != apart+1 || f.counts[conntrack.Tuple{Src: client.Addr4()}] != ports-apart-f.lost {
		t.Errorf("got %d flows, and %d packets of others", len(f.counts), f.counts[conntrack.Tuple{Src: client.Addr4()}])
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkRefused works packets of 1,000 known flows that wait in the socket
// into the state: as rules log them, and as those of Install do. The floor is
// the same packets read from another group and thrown away; x-floor is the ratio
// of the processor times.
func BenchmarkRefused(b *testing.B) {
	b.Run("logged", func(b *testing.B) { benchmarkRefused(b, Config{}, "new ") })
	b.Run("installed", func(b *testing.B) { benchmarkRefused(b, Config{Install: &Install{}}, prefixBefore+"new") })
}

func benchmarkRefused(b *testing.B, cfg Config, prefix string) {
	const n, flows, floorGroup = 4000, 1000, group + 1
	client, server := flooded(b, group, floorGroup)
	cfg.SourceFlows = flows
	w := newWatch(cfg.withDefaults())
	w.cfg.NetNS, w.in = server.NetNS(), &installed{}
	if cfg.Install != nil {
		w.in.pairs, w.in.traced = newPairs(w.cfg.Wait, maxPassing), newRecent[reasonKey, *Rule](1024)
	}
	readers := make([]*nflog.Reader, 2)
	for i, g := range []uint16{floorGroup, group} {
		r, err := w.listen(g)
		must(b, err)
		b.Cleanup(func() { must(b, r.Close()) })
		readers[i] = r
	}
	takes := []func(*nflog.Packet) error{
		func(*nflog.Packet) error { return nil },
		func(p *nflog.Packet) error { p.Prefix = prefix; return w.packet(p, time.Now()) },
	}
	var spent [2]time.Duration
	turns := 0
	for b.Loop() {
		b.StopTimer()
		must(b, send(client, server.Addr4(), syns(client.Addr4(), server.Addr4(), n, flows, 1<<30, patience)))
		time.Sleep(50 * time.Millisecond) // until the last bunches are sent
		b.StartTimer()
		for i, r := range readers {
			before, left := cpu(b), n
			for p, err := range r.Packets(b.Context()) {
				must(b, err)
				must(b, takes[i](&p))
				if left--; left == 0 {
					break
				}
			}
			w.takeDue(time.Now().Add(w.cfg.Wait))
			spent[i] += cpu(b) - before
		}
		turns++
	}
	if want := uint64(turns * n); w.tally.refused != want {
		b.Errorf("%d packets refused, want %d", w.tally.refused, want)
	}
	b.ReportMetric(float64(spent[0].Nanoseconds())/float64(turns*n), "floor-cpu-ns/packet")
	b.ReportMetric(float64(spent[1].Nanoseconds())/float64(turns*n), "cpu-ns/packet")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "x-floor")
}

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
