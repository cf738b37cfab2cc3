package conntrack

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// churn makes entries and deletes them, in batches, each by its tuple: two
// events for each.
func churn(t testing.TB, c *Conn, list []Flow) { newChurner(t, list).turn(t, c) }

// churner has the requests ready.
type churner struct{ create, remove []nfnl.Message }

func newChurner(t testing.TB, list []Flow) *churner {
	var ch churner
	for i := range list {
		m, err := encodeCreate(&list[i])
		must(t, err)
		b := nfnl.NewNetfilter(subsystem, opDelete, 0, list[i].Original.family())
		list[i].Original.encode(b, ctaTupleOrig, 0)
		ch.create, ch.remove = append(ch.create, m), append(ch.remove, b.Message())
	}
	return &ch
}

func (ch *churner) turn(t testing.TB, c *Conn) {
	for _, reqs := range [][]nfnl.Message{ch.create, ch.remove} {
		must(t, c.nl.Batch(t.Context(), reqs, func(i int, err error) {
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}))
	}
}

// cpuTime is the processor time of this process, in the kernel and outside.
func cpuTime(t testing.TB) time.Duration {
	var r unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
