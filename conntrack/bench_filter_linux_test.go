package conntrack

import (
	"testing"
	"time"
)

func duration(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// BenchmarkFilteredDump compares a dump of the unreplied flows, 1 in 1,000 of
// the table, with the dump of all (x-all), where the kernel filters and where
// only Go does. x-all below 1 is what asking the kernel for less saves.
func BenchmarkFilteredDump(b *testing.B) {
	c, _, n := largeTable(b)
	unreplied := flows(n + n/1000)[n:]
	for i := range unreplied {
		unreplied[i].Status = 0
	}
	fill(b, c, unreplied)
	filter, want := &Filter{StatusUnset: SeenReply}, len(unreplied)
	plan, err := c.Explain(b.Context(), filter)
	must(b, err)
	b.Logf("%v", plan)
	inGo := &Conn{nl: c.nl}
	inGo.kernel.refuses.Store(uint32(pushStatus)) // so that it is not asked
	var kernel, alone []float64
	for b.Loop() {
		all := duration(func() { count(b, c, nil) })
		for _, dump := range []struct {
			c  *Conn
			to *[]float64
		}{{c, &kernel}, {inGo, &alone}} {
			took := duration(func() {
				if got := count(b, dump.c, filter); got != want {
					b.Fatalf("%d flows, want %d", got, want)
				}
			})
			*dump.to = append(*dump.to, float64(took)/float64(all))
		}
	}
	b.ReportMetric(median(kernel), "x-all")
	b.ReportMetric(median(alone), "x-all-in-Go")
}
