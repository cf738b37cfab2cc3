package sockdiag

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// crowd is a host with about n sockets: half of them are both ends of
// established connections, half in TIME_WAIT. There are fewer where the limit
// of open files is low.
func crowd(tb testing.TB, n int) *lab.Host {
	tb.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		tb.Fatal(err)
	}
	n = min(n, int(limit.Cur)) // half of them have a file
	h := lab.New(tb).MustHost(tb, "crowd")
	c := &crowded{}
	tb.Cleanup(c.close)
	if err := h.Do(func() error { return c.fill(n) }); err != nil {
		tb.Fatal(err)
	}
	return h
}

// crowded holds the open files of a crowd.
type crowded struct{ fds []int }

func (c *crowded) close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd) // nothing to lose
	}
	c.fds = nil
}

// fill makes n sockets in the thread's namespace, over three listeners so that
// there are ports enough.
func (c *crowded) fill(n int) error {
	for port := 8000; port < 8003; port++ {
		to := &unix.SockaddrInet4{Addr: loopback4.As4(), Port: port}
		l, err := c.socket()
		if err == nil {
			err = unix.Bind(l, to)
		}
		if err == nil {
			err = unix.Listen(l, 16)
		}
		for i := 0; i < n/4 && err == nil; i++ {
			err = c.join(l, to, i%3 == 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *crowded) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		c.fds = append(c.fds, fd)
	}
	return fd, err
}

// join makes a connection: two sockets, or one in TIME_WAIT.
func (c *crowded) join(l int, to unix.Sockaddr, stays bool) error {
	client, err := c.socket()
	if err != nil {
		return err
	}
	if err := unix.Connect(client, to); err != nil {
		return err
	}
	server, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil || stays {
		c.fds = append(c.fds, server)
		return err
	}
	c.fds = c.fds[:len(c.fds)-1]
	_ = unix.Close(client)
	_ = unix.Close(server)
	return nil
}

// TestAllAllocations: streaming thousands of sockets allocates what a dump
// does, and nothing per socket.
func TestAllAllocations(t *testing.T) {
	c := dialHost(t, crowd(t, 4000))
	rows := 0
	n := testing.AllocsPerRun(5, func() {
		rows = 0
		for s, err := range c.All(t.Context(), Query{Info: true}) {
			if err != nil {
				t.Fatal(err)
			}
			sink = s
			rows++
		}
	})
	if rows < 3000 {
		t.Errorf("%d sockets, want thousands", rows)
	}
	if n > 40 {
		t.Errorf("%v allocations for %d sockets, want at most 40", n, rows)
	}
}

// BenchmarkAll and BenchmarkSnapshot read about 20,000 sockets beside their
// floor: the same requests, read and thrown away in the same iterations.
func BenchmarkAll(b *testing.B) {
	benchmark(b, func(c *Conn, q Query) (rows int) {
		for s, err := range c.All(b.Context(), q) {
			if err != nil {
				b.Fatal(err)
			}
			rows++
			sink.Cookie ^= s.Cookie
		}
		return rows
	})
}

func BenchmarkSnapshot(b *testing.B) {
	benchmark(b, func(c *Conn, q Query) int { return len(snapshot(b, c, q)) })
}

func benchmark(b *testing.B, read func(*Conn, Query) int) {
	c := dialHost(b, crowd(b, 20000))
	for _, bench := range []struct {
		name string
		q    Query
	}{
		{"plain", Query{}},
		{"info", Query{Info: true}},
		{"established", Query{States: States(Established), Family: IPv4}},
		{"listen", Query{States: States(Listen)}},
	} {
		b.Run(bench.name, func(b *testing.B) { beside(b, c, bench.q, read) })
	}
}

// beside reads and throws away in turns, and tells the median of the ratios of
// each turn.
func beside(b *testing.B, c *Conn, q Query, read func(*Conn, Query) int) {
	b.ReportAllocs()
	var ratios, perSocket []float64
	rows := 0
	for b.Loop() {
		start := time.Now()
		throwAway(b, c, q)
		floor := time.Since(start)
		start = time.Now()
		rows = read(c, q)
		took := time.Since(start)
		ratios = append(ratios, float64(took)/float64(floor))
		perSocket = append(perSocket, float64(took)/float64(rows))
	}
	b.ReportMetric(median(ratios), "x-floor")
	b.ReportMetric(median(perSocket), "ns/socket")
	b.ReportMetric(float64(rows), "sockets")
}

func throwAway(b *testing.B, c *Conn, q Query) {
	families, err := q.families()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		for _, err := range c.nl.Dump(b.Context(), q.request(f)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
