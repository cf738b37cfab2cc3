package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
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

// world is a kernel's table with its two ways out: a queue of events, of which
// some are lost, and a dump that looks at one entry after the other.
type world struct {
	*rand.Rand
	entries map[int]Flow // by number
	queue   []Event
	losing  bool
	lost    bool
	ids     uint32
}

func (w *world) flow(n int) Flow {
	f := Flow{Original: tuple(ProtoTCP, "10.0.0.1:1000", "10.0.0.2:443"), Fields: FieldStatus | FieldTCP | FieldID | FieldMark | FieldTimeout}
	f.Original.SrcPort += uint16(n)
	f.Reply = f.Original.Invert()
	return f
}

// step does something to an entry, and sends its event.
func (w *world) step() {
	n := w.IntN(6)
	f, there := w.entries[n]
	typ := EventUpdate
	switch {
	case !there:
		typ, f = EventNew, w.flow(n)
		w.ids += uint32(w.IntN(2)) // an ID may come again
		f.ID = 1 + w.ids%3
		f.TCP.State = TCPSynSent
	case w.IntN(3) == 0:
		typ = EventDestroy
	case w.IntN(2) == 0:
		f.Mark = uint32(w.IntN(3))
	default:
		f.TCP.State = TCPState(1 + w.IntN(8))
	}
	if w.entries[n] = f; typ == EventDestroy {
		delete(w.entries, n)
	}
	if w.losing {
		w.lost = true
		return
	}
	w.queue = append(w.queue, Event{Type: typ, Flow: f})
}

// deliver hands an event over, or the report of a loss that is over.
func (w *world) deliver(m *Mirror) bool {
	if len(w.queue) > 0 {
		e := w.queue[0]
		if e.Flow.Mark == 0 {
			e.Flow.Fields &^= FieldMark
		}
		m.event(&e)
		w.queue = w.queue[1:]
		return true
	}
	if w.losing { // the queue is empty: the kernel sends again
		w.losing = false
		if w.lost {
			w.lost = false
			m.overrun(ErrOverrun)
		}
		return true
	}
	return false
}

// dump merges a dump while the world goes on: the kernel looks at entries, and
// the mirror gets to see them later.
func (w *world) dump(m *Mirror, chaos func()) {
	m.beginDump()
	var looked []Flow
	for n := range 6 {
		chaos()
		if f, there := w.entries[n]; there {
			looked = append(looked, f)
		}
		for len(looked) > 0 && w.IntN(3) > 0 {
			chaos()
			m.merge(&looked[0])
			looked = looked[1:]
		}
	}
	for i := range looked {
		chaos()
		m.merge(&looked[i])
	}
	m.endDump(time.Now())
}

// TestMirrorConverges runs small worlds in which everything happens at the
// wrong moment. Once nothing happens any more, and a last dump is made only if
// a loss asks for it, the mirror must show the world.
func TestMirrorConverges(t *testing.T) {
	for seed := range uint64(3000) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), entries: make(map[int]Flow)}
		m := NewMirror(nil, nil)
		chaos := func() {
			for range w.IntN(4) {
				w.step()
			}
			if w.IntN(20) == 0 {
				w.losing = true
			}
			for range w.IntN(5) {
				w.deliver(m)
			}
		}
		for range 5 {
			w.step()
		}
		w.queue = nil // nobody listened
		for dumps := 0; dumps == 0 || m.stale; dumps++ {
			if dumps > 4 {
				chaos = func() { w.deliver(m) }
			}
			w.dump(m, chaos)
			for w.deliver(m) {
			}
		}
		want := make(map[Flow]int)
		for _, f := range w.entries {
			want[shown(f)]++
		}
		if got := shownBy(m); !maps.Equal(got, want) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, got, want)
		}
		checkCounts(t, m)
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

