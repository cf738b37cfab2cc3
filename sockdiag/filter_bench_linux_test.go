package sockdiag

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkFilter finds one socket in a thousand: by bytecode, and by Match
// alone. x-full is the time of it over that of the dump of all, read by All.
func BenchmarkFilter(b *testing.B) {
	c := dialHost(b, crowd(b, 20000))
	var ports []uint16
	for _, s := range snapshot(b, c, Query{Family: IPv4}) {
		ports = append(ports, s.Remote.Port())
	}
	slices.Sort(ports)
	low, high := ports[len(ports)*9/10], ports[len(ports)*9/10+len(ports)/1000] // those of clients
	f := And(RemotePort(GreaterOrEqual, low), RemotePort(LessOrEqual, high))
	for _, bench := range []struct {
		name string
		q    Query
		keep Filter
	}{
		{"kernel", Query{Family: IPv4, Filter: f}, Filter{}},
		{"here", Query{Family: IPv4}, f},
		{"kernel info", Query{Family: IPv4, Info: true, Filter: f}, Filter{}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			full := bench.q
			full.Filter = Filter{}
			var ratios []float64
			rows := 0
			for b.Loop() {
				start := time.Now()
				count(b, c, full, Filter{})
				all := time.Since(start)
				start = time.Now()
				rows = count(b, c, bench.q, bench.keep)
				ratios = append(ratios, float64(time.Since(start))/float64(all))
			}
			b.ReportMetric(median(ratios), "x-full")
			b.ReportMetric(float64(rows), "found")
			b.ReportMetric(float64(len(ports)), "sockets")
		})
	}
}

func count(b *testing.B, c *Conn, q Query, keep Filter) (rows int) {
	for s, err := range c.All(b.Context(), q) {
		if err != nil {
			b.Fatal(err)
		}
		if keep.Match(&s) {
			rows++
		}
	}
	return rows
}
