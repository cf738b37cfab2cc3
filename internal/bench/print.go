package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// write writes a line for each piece of work that was done.
func (s subject) write(to io.Writer, n int, results map[string][]result) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	widest := 0
	for _, work := range s.works {
		widest = max(widest, len(work.name))
	}
	fmt.Fprintln(w, "\twall ms\tratio\tuser µs/entry\tsys µs/entry\tallocations\tpeak RSS MB\t")
	for _, work := range s.works {
		rounds := results[work.name]
		if len(rounds) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-*s\t%s\t\n", widest, work.name, line(n, rounds, results[work.reference]))
	}
	return w.Flush()
}

func line(n int, rounds, reference []result) string {
	if rounds[0].Missing {
		return "not installed"
	}
	ratios := make([]float64, len(rounds))
	for i := range rounds {
		ratios[i] = float64(rounds[i].Wall) / float64(reference[i].Wall)
	}
	perEntry := func(of func(result) time.Duration) float64 {
		return float64(median(rounds, of)) / float64(n) / float64(time.Microsecond)
	}
	allocations := "?"
	if a := median(rounds, func(r result) uint64 { return r.Allocations }); a > 0 {
		allocations = fmt.Sprint(a)
	}
	return fmt.Sprintf("%.0f\t%.2f\t%.2f\t%.2f\t%s\t%.0f",
		float64(median(rounds, func(r result) time.Duration { return r.Wall }))/float64(time.Millisecond),
		median(ratios, func(v float64) float64 { return v }),
		perEntry(func(r result) time.Duration { return r.User }),
		perEntry(func(r result) time.Duration { return r.Sys }),
		allocations,
		float64(median(rounds, func(r result) int { return r.RSS }))/1024)
}

func median[T any, V cmp.Ordered](of []T, value func(T) V) V {
	values := make([]V, len(of))
	for i := range of {
		values[i] = value(of[i])
	}
	slices.Sort(values)
	return values[len(values)/2]
}
