package nflog

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// BenchmarkPackets reads packets as a rule in Input logs them, 256 bytes of
// each. Its floor is the same datagrams taken from the same fake socket and
// thrown away; x-floor is the ratio of the two.
func BenchmarkPackets(b *testing.B) {
	floor := drain(b, 20_000)
	w := newWire()
	r, err := listenOn(b, w, Config{})
	if err != nil {
		b.Fatal(err)
	}
	stop := feed(w)
	defer stop()
	b.ReportAllocs()
	n := 0
	for _, err := range r.Packets(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		if n++; !b.Loop() {
			break
		}
	}
	perPacket := float64(b.Elapsed()) / float64(b.N)
	b.ReportMetric(floor, "floor-ns/op")
	b.ReportMetric(perPacket/floor, "x-floor")
}

// drain reads n datagrams from a wire and returns the nanoseconds for one.
func drain(b *testing.B, n int) float64 {
	b.Helper()
	w := newWire()
	defer w.Close()
	stop := feed(w)
	defer stop()
	start := time.Now()
	for range n {
		for _, err := range w.ReceiveIter() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	return float64(time.Since(start)) / float64(n)
}

// feed delivers packets one by one, as fast as they are taken.
func feed(w *wire) (stop func()) {
	proto := message(unix.AF_INET, logged)
	number := bytes.Index(proto.Data, []byte{0xde, 0xad, 0xbe, 0xef})
	buffers := make([][]byte, 2*cap(w.datagrams))
	datagrams := make([][]netlink.Message, len(buffers))
	for i := range buffers {
		buffers[i] = make([]byte, len(proto.Data))
		datagrams[i] = []netlink.Message{{Header: proto.Header, Data: buffers[i]}}
	}
	done := make(chan struct{})
	go func() {
		for seq := uint32(0); ; seq++ {
			i := seq % uint32(len(buffers))
			copy(buffers[i], proto.Data) // the gate amends in place
			binary.BigEndian.PutUint32(buffers[i][number:], seq)
			select {
			case w.datagrams <- datagrams[i]:
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// logged are the attributes of a packet in Input.
func logged(b *nfnl.Builder) {
	b.Bytes(1, []byte{8, 0, byte(Input), 0})
	b.String(10, "rejected: ")
	b.U32(4, 2)
	b.Bytes(8, []byte{0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0})
	b.U16(15, 1)
	b.U16(17, 14)
	b.Bytes(16, make([]byte, 14))
	b.Bytes(3, make([]byte, 16))
	b.U32(11, 1000)
	b.U32(14, 1000)
	b.U32(12, 0xdeadbeef)
	b.Bytes(9, make([]byte, 256))
}
