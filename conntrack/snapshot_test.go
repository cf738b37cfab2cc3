package conntrack

import (
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func TestSnapshot(t *testing.T) {
	a := parse(t, lineTCP)
	later, other, zone, noID := a, a, a, a
	later.Timeout -= time.Second
	other.Original.SrcPort++ // the same ID by chance: IDs are hashes
	zone.OriginalZone = 7
	noID.Fields &^= FieldID
	noID.ID = 0
	tests := map[string]struct {
		rows, want []Flow
		duplicates int
	}{
		"none":               {nil, nil, 0},
		"all different":      {[]Flow{a, parse(t, lineUDP)}, []Flow{a, parse(t, lineUDP)}, 0},
		"again":              {[]Flow{a, parse(t, lineUDP), later}, []Flow{later, parse(t, lineUDP)}, 1},
		"another tuple":      {[]Flow{a, other}, []Flow{a, other}, 0},
		"another zone":       {[]Flow{a, zone}, []Flow{a, zone}, 0},
		"shared ID, again":   {[]Flow{a, other, zone, later, zone, other}, []Flow{later, other, zone}, 3},
		"nothing to tell by": {[]Flow{noID, noID}, []Flow{noID, noID}, 0},
	}
	for name, tt := range tests {
		c, _ := fake(t, table(tt.rows...))
		before := time.Now()
		s, err := c.Snapshot(t.Context(), nil)
		if err != nil || !slices.Equal(s.Flows, tt.want) || s.Duplicates != tt.duplicates {
			t.Errorf("%s: got %+v, %v; want %v and %d duplicates", name, s, err, tt.want, tt.duplicates)
		}
		if s != nil && (s.Start.Before(before) || s.Duration <= 0 || s.Duration > time.Since(before)) {
			t.Errorf("%s: took %v from %v", name, s.Duration, s.Start)
		}
	}
}

// counted is a kernel that counts n entries, and dumps flows.
func counted(n uint32, flows ...Flow) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte {
		if r.Type != 0x105 {
			return table(flows...)(r)
		}
		b := nfnl.NewNetfilter(subsystem, 5, 0, familyUnspec)
		b.U32(2, 262144) // CTA_STATS_GLOBAL_MAX_ENTRIES
		b.U32(1, n)      // CTA_STATS_GLOBAL_ENTRIES
		return [][]byte{nfnltest.Message(0x105, nfnl.Multi, r.Seq, b.Message().Data), nfnltest.Acknowledge(r, 0, "", 0)}
	}
}

// TestSnapshotCount takes snapshots of a table that has more or fewer flows
// than the kernel counted before.
func TestSnapshotCount(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	list := flows(3 * largestBlock)
	for i := range list {
		list[i].TCP, list[i].Fields = TCPInfo{}, FieldStatus|FieldTimeout|FieldID
		list[i].ID = uint32(i)
	}
	for _, n := range []int{0, 1, smallestBlock, len(list) - 1, len(list), 2 * len(list)} {
		c, _ := fake(t, counted(uint32(n), list...))
		s, err := c.Snapshot(t.Context(), nil)
		must(t, err)
		if s.Count != n || s.Duplicates != 0 || !slices.Equal(s.Flows, list) {
			t.Errorf("counted %d: count %d, %d flows, %d duplicates", n, s.Count, len(s.Flows), s.Duplicates)
		}
		if s, err := c.Snapshot(t.Context(), &Filter{}); err != nil || s.Count != 0 || len(s.Flows) != len(list) {
			t.Errorf("counted %d, with a filter: %v", n, err)
		}
	}
	for name, h := range map[string]nfnltest.Handler{
		"many":      counted(1 << 30),
		"refused":   refuse(syscall.EINVAL),
		"malformed": answer(0x105, []byte{2, 0, 0, 0, 6, 0, 1, 0, 1, 2, 0, 0}),
		"short":     answer(0x105, []byte{2, 0}),
		"another":   answer(0x100, []byte{2, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 9}),
	} {
		c, _ := fake(t, h)
		want := map[string]int{"many": 1 << 30}[name]
		if got := c.entries(t.Context()); got != want {
			t.Errorf("%s: %d entries, want %d", name, got, want)
		}
	}
	if got := room(1 << 30); got != room(mostExpected) {
		t.Errorf("room for %d flows", got)
	}
}

// answer is a kernel that answers any request with one message.
func answer(typ uint16, data []byte) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte {
		return [][]byte{nfnltest.Message(typ, nfnl.Multi, r.Seq, data), nfnltest.Acknowledge(r, 0, "", 0)}
	}
}

// TestDedup compares with the plain way, over rows many of which come again or
// share their ID with others, alike in some bits only.
func TestDedup(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	list := flows(500)
	for i := range list {
		list[i].Fields = FieldID
		list[i].ID = []uint32{uint32(i / 3), uint32(i) << 8, uint32(i) << 25, ^uint32(i)}[i%4]
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var rows, want []Flow
		for len(rows) < 1000 {
			f := list[random.IntN(len(list))]
			f.Use = uint32(len(rows)) // when it was seen
			rows = append(rows, f)
			if at := slices.IndexFunc(want, func(w Flow) bool { return sameEntry(&w, &f) }); at >= 0 {
				want[at] = f
			} else {
				want = append(want, f)
			}
		}
		s := &Snapshot{Flows: rows}
		if s.dedup(); !slices.Equal(s.Flows, want) || s.Duplicates != len(rows)-len(want) {
			t.Fatalf("%d flows and %d duplicates, want %d and %d", len(s.Flows), s.Duplicates, len(want), len(rows)-len(want))
		}
	}
}

// TestSnapshotMemory counts what a snapshot of a large table allocates, and
// what of it stays: little more than the flows themselves.
func TestSnapshotMemory(t *testing.T) {
	c, _, n := largeTable(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := c.Snapshot(t.Context(), nil)
	must(t, err)
	runtime.ReadMemStats(&after)
	allocations, bytes := after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	runtime.GC()
	runtime.ReadMemStats(&after)
	kept := after.HeapAlloc - before.HeapAlloc
	if len(s.Flows) != n || s.Count != n {
		t.Errorf("%d flows, %d counted, want %d", len(s.Flows), s.Count, n)
	}
	const around = 128 << 10 // a socket with its buffer, and what the runtime allocates meanwhile
	t.Logf("%d flows of %d bytes: %d allocations of %d bytes, %d bytes kept",
		n, reflect.TypeFor[Flow]().Size(), allocations, bytes, kept)
	if most := uint64(256*n + around); bytes > most || kept > most || allocations > 100 {
		t.Errorf("%d flows: %d allocations of %d bytes, %d bytes kept; want at most 100 and %d", n, allocations, bytes, kept, most)
	}
	runtime.KeepAlive(s)
}
