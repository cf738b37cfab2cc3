package sockdiag

import "testing"

// BenchmarkDecode reads rows without a kernel.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"time-wait", "established", "mapped", "established-info", "established-all-extensions"} {
		b.Run(name, func(b *testing.B) {
			row := capture(b, name)
			var s Socket
			b.ReportAllocs()
			for b.Loop() {
				if err := s.decode(row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
