package conntrack

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
)

// shown is what a mirror must show as a dump does: what changes with an event.
func shown(f Flow) Flow {
	f.Use, f.Timeout, f.Start = 0, 0, 0
	f.TCP = TCPInfo{State: f.TCP.State}
	f.OriginalCounter, f.ReplyCounter = Counter{}, Counter{}
	f.Fields &= mirrored &^ (FieldCounters | FieldStart | FieldTimeout)
	return f
}

func shownBy(m *Mirror) map[Flow]int {
	all := make(map[Flow]int)
	for f := range m.All() {
		all[shown(f)]++
	}
	return all
}

// countsOf are the counts a mirror of these flows must have.
func countsOf(all map[Flow]int) mirrorCounts {
	c := newMirrorCounts()
	for f, n := range all {
		tally(c.sources, f.Original.Src, n)
		tally(c.services, Service{f.Original.Proto, f.Original.DstPort}, n)
		if f.Has(FieldTCP) {
			tally(c.states, f.TCP.State, n)
		}
	}
	return c
}

// checkCounts compares a mirror's counts with what it shows.
func checkCounts(t *testing.T, m *Mirror) {
	t.Helper()
	all := shownBy(m)
	want := countsOf(all)
	if !maps.Equal(m.States(), want.states) || !maps.Equal(m.Sources(), want.sources) || !maps.Equal(m.Services(), want.services) {
		t.Errorf("counts %v, %v, %v, want %v", m.States(), m.Sources(), m.Services(), want)
	}
	for addr, n := range want.sources {
		if got := m.FromSource(addr); got != n {
			t.Errorf("%v: %d, want %d", addr, got, n)
		}
	}
	for s, n := range want.services {
		if got := m.ToService(s); got != n {
			t.Errorf("%v: %d, want %d", s, got, n)
		}
	}
	if m.Len() != len(all) || m.FromSource(netip.Addr{}) != 0 || m.ToService(Service{}) != 0 {
		t.Errorf("%d entries, want %d", m.Len(), len(all))
	}
	unannounced := 0
	for r := range m.table.all() {
		if !r.announced {
			unannounced++
		}
	}
	if got := m.Stats().Unannounced; got != unannounced {
		t.Errorf("%d unannounced, want %d", got, unannounced)
	}
}

