package conntrack

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// recorder keeps the events of a Conn.
type recorder struct {
	events chan Event
	seen   map[Tuple][]Event
}

// recordEvents keeps the events of a Conn from now on until the test ends.
func recordEvents(t *testing.T, c *Conn, opts EventOptions) *recorder {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{make(chan Event, 1000), make(map[Tuple][]Event)}
	ready, done := make(chan bool), make(chan error, 1)
	opts.Ready = func() { close(ready) }
	go func() {
		var last error
		for e, err := range c.Events(ctx, &opts) {
			if last = err; err == nil {
				r.events <- e
			}
		}
		done <- last
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !isOp(err, "events") {
			t.Errorf("the stream ended with %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("not listening in time")
	}
	return r
}

// await returns the events of a tuple up to its end.
func (r *recorder) await(t *testing.T, tuple Tuple) []Event {
	t.Helper()
	end := time.After(patience)
	for {
		got := r.seen[tuple]
		if n := len(got); n > 0 && got[n-1].Type == EventDestroy {
			return got
		}
		select {
		case e := <-r.events:
			r.seen[e.Flow.Original] = append(r.seen[e.Flow.Original], e)
		case <-end:
			t.Fatalf("no end of %v after %v", tuple, got)
		}
	}
}

// TestEventsOfConnection follows a TCP connection that is deleted once it
// stands: what the events say of it must agree with the table.
func TestEventsOfConnection(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	events := recordEvents(t, c, EventOptions{Filter: &Filter{Proto: ProtoTCP}})
	s.talk(s.connect(s.server.Addr4(), portOpen))
	flows, err := all(t, c, &Filter{Proto: ProtoTCP})
	if err != nil || len(flows) != 1 || flows[0].TCP.State != TCPEstablished {
		t.Fatalf("got %v, %v", flows, err)
	}
	must(t, c.Delete(within(t), flows[0]))

	got := events.await(t, flows[0].Original)
	if len(got) < 3 || got[0].Type != EventNew || got[0].Flow.TCP.State != TCPSynSent || !got[0].Flow.Unreplied() {
		t.Fatalf("got %v", got)
	}
	states := []TCPState{}
	for _, e := range got {
		if e.Flow.ID != flows[0].ID || e.Flow.Reply != flows[0].Reply || e.Expired() {
			t.Errorf("%v: %+v", e.Type, plain(e.Flow))
		}
		if e.Type == EventUpdate {
			states = append(states, e.Flow.TCP.State)
		}
	}
	if !slices.IsSorted(states) || !slices.Contains(states, TCPSynRecv) || !slices.Contains(states, TCPEstablished) {
		t.Errorf("updates with states %v", states)
	}
	end := got[len(got)-1].Flow
	if end.OriginalCounter != flows[0].OriginalCounter || end.Start != flows[0].Start || end.Stop <= end.Start {
		t.Errorf("the last words: %+v\nof %+v", plain(end), plain(flows[0]))
	}
}

// TestEventsExpiry ends entries by deletion and by letting their time run out.
func TestEventsExpiry(t *testing.T) {
	c, _ := emptyTable(t)
	events := recordEvents(t, c, EventOptions{Types: []EventType{EventNew, EventDestroy}})
	long, short := entry(tupleTCP), entry(tupleTCP)
	short.Original.SrcPort++
	short.Reply.DstPort++
	short.Timeout = time.Second
	brief := entry(tupleUDP6)
	brief.Timeout = time.Second
	made := create(t, c, long, short, brief)
	must(t, c.Delete(within(t), made[0]))

	deleted := events.await(t, long.Original)[1]
	tells := deleted.Flow.Has(FieldTimeout | FieldTCP)
	t.Logf("SUPPORT: destroy event tells expiry: %s", yesNo(tells))
	if deleted.Expired() || tells && (deleted.Flow.Timeout < time.Minute || deleted.Flow.TCP.State != TCPEstablished) {
		t.Errorf("deleted: %+v", plain(deleted.Flow))
	}
	collect(t, c)
	for _, tuple := range []Tuple{short.Original, brief.Original} {
		got := events.await(t, tuple)
		if len(got) != 2 || got[0].Type != EventNew || got[0].Flow.ID != got[1].Flow.ID {
			t.Fatalf("got %v", got)
		}
		if expired := got[1].Expired(); expired != (tells || tuple.Proto != ProtoTCP) {
			t.Errorf("expired: %v: %+v", expired, plain(got[1].Flow))
		}
	}
	if !tells {
		t.Skip("this kernel's destroy events tell neither time left nor TCP state")
	}
}

// collect dumps until entries that have expired are gone. The kernel's own
// collector may leave them for a minute and more, but a dump removes those it
// meets.
func collect(t *testing.T, c *Conn) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		flows, err := all(t, c, nil)
		must(t, err)
		if len(flows) == 0 {
			return
		}
	}
	t.Fatal("entries do not expire")
}

// TestEventsLost makes more events than a tiny buffer holds before the reader
// begins: that is told, and what happens after is seen.
func TestEventsLost(t *testing.T) {
	c, _ := emptyTable(t)
	const flood = 500
	stop := func() {}
	opts := &EventOptions{ReadBuffer: 4096, Ready: func() {
		fill(t, c, flows(flood))
		stop = keepCreating(t, c)
	}}
	seen, overruns := 0, 0
	for e, err := range c.Events(within(t), opts) {
		switch {
		case errors.Is(err, ErrOverrun):
			overruns++
		case err != nil:
			t.Fatalf("after %d events and %d overruns: %v", seen, overruns, err)
		default:
			seen++
		}
		if overruns > 0 && e.Flow.Original.Dst == later.Dst {
			break
		}
	}
	stop()
	if overruns == 0 || seen >= flood {
		t.Errorf("%d of %d events, %d overruns", seen, flood, overruns)
	}
}

var later = tuple(ProtoUDP, "10.9.9.1:1", "10.9.9.2:9")

// keepCreating makes an entry after the other, from later on, until it is
// stopped.
func keepCreating(t *testing.T, c *Conn) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		tuple := later
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if err := c.Create(t.Context(), entry(tuple)); err != nil {
				done <- err
				return
			}
			tuple.SrcPort++
		}
		done <- nil
	}()
	return func() {
		cancel()
		must(t, <-done)
	}
}

// take waits for the next event of all.
func (r *recorder) take(t *testing.T) Event {
	t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(patience):
		t.Fatal("no event in time")
		return Event{}
	}
}
