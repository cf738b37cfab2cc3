package sockdiag_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Who listens, and how many connections wait to be accepted? Here the program
// asks for its own listener only.
func Example() {
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()

	c, err := sockdiag.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	q := sockdiag.Query{States: sockdiag.States(sockdiag.Listen), LocalPort: port}
	for s, err := range c.All(context.Background(), q) {
		if err != nil {
			log.Print(err)
			break
		}
		fmt.Println(s.Family, s.State, "waiting:", s.AcceptQueue, "overflown:", s.AcceptQueue > s.Backlog)
	}
	// Output:
	// IPv4 LISTEN waiting: 0 overflown: false
}

// How many connections wait for the server behind a UNIX socket?
func ExampleConn_Unix() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	c, err := sockdiag.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	q := sockdiag.UnixQuery{States: sockdiag.States(sockdiag.Listen)}
	for s, err := range c.Unix(context.Background(), q) {
		if err != nil {
			log.Print(err)
			break
		}
		if s.Path == path {
			fmt.Println(s.Type, s.State, "waiting:", s.AcceptQueue, "clients:", len(s.Pending()))
		}
	}
	// Output:
	// stream LISTEN waiting: 1 clients: 1
}