// TestMirrorMerge has events and rows of a dump come in the orders that they
// can come in, whatever the kernel did first.
func TestMirrorMerge(t *testing.T) {
	at := func(id uint32, state TCPState, mark uint32) Flow {
		f := parse(t, lineTCP)
		f.ID, f.TCP.State, f.Mark = id, state, mark
		return f
	}
	bare := func(f Flow) Flow { // as events without protocol information or a mark are
		f.TCP, f.Mark, f.Fields = TCPInfo{}, 0, f.Fields&^(FieldTCP|FieldMark|FieldUse)
		return f
	}
	event := func(typ EventType, f Flow) func(*Mirror) {
		return func(m *Mirror) { m.event(&Event{Type: typ, Flow: f}) }
	}
	row := func(f Flow) func(*Mirror) { return func(m *Mirror) { m.merge(&f) } }
	begin, end := (*Mirror).beginDump, func(m *Mirror) { m.endDump(time.Now()) }
	old, young, later := at(1, TCPSynSent, 0), at(1, TCPEstablished, 0), at(2, TCPSynRecv, 0)
	other := parse(t, lineUDP)
	marked := at(1, TCPEstablished, 7)
	markedBare := marked
	markedBare.TCP, markedBare.Fields = TCPInfo{}, marked.Fields&^FieldTCP
	type script []func(*Mirror)
	tests := map[string]struct {
		do   script
		want []Flow
	}{
		"events alone":                         {script{event(EventNew, old), event(EventUpdate, young)}, []Flow{young}},
		"end":                                  {script{event(EventNew, old), event(EventDestroy, old)}, nil},
		"end of what is not known":             {script{event(EventDestroy, old)}, nil},
		"update of what is not known":          {script{event(EventUpdate, young)}, []Flow{young}},
		"row alone":                            {script{begin, row(old), end}, []Flow{old}},
		"row twice":                            {script{begin, row(old), row(young), end}, []Flow{young}},
		"row older than an event":              {script{begin, event(EventUpdate, young), row(old), end}, []Flow{young}},
		"row older than the end":               {script{begin, event(EventDestroy, old), row(old), end}, nil},
		"row older than the end, known":        {script{event(EventNew, old), begin, event(EventDestroy, old), row(old), end}, nil},
		"row older than another entry":         {script{begin, event(EventDestroy, old), event(EventNew, later), row(old), end}, []Flow{later}},
		"row newer than the end":               {script{begin, row(later), event(EventDestroy, old), event(EventNew, later), end}, []Flow{later}},
		"row newer, same ID":                   {script{begin, row(young), event(EventDestroy, old), event(EventNew, old), event(EventUpdate, young), end}, []Flow{young}},
		"row newer than a new entry's event":   {script{begin, row(young), event(EventNew, old), event(EventUpdate, young), end}, []Flow{young}},
		"row newer, the end of an earlier":     {script{begin, row(later), event(EventDestroy, old), end}, []Flow{later}},
		"told before the dump":                 {script{event(EventNew, old), begin, event(EventUpdate, bare(young)), row(young), end}, []Flow{young}},
		"replaced unseen, with less":           {script{event(EventNew, young), event(EventNew, bare(later))}, []Flow{shownBare(bare(later))}},
		"ended in an earlier dump":             {script{begin, event(EventDestroy, old), end, begin, row(young), end}, []Flow{young}},
		"ended unseen":                         {script{begin, row(old), row(other), end, begin, row(other), end}, []Flow{other}},
		"made while the dump went by":          {script{begin, event(EventNew, old), end}, []Flow{old}},
		"event before the dump, not in it":     {script{event(EventNew, old), begin, end}, nil},
		"event since the dump, then not in it": {script{begin, end, event(EventNew, old), begin, end}, nil},
		"replaced unseen, event":               {script{event(EventNew, old), event(EventNew, later)}, []Flow{later}},
		"replaced unseen, row":                 {script{event(EventNew, old), begin, row(later), end}, []Flow{later}},
		"row fills in":                         {script{begin, event(EventUpdate, bare(young)), row(young), end}, []Flow{young}},
		"row fills in of the same only":        {script{begin, event(EventUpdate, bare(young)), row(later), end}, []Flow{shownBare(bare(young))}},
		"row does not undo":                    {script{begin, event(EventUpdate, young), event(EventUpdate, bare(young)), row(old), end}, []Flow{young}},
		"update keeps the state":               {script{event(EventNew, young), event(EventUpdate, markedBare)}, []Flow{marked}},
		"mark taken away":                      {script{event(EventNew, marked), event(EventUpdate, bare(marked))}, []Flow{young}},
		"state gone: offloaded":                {script{event(EventNew, young), begin, row(noState(young)), end}, []Flow{noState(young)}},
		"no tuple":                             {script{event(EventNew, Flow{}), begin, row(Flow{}), event(EventDestroy, Flow{}), end}, nil},
	}
	for name, tt := range tests {
		m := NewMirror(nil, nil)
		for _, do := range tt.do {
			do(m)
		}
		want := make(map[Flow]int)
		for _, f := range tt.want {
			want[shown(f)]++
		}
		if got := shownBy(m); !maps.Equal(got, want) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, want)
		}
		checkCounts(t, m)
	}
}

func shownBare(f Flow) Flow { f.Fields |= FieldMark; return f }

func noState(f Flow) Flow {
	f.TCP, f.Fields = TCPInfo{}, f.Fields&^FieldTCP
	f.Status |= Offload
	return f
}

