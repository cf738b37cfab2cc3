package sockdiag_test

import (
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// connection is an established connection of a web server.
func connection(cookie uint64, peer string, unacknowledged uint32) sockdiag.Socket {
	return sockdiag.Socket{
		Protocol: sockdiag.TCP, Family: sockdiag.IPv4, State: sockdiag.Established, Cookie: cookie,
		Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: netip.MustParseAddrPort(peer),
		SendQueue: unacknowledged,
	}
}

// Which networks leave most unacknowledged? Conn.All in the place of
// Snapshot.All answers it without keeping a socket.
func ExampleAggregate() {
	snap := &sockdiag.Snapshot{Sockets: []sockdiag.Socket{
		connection(1, "198.51.100.7:5000", 0),
		connection(2, "203.0.113.8:5000", 70000),
		connection(3, "203.0.113.9:5000", 50000),
		connection(4, "198.51.100.8:5000", 200),
	}}
	groups, err := sockdiag.Aggregate(snap.All(), sockdiag.By{Keys: sockdiag.KeyPeer, IPv4Bits: 24})
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range groups.Top(10, func(s sockdiag.Sums) uint64 { return s.SendQueue }) {
		fmt.Println(g.Key.Peer, "sockets:", g.Sockets, "bytes:", g.SendQueue)
	}
	// Output:
	// 203.0.113.0/24 sockets: 2 bytes: 120000
	// 198.51.100.0/24 sockets: 2 bytes: 200
}

// What came and went between two snapshots? With Query.Info, Change.Traffic and
// Change.Stalled tell what those did that stayed.
func ExampleCompare() {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := &sockdiag.Snapshot{Start: start, Sockets: []sockdiag.Socket{
		connection(1, "198.51.100.7:5000", 0), connection(2, "203.0.113.8:5000", 0),
	}}
	after := &sockdiag.Snapshot{Start: start.Add(10 * time.Second), Sockets: []sockdiag.Socket{
		connection(3, "203.0.113.9:5000", 0), connection(2, "203.0.113.8:5000", 700),
	}}
	d := sockdiag.Compare(before, after)
	for s := range d.Opened() {
		fmt.Println("opened:", s.Remote)
	}
	for s := range d.Closed() {
		fmt.Println("closed:", s.Remote)
	}
	for c := range d.Kept() {
		fmt.Println("kept:  ", c.After.Remote, "unacknowledged:", c.Before.SendQueue, "to", c.After.SendQueue)
	}
	// Output:
	// opened: 203.0.113.9:5000
	// closed: 198.51.100.7:5000
	// kept:   203.0.113.8:5000 unacknowledged: 0 to 700
}
