package nflog

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// BenchmarkPackets reads packets that wait in the socket: through this project's
// reader, through go-nflog, and with bare system calls that throw them away, the
// floor. The kernel logs each packet for all three, and they take turns. cpu-ns
// is processor time in and outside the kernel; the x- metrics are medians of
// the ratios of each turn.
func BenchmarkPackets(b *testing.B) {
	for _, threshold := range []uint32{1, 64} {
		b.Run(fmt.Sprintf("threshold=%d", threshold), func(b *testing.B) { benchmarkPackets(b, threshold) })
	}
}

func benchmarkPackets(b *testing.B, threshold uint32) {
	const n, floorGroup, ownGroup, goGroup = 4000, 5, 6, 7
	client, server := lab.Two(b)
	var logs []nft.Rule
	for _, g := range []uint16{floorGroup, ownGroup, goGroup} {
		logs = append(logs, nft.Rule{Proto: nft.UDP, Log: &nft.Log{Group: g, Prefix: "rejected: "}})
	}
	rules(b, server, nft.Input, append(logs, nft.Rule{Proto: nft.UDP, Verdict: nft.Drop})...)
	cfg := Config{Groups: []uint16{ownGroup}, Threshold: threshold, ReadBuffer: 8 << 20}
	own := listenAt(b, server, cfg)
	cfg.GoNflog, cfg.Groups = true, []uint16{goGroup}
	gon := listenAt(b, server, cfg)
	floor := bareSocket(b, server, &cfg, floorGroup)

	var costs [3][]cost
	for b.Loop() {
		b.StopTimer()
		sendUDP(b, client, netip.AddrPortFrom(server.Addr4(), 9), n)
		time.Sleep(2 * defaultFlushInterval) // until the last batches are sent
		b.StartTimer()
		costs[0] = append(costs[0], measured(b, func() { discard(b, floor, n) }))
		costs[1] = append(costs[1], measured(b, func() { read(b, own, n) }))
		costs[2] = append(costs[2], measured(b, func() { read(b, gon, n) }))
	}
	for i, name := range []string{"floor", "own", "go-nflog"} {
		b.ReportMetric(median(costs[i], func(c cost) float64 { return float64(c.cpu) / n }), name+"-cpu-ns/packet")
		b.ReportMetric(median(costs[i], func(c cost) float64 { return float64(c.allocations) / n }), name+"-allocs/packet")
	}
	for i, name := range []string{"", "x-own", "x-go-nflog"} {
		turn := -1
		if ratio := func(c cost) float64 { turn++; return float64(c.wall) / float64(costs[0][turn].wall) }; i > 0 {
			b.ReportMetric(median(costs[i], ratio), name)
		}
	}
	b.ReportMetric(0, "ns/op") // of all three
}

// cost is what a turn took.
type cost struct {
	wall, cpu   time.Duration
	allocations uint64
}

func measured(b *testing.B, turn func()) (c cost) {
	b.Helper()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	allocated, start, used := m.Mallocs, time.Now(), cpuTime(b)
	turn()
	c.wall, c.cpu = time.Since(start), cpuTime(b)-used
	runtime.ReadMemStats(&m)
	c.allocations = m.Mallocs - allocated
	return c
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func median(costs []cost, of func(cost) float64) float64 {
	var v []float64
	for _, c := range costs {
		v = append(v, of(c))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// read takes n packets.
func read(b *testing.B, r *Reader, n int) {
	b.Helper()
	for _, err := range r.Packets(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		if n--; n == 0 {
			return
		}
	}
}

// bareSocket binds a group as listenOwn does, on a socket without a runtime.
func bareSocket(b *testing.B, h *lab.Host, cfg *Config, group uint16) (fd int) {
	b.Helper()
	c := cfg.withDefaults()
	m := bindRequest(&c, group)
	err := h.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, c.ReadBuffer); err != nil {
			return err
		}
		request := nfnltest.Message(m.Type, m.Flags|nfnl.Request, 1, m.Data)
		return unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	return fd
}

var receiveBuffer [nfnl.BufferSize]byte

// discard throws n packets away.
func discard(b *testing.B, fd, n int) {
	b.Helper()
	for n > 0 {
		size, err := unix.Read(fd, receiveBuffer[:])
		if err != nil {
			b.Fatal(err)
		}
		for d := receiveBuffer[:size]; len(d) > 0; {
			if binary.NativeEndian.Uint16(d[4:]) == typePacket {
				n--
			}
			d = d[(binary.NativeEndian.Uint32(d)+3)&^3:]
		}
	}
}

// BenchmarkDecode decodes a packet as a rule in Input logs it, 256 bytes of it.
func BenchmarkDecode(b *testing.B) {
	data, names := payload(unix.AF_INET, logged), newPrefixes()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := decode(data, names); !ok {
			b.Fatal("not decoded")
		}
	}
}
