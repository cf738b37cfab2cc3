package conntrack

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// BenchmarkDeleteAll empties a table entry by entry: by DeleteAll of what was
// dumped before, by one Delete after the other (x-one-by-one is how many times as
// long that takes), by DeleteMatching, which dumps it too, and, where it is
// installed, by conntrack -D, which does the same (x-conntrack-D to DeleteAll,
// x-conntrack-D-dump to DeleteMatching). They take turns, and the median of the
// ratios of each turn is told.
func BenchmarkDeleteAll(b *testing.B) {
	c, h, n := largeTable(b)
	_, missing := exec.LookPath("conntrack")
	var all, single, matching, tool []float64
	b.ReportAllocs()
	for b.Loop() {
		all = append(all, emptied(b, c, n, func(flows []Flow) { deleteAll(b, c, flows) }))
		single = append(single, emptied(b, c, n, func(flows []Flow) { oneByOne(b, c, flows) }))
		matching = append(matching, emptied(b, c, n, func([]Flow) { deleteMatching(b, c) }))
		if missing == nil {
			tool = append(tool, emptied(b, c, n, func([]Flow) { conntrackD(b, h) }))
		}
	}
	b.ReportMetric(ratio(single, all), "x-one-by-one")
	if missing == nil {
		b.ReportMetric(ratio(tool, all), "x-conntrack-D")
		b.ReportMetric(ratio(tool, matching), "x-conntrack-D-dump")
	}
	b.ReportMetric(median(all), "ns/flow")
}

// emptied fills the table, has it emptied, and returns the time of that for each
// flow.
func emptied(b *testing.B, c *Conn, n int, empty func([]Flow)) float64 {
	b.Helper()
	if have := count(b, c, nil); have == 0 {
		fill(b, c, flows(n))
	}
	s, err := c.Snapshot(b.Context(), nil)
	must(b, err)
	start := time.Now()
	empty(s.Flows)
	took := time.Since(start)
	if left := count(b, c, nil); left != 0 || len(s.Flows) != n {
		b.Fatalf("%d of %d entries are left, of %d", left, len(s.Flows), n)
	}
	return float64(took) / float64(n)
}

func deleteAll(b *testing.B, c *Conn, flows []Flow) {
	_, err := c.DeleteAll(b.Context(), slices.Values(flows), nil)
	must(b, err)
}

func oneByOne(b *testing.B, c *Conn, flows []Flow) {
	for _, f := range flows {
		must(b, c.Delete(b.Context(), f))
	}
}

func deleteMatching(b *testing.B, c *Conn) {
	_, err := c.DeleteMatching(b.Context(), &Filter{StatusSet: Confirmed}, nil)
	must(b, err)
}

func conntrackD(b *testing.B, h *lab.Host) {
	for _, family := range []string{"ipv4", "ipv6"} {
		_, err := h.Exec(b.Context(), "sh", "-c", "exec conntrack -D -f "+family+" >/dev/null")
		must(b, err)
	}
}

// ratio is the median of a/b.
func ratio(a, b []float64) float64 {
	r := slices.Clone(a)
	for i := range r {
		r[i] /= b[i]
	}
	return median(r)
}
