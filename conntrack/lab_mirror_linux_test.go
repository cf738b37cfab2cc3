package conntrack

import (
	"maps"
	"testing"
	"time"
)

// agrees waits until the mirror shows what a dump does.
func agrees(t *testing.T, c *Conn, m *Mirror) {
	t.Helper()
	var got, want map[Flow]int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		want = make(map[Flow]int)
		s, err := c.Snapshot(within(t), nil)
		must(t, err)
		for _, f := range s.Flows {
			want[shown(f)]++
		}
		if got = shownBy(m); m.Stats().InStep && maps.Equal(got, want) {
			checkCounts(t, m)
			return
		}
	}
	for f, n := range got {
		if want[f] != n {
			t.Errorf("got  %d %+v", n, plain(f))
		}
	}
	for f, n := range want {
		if got[f] != n {
			t.Errorf("want %d %+v", n, plain(f))
		}
	}
	t.Fatalf("%d entries, want %d: %+v", len(got), len(want), m.Stats())
}

// TestMirrorOfTraffic keeps a mirror, by events alone after its first dump,
// while connections of all kinds come and go.
func TestMirrorOfTraffic(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	s.talk(s.connect(s.server.Addr4(), portOpen)) // before it listens
	m := runMirror(t, c, &MirrorOptions{Reconcile: -1})
	agrees(t, c, m)
	s.everything(c)
	agrees(t, c, m)
	if f, ok := m.Get(tuple(ProtoTCP, "10.0.0.1:2000", "10.0.0.2:443"), 7); !ok || f.Zone != 7 || f.Timeout < 50*time.Second {
		t.Errorf("in zone 7: %+v", plain(f))
	}
	n := 0
	for f, err := range c.All(within(t), nil) {
		must(t, err)
		if n++; n%2 == 0 {
			must(t, c.Delete(within(t), f))
		}
	}
	must(t, c.Create(within(t), entry(tupleUDP6)))
	if st := m.Stats(); st.Dumps != 1 || st.Overruns != 0 {
		t.Errorf("%+v", st)
	}
	// The first connection may have been deleted, which nobody told if its
	// entry was made before anybody listened.
	unheard(t, c, m)
}

// unheard has the mirror dump once more.
func unheard(t *testing.T, c *Conn, m *Mirror) {
	t.Helper()
	m.mu.Lock()
	m.ask()
	m.mu.Unlock()
	agrees(t, c, m)
}

// TestMirrorLoses has more happen than a tiny buffer holds. That events were
// lost is told, each is either seen or counted as lost, and the mirror comes
// to agree with the table again.
func TestMirrorLoses(t *testing.T) {
	c, _ := emptyTable(t)
	m := runMirror(t, c, &MirrorOptions{ReadBuffer: 4096, Reconcile: -1})
	list := flows(2000)
	made := uint64(0)
	for end := time.Now().Add(patience); m.Stats().Overruns < 3 && time.Now().Before(end); {
		churn(t, c, list[1000:])
		made += 2000
	}
	fill(t, c, list[:1000])
	made += 1000
	agrees(t, c, m)
	s := m.Stats()
	if s.Overruns < 3 || s.Dumps < 2 || s.Dropped == 0 || m.Len() != 1000 {
		t.Errorf("%d entries, %+v", m.Len(), s)
	}
	if s.Events+s.Dropped != made {
		t.Errorf("%d events seen and %d dropped, want %d", s.Events, s.Dropped, made)
	}
	t.Logf("of %d events %d were seen; %d dumps made up for %d losses, %v out of step", made, s.Events, s.Dumps, s.Overruns, s.OutOfStep)
}

// TestMirrorUnannounced has entries without events: made with events off, they
// change and end without a word. Only dumps tell of them.
func TestMirrorUnannounced(t *testing.T) {
	c, h := emptyTable(t)
	quiet := func() []Flow {
		must(t, h.SetSysctl("net.netfilter.nf_conntrack_events", "0"))
		defer func() { must(t, h.SetSysctl("net.netfilter.nf_conntrack_events", "1")) }()
		f, g := entry(tupleTCP), entry(tupleUDP6)
		return create(t, c, f, g)
	}
	before := quiet()
	alone := runMirror(t, c, &MirrorOptions{Reconcile: -1})
	m := runMirror(t, c, &MirrorOptions{Reconcile: 20 * time.Millisecond})
	agrees(t, c, m)
	if s := m.Stats(); s.Unannounced != 2 {
		t.Errorf("%+v", s)
	}
	for _, f := range before {
		must(t, c.Delete(within(t), f))
	}
	agrees(t, c, m)
	quiet()
	agrees(t, c, m)
	if s := m.Stats(); s.Vanished != 2 || s.Appeared != 2 || s.Unannounced != 2 {
		t.Errorf("%+v", s)
	}
	if s := alone.Stats(); s.Events != 0 || alone.Len() != 2 {
		t.Errorf("without dumps: %d entries, %+v", alone.Len(), s)
	}
	announced := create(t, c, entry(tupleEcho))[0]
	agrees(t, c, m)
	must(t, c.Delete(within(t), announced))
	agrees(t, c, m)
	if s := m.Stats(); s.Events != 2 || s.Unannounced != 2 {
		t.Errorf("%+v", s)
	}
}

// TestMirrorExpiry has entries expire: until the kernel collects them they are
// shown, with no time left.
func TestMirrorExpiry(t *testing.T) {
	c, _ := emptyTable(t)
	m := runMirror(t, c, &MirrorOptions{Reconcile: -1})
	short := entry(tupleTCP)
	short.Timeout = time.Second
	must(t, c.Create(within(t), short), c.Create(within(t), entry(tupleUDP6)))
	agrees(t, c, m)
	for end := time.Now().Add(patience); m.Len() == 2; time.Sleep(20 * time.Millisecond) {
		f, ok := m.Get(short.Original, 0)
		if ok && f.Timeout > time.Second || time.Now().After(end) {
			t.Fatalf("%+v", plain(f))
		}
		agrees(t, c, m) // the dump collects
	}
	agrees(t, c, m)
}

// BenchmarkMirror makes and deletes entries while a mirror of 100,000 others is
// kept: the processor time of the whole process for each event, the generator
// included, and how many events were lost.
func BenchmarkMirror(b *testing.B) {
	c, _, n := largeTable(b)
	m := runMirror(b, c, nil)
	list := newChurner(b, flows(n + 5000)[n:])
	made := 0
	start, used := time.Now(), cpuTime(b)
	for b.Loop() {
		list.turn(b, c)
		made += 2 * len(list.create)
	}
	b.ReportMetric(float64(made)/time.Since(start).Seconds(), "events/s")
	b.ReportMetric(float64(cpuTime(b)-used)/float64(made), "cpu-ns/event")
	b.ReportMetric(float64(m.Stats().Dropped)/float64(made), "lost/event")
	b.ReportMetric(float64(m.Stats().DumpDuration)/float64(n), "ns/row")
}
