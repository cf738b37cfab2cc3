package packet

import (
	"slices"
	"testing"
)

// BenchmarkSignatures compares what the signatures cost for each packet with
// Decode alone, over the packets of a connection without faults.
func BenchmarkSignatures(b *testing.B) {
	packets := slices.Concat(recorded(b, "heartbeat-v4"), [][]byte{v4(ProtoTCP, tcpData[:20], appData)})
	headers := make([]Header, len(packets))
	for i, p := range packets {
		headers[i] = must(Decode(p)).Header
	}
	resets, beats := NewResetTracker(0), NewHeartbeatTracker(0)
	var floor float64
	for _, bm := range []struct {
		name string
		f    func(i int)
	}{
		{"decode", func(i int) { must(Decode(packets[i])) }},
		{"anomaly", func(i int) { headers[i].Anomaly(packets[i]) }},
		{"resets", func(i int) { resets.Packet(t0, headers[i]) }},
		{"heartbeats", func(i int) {
			beats.Packet(headers[i], packets[i], func(f HeartbeatFinding) { b.Error(f) })
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i = (i + 1) % len(packets) {
				bm.f(i)
			}
			each := float64(b.Elapsed()) / float64(b.N)
			if floor == 0 {
				floor = each
			}
			b.ReportMetric(each/floor, "x-first")
		})
	}
}