// TestMirrorKeeps checks that a row holds all of a flow that it says it does.
func TestMirrorKeeps(t *testing.T) {
	in := parse(t, lineTCP)
	in.Reply.DstPort, in.Reply.Dst = 7, netip.MustParseAddr("203.0.113.9")
	in.OriginalCounter, in.ReplyCounter = Counter{1, 2}, Counter{3, 4}
	in.Start, in.Zone, in.Mark = 5, 6, 7
	in.Fields |= FieldCounters | FieldStart | FieldZone
	in.TCP = TCPInfo{TCPTimeWait, 1, 2, 3, 4}
	in = in.WithDetails(Details{Helper: "ftp", Labels: LabelSet(3), Master: in.Original, MasterZone: 2,
		OriginalSeq: SeqAdj{1, 2, 3}, Synproxy: Synproxy{ISN: 1}, SecurityContext: "x", SCTP: SCTPInfo{State: 1}, DCCP: DCCPInfo{State: 2}})
	oneWay := parse(t, lineUDP6)
	oneWay.OriginalZone, oneWay.ReplyZone = 8, 9
	echo := parse(t, lineUDP)
	echo.Zone, echo.Fields = 0, echo.Fields&^FieldZone
	echo.Original, echo.Reply = tupleEcho, tupleEcho.Invert()
	for _, f := range []Flow{in, oneWay, echo} {
		m := NewMirror(nil, nil)
		m.merge(&f)
		want := f
		want.Use, want.Fields = 0, want.Fields&^FieldUse
		got, ok := m.Get(f.Original, f.originalZone())
		if got != want || !ok {
			t.Errorf("got  %+v\nwant %+v", plain(got), plain(want))
		}
		if got, ok := m.Get(f.Original, 99); ok {
			t.Errorf("in another zone: %v", got)
		}
		if got, ok := m.Get(Tuple{}, 0); ok {
			t.Errorf("no tuple: %v", got)
		}
	}
	m := NewMirror(nil, nil)
	m.event(&Event{Type: EventNew, Flow: in})
	label := in.WithDetails(Details{Labels: LabelSet(100)})
	m.event(&Event{Type: EventUpdate, Flow: label})
	want := in.Details()
	want.Labels = LabelSet(100)
	if got, _ := m.Get(in.Original, 6); got.Details() != want {
		t.Errorf("got %+v\nwant %+v", got.Details(), want)
	}
}

// TestMirrorTable compares the table with a map.
func TestMirrorTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table, want := newMirrorTable(), make(map[flowKey]uint32)
	for i := range uint32(100_000) {
		k := flowKey{family: familyIPv4, first: uint16(r.IntN(3000))}
		row := table.find(&k)
		mark, there := want[k]
		if (row != nil) != there || there && (row.mark != mark || row.flowKey != k) {
			t.Fatalf("step %d: got %+v, want %d, %v", i, row, mark, there)
		}
		switch {
		case !there && i%3 != 0:
			table.add(&k).mark = i
			want[k] = i
		case there && i%3 == 0:
			table.remove(row)
			delete(want, k)
		}
	}
	n := 0
	for row := range table.all() {
		if n++; want[row.flowKey] != row.mark {
			t.Errorf("has %+v", row)
		}
	}
	if n != len(want) || table.n != len(want) || table.made > 3000 {
		t.Errorf("%d and %d rows of %d, want %d", n, table.n, table.made, len(want))
	}
}

// TestMirrorAllocations applies events to entries that are there.
func TestMirrorAllocations(t *testing.T) {
	m := NewMirror(nil, nil)
	list := flows(1000)
	for i := range list {
		list[i].Fields = FieldStatus | FieldTCP | FieldID
		m.event(&Event{Type: EventNew, Flow: list[i]})
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		m.event(&Event{Type: EventDestroy, Flow: list[i]})
		m.event(&Event{Type: EventNew, Flow: list[i]})
		list[i].TCP.State = TCPTimeWait
		m.event(&Event{Type: EventUpdate, Flow: list[i]})
		i = (i + 1) % len(list)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	checkCounts(t, m)
	if got := slices.Collect(m.All()); len(got) != len(list) {
		t.Errorf("%d entries", len(got))
	}
}

// TestMirrorMemory measures what a mirror of many entries takes.
func TestMirrorMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	const n = 100_000
	list := flows(n)
	before := heap()
	m := NewMirror(nil, nil)
	for i := range list {
		m.event(&Event{Type: EventNew, Flow: list[i]})
	}
	per := float64(heap()-before) / n
	runtime.KeepAlive(list)
	t.Logf("%.0f bytes for each of %d entries", per, m.Len())
	if m.Len() != n || per > 300 {
		t.Errorf("%d entries", m.Len())
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func BenchmarkMirrorEvent(b *testing.B) {
	const n = 100_000
	m := NewMirror(nil, nil)
	list := flows(n)
	for i := range list {
		list[i].Fields = FieldStatus | FieldTCP | FieldID
	}
	e, i := Event{}, 0
	for b.Loop() {
		e.Type, e.Flow = EventType(1+i/n%3), list[i%n]
		m.event(&e)
		i++
	}
}
