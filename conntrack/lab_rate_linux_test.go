package conntrack

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counter reads events on a thread of its own and counts them.
type counter struct {
	seen, lost, overruns uint64
	used                 time.Duration // processor time of the thread
	delay                func()        // between events
	last                 Tuple         // its end ends the reading
}

func (r *counter) read(t testing.TB, c *Conn, opts EventOptions) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(t)
	for e, err := range c.Events(t.Context(), &opts) {
		o, lost := errors.AsType[*Overrun](err)
		switch {
		case lost:
			r.overruns++
			r.lost = uint64(o.Drops)
			continue
		case err != nil:
			t.Error(err)
			return
		}
		r.seen++
		if r.delay != nil {
			r.delay()
		}
		if e.Type == EventDestroy && e.Flow.Original == r.last {
			break
		}
	}
	r.used = threadTime(t) - before
}

// threadTime is the processor time of the calling thread.
func threadTime(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Error(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// flood makes and deletes entries, from several goroutines, and has a reader
// count the events. It returns how many were made.
func (r *counter) flood(t testing.TB, c *Conn, opts EventOptions, makers, rounds int) (made uint64, took time.Duration) {
	t.Helper()
	ready, done := make(chan bool), make(chan bool)
	opts.Ready = func() { close(ready) }
	r.last = later
	go func() {
		defer close(done)
		r.read(t, c, opts)
	}()
	select {
	case <-ready:
	case <-done:
		t.FailNow()
	}
	const each = 1000
	list := flows(makers * each)
	churners := make([]*churner, makers)
	for i := range churners {
		churners[i] = newChurner(t, list[i*each:][:each])
	}
	start := time.Now()
	var makes sync.WaitGroup
	for _, ch := range churners {
		makes.Go(func() {
			for range rounds {
				ch.turn(t, c)
			}
		})
	}
	makes.Wait()
	took = time.Since(start)
	made = uint64(2 * makers * rounds * each)
	for ctx := within(t); ; { // its end may be lost too
		churn(t, c, []Flow{entry(later)})
		made += 2
		select {
		case <-done:
			return made, took
		case <-ctx.Done():
			t.Fatal("the reader does not come to an end")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestEventsNeverLostInSilence reads slower than events are made, with a small
// buffer: each event is seen or counted as lost. The loss is told, and the
// stream goes on.
func TestEventsNeverLostInSilence(t *testing.T) {
	c, _ := emptyTable(t)
	r := counter{delay: func() { time.Sleep(10 * time.Microsecond) }}
	made, _ := r.flood(t, c, EventOptions{ReadBuffer: 64 << 10}, 2, 2)
	unread := made - r.seen - r.lost // made after the reader had come to the end
	if r.overruns == 0 || r.lost == 0 || r.seen == 0 || unread > 100 {
		t.Errorf("%d made, %d seen, %d counted as lost in %d overruns", made, r.seen, r.lost, r.overruns)
	}
	t.Logf("%d made, %d seen, %d counted as lost in %d overruns", made, r.seen, r.lost, r.overruns)
}

// BenchmarkEvents floods a reader with the default buffer: how many events a
// second were made, how many of a million were lost, and the processor time of
// the reading thread for each, the kernel's part included.
func BenchmarkEvents(b *testing.B) {
	for name, makers := range map[string]int{"1 maker": 1, "2 makers": 2} {
		b.Run(name, func(b *testing.B) {
			c, _ := emptyTable(b)
			var made, seen, lost, overruns uint64
			var took, used time.Duration
			for b.Loop() {
				var r counter
				n, t := r.flood(b, c, EventOptions{}, makers, 20)
				made, took = made+n, took+t
				seen, lost, overruns, used = seen+r.seen, lost+r.lost, overruns+r.overruns, used+r.used
			}
			b.ReportMetric(float64(made)/took.Seconds(), "events/s")
			b.ReportMetric(float64(lost)*1e6/float64(made), "lost/million")
			b.ReportMetric(float64(overruns), "overruns")
			b.ReportMetric(float64(used)/float64(seen), "reader-ns/event")
		})
	}
}
