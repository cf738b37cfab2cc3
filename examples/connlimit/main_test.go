package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/program"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func TestMain(m *testing.M) { program.Main(m, main) }

// TestNetwork: sources of one network that are within the limit are not banned for
// being many, and one that is not is banned alone.
func TestNetwork(t *testing.T) {
	var rows []sockdiag.Socket
	for i := range 800 {
		source := byte(1 + i%20)
		if i >= 780 {
			source = 1 // 39 and 20 more are within the limit; it gets 59
		}
		rows = append(rows, sockdiag.Socket{
			Protocol: sockdiag.TCP, State: sockdiag.Established, Fields: sockdiag.FieldInfo,
			Local:  netip.MustParseAddrPort("192.0.2.1:443"),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, source}), uint16(40000+i)),
			Info:   sockdiag.TCPInfo{Fields: sockdiag.InfoBase | sockdiag.InfoBytes, LastDataSent: time.Hour, LastDataRecv: time.Hour},
		})
	}
	for _, busy := range []bool{false, true} {
		for limit, want := range map[uint64]string{60: "[]", 58: "[203.0.113.1/32]"} {
			d := detector(detect.Sources{Ports: []uint16{443}}, limit, busy, time.Minute)
			var got []netip.Prefix
			for _, f := range detect.Find(detect.Host{Now: time.Now(), Sockets: rows}, d) {
				got = append(got, f.Sources...)
			}
			if fmt.Sprint(got) != want {
				t.Errorf("busy %v, limit %d: %v, want %s", busy, limit, got, want)
			}
		}
	}
}
