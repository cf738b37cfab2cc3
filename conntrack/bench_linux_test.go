package conntrack

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// BenchmarkAll compares All with its floor, the same dump read and thrown
// away: with bare system calls (x-floor) and with nfnl.Dump (x-dump). They
// take turns, and the median of the ratios of each turn is told. user-ns/flow
// is the processor time All takes outside the kernel.
func BenchmarkAll(b *testing.B) {
	c, h, n := largeTable(b)
	floor := rawSocket(b, h)
	var toFloor, toDump, perFlow []float64
	var user time.Duration
	b.ReportAllocs()
	for b.Loop() {
		bare, _ := timed(b, n, func() int { return discard(b, floor) })
		dump, _ := timed(b, n, func() int { return messages(b, c) })
		all, used := timed(b, n, func() int { return count(b, c, nil) })
		user += used
		toFloor = append(toFloor, float64(all)/float64(bare))
		toDump = append(toDump, float64(all)/float64(dump))
		perFlow = append(perFlow, float64(all)/float64(n))
	}
	b.ReportMetric(median(toFloor), "x-floor")
	b.ReportMetric(median(toDump), "x-dump")
	b.ReportMetric(median(perFlow), "ns/flow")
	b.ReportMetric(float64(user)/float64(n*len(perFlow)), "user-ns/flow")
}

// BenchmarkSnapshot compares Snapshot with its floor, the same dump read and
// thrown away with bare system calls. bytes/flow is all that is allocated.
func BenchmarkSnapshot(b *testing.B) {
	c, h, n := largeTable(b)
	floor := rawSocket(b, h)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	turns(b, n, func() int { return discard(b, floor) }, func() int {
		s, err := c.Snapshot(b.Context(), nil)
		must(b, err)
		return len(s.Flows)
	})
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(n*b.N), "bytes/flow")
}

// BenchmarkParallel compares Parallel with the same floor: one reader of the
// whole table.
func BenchmarkParallel(b *testing.B) {
	const n = 100_000
	c, h := divisible(b, n)
	floor := rawSocket(b, h)
	turns(b, n, func() int { return discard(b, floor) }, func() (rows int) {
		for _, err := range c.Parallel(b.Context(), nil) {
			must(b, err)
			rows++
		}
		return rows
	})
}

// turns lets a reader of n flows and its floor take turns, and reports the
// median of the ratios, and the processor time the reader takes outside the
// kernel.
func turns(b *testing.B, n int, floor, read func() int) {
	var ratios, perFlow []float64
	var user time.Duration
	b.ReportAllocs()
	for b.Loop() {
		bare, _ := timed(b, n, floor)
		wall, used := timed(b, n, read)
		user += used
		ratios = append(ratios, float64(wall)/float64(bare))
		perFlow = append(perFlow, float64(wall)/float64(n))
	}
	b.ReportMetric(median(ratios), "x-floor")
	b.ReportMetric(median(perFlow), "ns/flow")
	b.ReportMetric(float64(user)/float64(n*len(perFlow)), "user-ns/flow")
}

// timed runs a reader of n flows or more.
func timed(b *testing.B, n int, read func() int) (wall, user time.Duration) {
	start, before := time.Now(), userTime(b)
	got := read()
	wall, user = time.Since(start), userTime(b)-before
	if got < n {
		b.Fatalf("%d of %d", got, n)
	}
	return wall, user
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// userTime is the processor time of this process outside the kernel.
func userTime(t testing.TB) time.Duration {
	var r unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano())
}

// rawSocket opens a netlink socket in the host's namespace.
func rawSocket(t testing.TB, h *lab.Host) (fd int) {
	t.Helper()
	must(t, h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	}))
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	return fd
}

var receiveBuffer [nfnl.BufferSize]byte

// discard asks for the whole table, throws the answer away and returns how many
// bytes it was.
func discard(t testing.TB, fd int) int {
	m := dumpRequest(nil)
	request := nfnltest.Message(m.Type, m.Flags|nfnl.DumpAll, 1, m.Data)
	must(t, unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for total := 0; ; {
		n, err := unix.Read(fd, receiveBuffer[:])
		must(t, err)
		if total += n; endsDump(receiveBuffer[:n]) {
			return total
		}
	}
}

// endsDump reports whether the last message is an NLMSG_DONE, which has an
// errno of 4 bytes.
func endsDump(b []byte) bool {
	const size = unix.NLMSG_HDRLEN + 4
	if len(b) < size {
		return false
	}
	last := b[len(b)-size:]
	return binary.NativeEndian.Uint32(last) == size && binary.NativeEndian.Uint16(last[4:]) == unix.NLMSG_DONE
}

// messages counts the messages of the dump, unread.
func messages(t testing.TB, c *Conn) int {
	n := 0
	for _, err := range c.nl.Dump(t.Context(), dumpRequest(nil)) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