// TestMirrorRun ends Run in every way, and begins it again.
func TestMirrorRun(t *testing.T) {
	tcp, udp := parse(t, lineTCP), parse(t, lineUDP)
	c, peer := fake(t, table(tcp, udp))
	m := NewMirror(c, &MirrorOptions{Reconcile: -1})
	if m.Stats() != (MirrorStats{}) || m.Len() != 0 {
		t.Errorf("before: %+v", m.Stats())
	}
	cause := errors.New("the operator's reason")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		must(t, m.Wait(within(t)))
		if err := m.Run(t.Context()); !isOp(err, "mirror") || !errors.Is(err, errRunning) {
			t.Errorf("twice: %v", err)
		}
		if s := m.Stats(); !s.InStep || s.OutOfStep <= 0 || m.Len() != 2 {
			t.Errorf("%d entries, %+v", m.Len(), s)
		}
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("cancelled: %v", err)
		}
		if m.Stats().InStep || m.Len() != 2 {
			t.Errorf("after: %d entries, %+v", m.Len(), m.Stats())
		}
		ended, cancel2 := context.WithTimeout(t.Context(), time.Millisecond)
		if err := m.Wait(ended); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited for one that does not run: %v", err)
		}
		cancel2()
	}
	done := make(chan error)
	go func() { done <- m.Run(t.Context()) }()
	must(t, m.Wait(within(t)))
	peer.Multicast(3, nfnltest.Message(subsystem<<8, 0, 0, []byte{2}))
	if err := <-done; !errors.Is(err, errShort) {
		t.Errorf("malformed: %v", err)
	}
	go func() { done <- m.Run(t.Context()) }()
	must(t, m.Wait(within(t)))
	must(t, c.Close())
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestMirrorRefused has the dump fail, at once and later.
func TestMirrorRefused(t *testing.T) {
	c, _ := fake(t, refuse(syscall.EPERM))
	if err := NewMirror(c, nil).Run(t.Context()); !errors.Is(err, fs.ErrPermission) || errors.Is(err, context.Canceled) || !isOp(err, "dump") {
		t.Errorf("got %v", err)
	}
	dumps := 0
	c, _ = fake(t, func(r nfnltest.Request) [][]byte {
		if dumps++; dumps == 1 {
			return table(parse(t, lineTCP))(r)
		}
		return refuse(syscall.ENOMEM)(r)
	})
	m := NewMirror(c, &MirrorOptions{Reconcile: time.Millisecond})
	if err := m.Run(t.Context()); !errors.Is(err, syscall.ENOMEM) || !isOp(err, "dump") || m.Len() != 1 {
		t.Errorf("got %v, %d entries", err, m.Len())
	}
}

// TestMirrorOverrun loses events: the mirror dumps again, and what the loss hid
// is seen.
func TestMirrorOverrun(t *testing.T) {
	rows := make(chan []Flow, 2)
	rows <- []Flow{parse(t, lineTCP)}
	rows <- []Flow{parse(t, lineUDP)}
	c, peer := fake(t, func(r nfnltest.Request) [][]byte { return table(<-rows...)(r) })
	m := runMirror(t, c, &MirrorOptions{Reconcile: -1})
	peer.Multicast(1, nil)
	for end := time.Now().Add(patience); m.Stats().Dumps < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", m.Stats())
		}
	}
	want := map[Flow]int{shown(parse(t, lineUDP)): 1}
	s := m.Stats()
	if got := shownBy(m); !maps.Equal(got, want) || s.Overruns != 1 || s.Dropped != 1 || !s.InStep || s.Vanished != 1 || s.Appeared != 1 || s.Unannounced != 1 {
		t.Errorf("%v, %+v", got, s)
	}
}

// TestMirrorOverrunInDump loses events while a dump goes by, which then does
// not make up for them.
func TestMirrorOverrunInDump(t *testing.T) {
	m := NewMirror(nil, nil)
	inStep := func() bool { return m.Stats().InStep }
	m.start()
	m.beginDump()
	m.overrun(&Overrun{Drops: 3})
	m.endDump(time.Now())
	if inStep() {
		t.Error("in step though events were lost")
	}
	m.beginDump()
	m.endDump(time.Now())
	if !inStep() || m.Stats().Dropped != 3 {
		t.Errorf("%+v", m.Stats())
	}
	m.overrun(&Overrun{Drops: 5})
	if inStep() || m.Stats().Dropped != 5 {
		t.Errorf("%+v", m.Stats())
	}
}

// runMirror runs a mirror until the test ends, and waits until it is in step.
func runMirror(t testing.TB, c *Conn, opts *MirrorOptions) *Mirror {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m, done := NewMirror(c, opts), make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the mirror ended with %v", err)
		}
	})
	must(t, m.Wait(within(t)))
	return m
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
