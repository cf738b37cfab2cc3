package detect_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// A source held 684 connections to a SIP server, and a database 43.
func ExamplePerSource() {
	host := detect.Host{Now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
	row := sockdiag.Socket{Family: sockdiag.IPv4, State: sockdiag.Listen, Local: netip.MustParseAddrPort("0.0.0.0:5060")}
	host.Sockets = append(host.Sockets, row)
	for source, n := range map[string]int{"203.0.113.9": 684, "10.1.2.3": 43} {
		row.State, row.Local = sockdiag.Established, netip.MustParseAddrPort("192.0.2.10:5060")
		for i := range n {
			row.Remote = netip.AddrPortFrom(netip.MustParseAddr(source), uint16(10000+i))
			host.Sockets = append(host.Sockets, row)
		}
	}
	sip := detect.PerSource{
		Sources: detect.Sources{Ports: []uint16{5060}, Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}},
		State:   sockdiag.Established,
	}
	for _, f := range detect.Find(host, sip) {
		fmt.Printf("%v: %d, limit %d\n", f.Sources, f.Count, f.Limit)
		fmt.Println(f.Cause)
	}
	// Output:
	// [203.0.113.9/32]: 684, limit 60
	// 203.0.113.9 holds 684 connections in ESTABLISHED, on port 5060: each takes a file descriptor, until a keep-alive finds that the peer is gone
}

// Events come from conntrack.Conn.Events; here, from one source every 100 ms.
func ExampleRate() {
	rates := detect.Rate{Limits: []detect.RateLimit{{Count: 200, Within: 30 * time.Second}}}.Start()
	event := conntrack.Event{Type: conntrack.EventNew}
	event.Flow.Original = conntrack.Tuple{
		Src: netip.MustParseAddr("2001:db8:7::1"), Dst: netip.MustParseAddr("2001:db8::10"), DstPort: 5060, Proto: conntrack.ProtoTCP,
	}
	for now, i := time.Now(), 0; i < 1000; i++ {
		if f, ok := rates.Add(now.Add(time.Duration(i)*100*time.Millisecond), &event); ok {
			fmt.Println(f.Cause)
		}
	}
	// Output:
	// 2001:db8:7::/64 opened 200 connections to port 5060 within 30s
}

// As fail2ban would: 40 in TIME_WAIT within 750 s, over two looks.
func ExampleRepeat() {
	var repeat detect.Repeat
	source := netip.MustParsePrefix("197.203.26.142/32")
	for i, n := range []uint64{25, 25, 25} {
		at := time.Unix(1700000000, 0).Add(time.Duration(i) * 10 * time.Minute)
		fmt.Println(n, repeat.Add(at, source, n))
	}
	// Output:
	// 25 false
	// 25 true
	// 25 false
}
