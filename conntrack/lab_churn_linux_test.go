package conntrack

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// churn makes entries and deletes them, in batches, each by its tuple: two
// events for each.
func churn(t testing.TB, c *Conn, list []Flow) {
	fill(t, c, list)
	reqs := make([]nfnl.Message, len(list))
	for i := range list {
		b := nfnl.NewNetfilter(subsystem, opDelete, 0, list[i].Original.family())
		list[i].Original.encode(b, ctaTupleOrig, 0)
		reqs[i] = b.Message()
	}
	must(t, c.nl.Batch(t.Context(), reqs, func(i int, err error) {
		if err != nil {
			t.Errorf("delete %v: %v", list[i], err)
		}
	}))
}

// cpuTime is the processor time of this process, in the kernel and outside.
func cpuTime(t testing.TB) time.Duration {
	var r unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap is what is allocated and in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
