package sockdiag_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// How many sockets of a service are in which state? No socket is kept.
func ExampleAggregate() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	c, err := sockdiag.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	service := sockdiag.Query{LocalPort: netip.MustParseAddrPort(l.Addr().String()).Port()}
	groups, err := sockdiag.Aggregate(c.All(context.Background(), service), sockdiag.By{Keys: sockdiag.KeyState})
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range groups.Top(10, nil) {
		fmt.Println(g.Key.State, g.Sockets)
	}
	// Output:
	// ESTABLISHED 1
	// LISTEN 1
}
