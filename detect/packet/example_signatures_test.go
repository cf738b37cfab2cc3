package packet_test

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/detect/packet"
)

// A client sends its request with PSH|RST, and a rule of the server drops it.
// 72 s later the server gives up: its RST acknowledges nothing.
func ExampleResetTracker() {
	const client, server = "c0000201", "c0000202"
	packets := []struct {
		after time.Duration
		bytes string
	}{
		{0, "450000280000000040060000" + client + server + "b11a0050" + "000003e700000000" + "5002faf000000000"},
		{0, "450000280000000040060000" + server + client + "0050b11a" + "00001387000003e8" + "5012fe8800000000"},
		{0, "4500034c0000000040060000" + client + server + "b11a0050" + "000003e800001388" + "501c040000000000" + "474554"},
		{72 * time.Second, "450000280000000040060000" + server + client + "0050b11a" + "00001388000003e8" + "5014004000000000"},
	}
	track := packet.NewResetTracker(0)
	start := time.Now()
	for _, p := range packets {
		b, _ := hex.DecodeString(p.bytes)
		h, err := packet.Decode(b)
		if err != nil {
			fmt.Println(err)
			return
		}
		if a, sure := h.Anomaly(b); a != 0 {
			fmt.Printf("%v (%v): conntrack takes it: %t\n", a, sure, h.Flags.Valid())
		}
		if r, ok := track.Packet(start.Add(p.after), h.Header); ok {
			fmt.Println(r)
		}
	}
	fmt.Println("forgotten:", track.Forgotten())
	// Output:
	// PSH|RST (certain): conntrack takes it: true
	// 192.0.2.1:45338 > 192.0.2.2:80: PSH|RST with 804 bytes, 1 seen; if a rule drops them, the connection hangs (possible)
	// 192.0.2.1:45338 > 192.0.2.2:80: PSH|RST with 804 bytes, 1 seen; 1m12s after, RST|ACK with TTL 64 acknowledges 1, not 805: the data never arrived, and a rule drops RST before it reaches TCP (certain)
	// forgotten: 0
}

// The attack, behind the end of another record in the same segment.
func ExampleHeartbeatTracker() {
	b, _ := hex.DecodeString("450000360000000040060000" + "c0000201" + "c0000202" +
		"b11a2328" + "000003e800001388" + "5018040000000000" +
		"1603020001" + "00" + // a handshake record
		"1803020003" + "014000") // 3 bytes that claim 16384
	h, err := packet.Decode(b)
	if err != nil {
		fmt.Println(err)
		return
	}
	track := packet.NewHeartbeatTracker(0)
	track.Packet(h.Header, b, func(f packet.HeartbeatFinding) { fmt.Println(f) })
	// Output:
	// 192.0.2.1:45338 > 192.0.2.2:9000: heartbeat of 3 bytes: a request that claims 16384 bytes more than it has, the Heartbleed attack (certain)
}

// A single record, as far as it tells alone.
func ExampleDecodeHeartbeat() {
	hb, ok := packet.DecodeHeartbeat([]byte{24, 3, 2, 0, 3, 1, 0x40, 0})
	fault, sure := hb.Fault()
	fmt.Println(ok, hb.Type == packet.HeartbeatRequest, hb.Length, hb.Payload, fault, sure)
	// Output: true true 3 16384 overread certain
}
