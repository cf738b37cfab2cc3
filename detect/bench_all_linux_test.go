package detect

import (
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used, garbage collection included:
// wall time tells little on a machine with other work.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAll has all detectors look at a million flows and 100,000 sockets,
// together, with a full table too, and each by itself, beside the bare pass over the same rows.
func BenchmarkAll(b *testing.B) {
	sets := map[string][]Detector{"Together": everyone()}
	for _, d := range everyone() {
		sets[d.Name()] = []Detector{d}
	}
	for name, detectors := range sets {
		b.Run(name, func(b *testing.B) { benchmarkSet(b, bench{100_000, 1_000_000, false}, detectors) })
	}
	b.Run("Full", func(b *testing.B) { benchmarkSet(b, bench{100_000, 1_000_000, true}, everyone()) })
}

// benchmarkSet reports the least of all rounds: what others do on the machine
// only adds to it.
func benchmarkSet(b *testing.B, rows bench, detectors []Detector) {
	least, spent, grown := time.Hour, time.Hour, uint64(0)
	for b.Loop() {
		bare, _ := rows.cost(b, processorTime, barePass{})
		all, kept := rows.cost(b, processorTime, detectors...)
		least, spent, grown = min(least, bare), min(spent, all), kept
	}
	b.ReportMetric(float64(spent-least), "ns-added/row")
	b.ReportMetric(float64(least), "ns-bare/row")
	b.ReportMetric(float64(grown)/1e6, "MB")
}
