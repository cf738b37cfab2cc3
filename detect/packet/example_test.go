package packet_test

import (
	"encoding/hex"
	"fmt"

	"github.com/connsleuth/connsleuth/detect/packet"
)

// A host with the rule "tcp dport 443 reject with icmp type host-prohibited"
// answers a SYN. The answer names the connection it refused.
func ExampleDecode() {
	b, _ := hex.DecodeString(
		"45c00058a8240000400184db" + "c0000201" + "c0000202" + // IPv4, ICMP
			"030a39ff00000000" + // host prohibited
			"4500003caec040004006" + "07f8" + "c0000202" + "c0000201" + // quoted IPv4
			"c842" + "01bb" + "0fe9fc93" + "00000000" + "a002faf084320000") // quoted TCP

	p, err := packet.Decode(b)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p)
	fmt.Println("prohibited:", p.Prohibited())
	if p.HasQuoted && p.Quoted.Have.Has(packet.HaveFlags) {
		fmt.Println("refused:", p.Quoted.Dst, p.Quoted.DstPort, p.Quoted.Flags)
	}
	// Output:
	// 192.0.2.1 > 192.0.2.2 ICMP 3/10 host administratively prohibited (192.0.2.2:51266 > 192.0.2.1:443 TCP SYN)
	// prohibited: true
	// refused: 192.0.2.1 443 SYN
}

// A router that quotes only the IP header and 8 bytes, as RFC 792 demands,
// shows the ports and the sequence number but not the TCP flags.
func ExampleHave() {
	b, _ := hex.DecodeString(
		"45c00038a8240000400184fb" + "c0000201" + "c0000202" +
			"030a39ff00000000" +
			"4500003caec040004006" + "07f8" + "c0000202" + "c0000201" +
			"c842" + "01bb" + "0fe9fc93")

	p, _ := packet.Decode(b)
	fmt.Println(p.Quoted.Have, p.Quoted.Seq)
	// Output: proto|ports|seq 266992787
}
