package sockdiag

import (
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// BenchmarkDestroyAll destroys about 4,000 sockets in batches, and as many one by
// one (x-one-by-one is how many times as long that takes). They take turns.
func BenchmarkDestroyAll(b *testing.B) {
	h := lab.New(b).MustHost(b, "crowd")
	c := dialHost(b, h)
	var all, single, ratios []float64
	b.ReportAllocs()
	for b.Loop() {
		all = append(all, destruct(b, h, c, func(sockets []Socket) int {
			r, err := c.DestroyAll(b.Context(), slices.Values(sockets), nil)
			if err != nil {
				b.Fatal(err)
			}
			return r.Destroyed
		}))
		single = append(single, destruct(b, h, c, func(sockets []Socket) (n int) {
			for _, s := range sockets {
				if err := c.Destroy(b.Context(), s); err == nil {
					n++
				}
			}
			return n
		}))
		ratios = append(ratios, single[len(single)-1]/all[len(all)-1])
	}
	b.ReportMetric(median(ratios), "x-one-by-one")
	b.ReportMetric(median(all), "ns/socket")
}

// destruct returns the time for each socket. Half of a crowd is destroyed: the
// servers' ends of connections, and what is in TIME_WAIT.
func destruct(b *testing.B, h *lab.Host, c *Conn, destroy func([]Socket) int) float64 {
	var crowd crowded
	defer crowd.close()
	if err := h.Do(func() error { return crowd.fill(6000) }); err != nil {
		b.Fatal(err)
	}
	var sockets []Socket
	for _, s := range snapshot(b, c, Query{States: States(Established, TimeWait)}) {
		if s.State == TimeWait || s.State == Established && s.Local.Port() < 8003 {
			sockets = append(sockets, s)
		}
	}
	start := time.Now()
	n := destroy(sockets)
	took := time.Since(start)
	if n != len(sockets) || n < 3000 {
		b.Fatalf("%d of %d destroyed", n, len(sockets))
	}
	return float64(took) / float64(n)
}
