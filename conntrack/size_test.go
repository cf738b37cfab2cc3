package conntrack

import (
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// flows are n different flows to create: 70 % TCP and 15 % UDP over IPv4, 15 %
// over IPv6.
func flows(n int) []Flow {
	list := make([]Flow, n)
	for i := range list {
		low := byte(i)
		f := Flow{Timeout: 10 * patience, TCP: TCPInfo{State: TCPEstablished}, Status: SeenReply | Assured}
		f.Original = Tuple{Proto: ProtoTCP, SrcPort: uint16(1024 + i%60000), DstPort: 443,
			Src: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), low}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, low})}
		switch kind := i % 20; {
		case kind < 3:
			f.Original.Proto = ProtoUDP
		case kind < 6:
			f.Original.Src = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: low})
			f.Original.Dst = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 15: low})
		}
		f.Reply = f.Original.Invert()
		list[i] = f
	}
	return list
}

// fill creates entries many at a time.
func fill(t testing.TB, c *Conn, flows []Flow) {
	t.Helper()
	reqs := make([]nfnl.Message, len(flows))
	for i := range flows {
		m, err := encodeCreate(&flows[i])
		must(t, err)
		reqs[i] = m
	}
	failed := error(nil)
	err := c.nl.Batch(t.Context(), reqs, func(i int, err error) {
		if err != nil && failed == nil {
			failed = fmt.Errorf("%v: %w", flows[i], err)
		}
	})
	must(t, err, failed)
}

// largeTable returns a table of as many entries as are wanted of a large one,
// with counters and times.
func largeTable(t testing.TB) (*Conn, *lab.Host, int) {
	t.Helper()
	c, h := emptyTable(t)
	n := 100_000
	switch {
	case os.Getenv("CONNSLEUTH_EMULATED") != "": // slow
		n = 2000
	case testing.Short():
		n = 10_000
	}
	limit, err := fs.ReadFile(h.FS(), "sys/net/netfilter/nf_conntrack_max")
	must(t, err)
	most, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	must(t, err)
	if most > 0 && n > most*9/10 { // 0 is no limit
		n = most * 9 / 10
	}
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_acct", "1"), h.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"))
	fill(t, c, flows(n))
	return c, h, n
}

// count runs a dump and counts its flows.
func count(t testing.TB, c *Conn, filter *Filter) int {
	n := 0
	for _, err := range c.All(t.Context(), filter) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestAllInConstantMemory dumps a large table with as many allocations as a
// small one, and finds each entry that was made.
func TestAllInConstantMemory(t *testing.T) {
	large, _, n := largeTable(t)
	small, _ := emptyTable(t)
	const few = 1000
	fill(t, small, flows(few))
	if a, b := allocations(t, large, n), allocations(t, small, few); max(a-b, b-a) > 3 {
		t.Errorf("%v allocations for %d flows, %v for %d", a, n, b, few)
	}
	holdsAll(t, large, flows(n))
}

// allocations are those of a dump: the fewest of several, as the runtime may
// allocate meanwhile for itself.
func allocations(t *testing.T, c *Conn, want int) float64 {
	t.Helper()
	fewest := math.Inf(1)
	for range 3 {
		fewest = min(fewest, testing.AllocsPerRun(1, func() {
			if got := count(t, c, nil); got != want {
				t.Errorf("%d flows, want %d", got, want)
			}
		}))
	}
	return fewest
}

// holdsAll takes a snapshot and checks that it is these flows.
func holdsAll(t *testing.T, c *Conn, want []Flow) {
	t.Helper()
	s, err := c.Snapshot(t.Context(), nil)
	must(t, err)
	if len(s.Flows) != len(want) || s.Duplicates != 0 {
		t.Errorf("%d flows and %d duplicates, want %d", len(s.Flows), s.Duplicates, len(want))
	}
	made := make(map[Tuple]Flow, len(want))
	for _, f := range want {
		made[f.Original] = f
	}
	for _, f := range s.Flows {
		if asCreated(f) != asCreated(made[f.Original]) || !f.Assured() || !f.Has(FieldCounters|FieldStart|FieldID) {
			t.Fatalf("got  %+v\nwant %+v", plain(f), plain(made[f.Original]))
		}
		delete(made, f.Original)
	}
	if len(made) != 0 {
		t.Errorf("%d flows are missing", len(made))
	}
}

func BenchmarkDecode(b *testing.B) {
	messages := decodeInputs(b)
	var f Flow
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeFlow(messages[i%len(messages)], &f); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
