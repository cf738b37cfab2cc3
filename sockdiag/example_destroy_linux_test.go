package sockdiag_test

import (
	"context"
	"fmt"
	"iter"
	"log"
	"net"
	"net/netip"
	"os"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Which connections to this server's port would be ended? Without DryRun they
// are, while the dump is being read. There are none here, and the listener is left
// alone.
func ExampleConn_DestroyAll() {
	l, port := listen()
	defer l.Close()
	c, err := sockdiag.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	rows, failed := values(c.All(ctx, sockdiag.Query{LocalPort: port}))
	report, err := c.DestroyAll(ctx, rows, &sockdiag.DestroyOptions{DryRun: true})
	if err != nil || *failed != nil {
		log.Fatal(err, *failed)
	}
	fmt.Println("connections:", report.WouldDestroy, "protected:", report.Protected)
	// Output:
	// connections: 0 protected: 1
}

// values is a stream without its error, which is told when the stream is over.
func values[T any](seq iter.Seq2[T, error]) (iter.Seq[T], *error) {
	var last error
	return func(yield func(T) bool) {
		for v, err := range seq {
			if err != nil {
				last = err
				return
			}
			if !yield(v) {
				return
			}
		}
	}, &last
}

// Who listens at a port?
func ExampleProc_Holders() {
	l, port := listen()
	defer l.Close()
	c, err := sockdiag.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	q := sockdiag.Query{States: sockdiag.States(sockdiag.Listen), LocalPort: port}
	snap, err := c.Snapshot(ctx, q)
	if err != nil {
		log.Fatal(err)
	}
	var inodes []uint32
	for _, s := range snap.Sockets {
		inodes = append(inodes, s.Inode)
	}
	holders, err := sockdiag.Proc("/proc").Holders(ctx, inodes...)
	if err != nil {
		log.Fatal(err)
	}
	for _, i := range inodes {
		for _, h := range holders.Of(i) {
			fmt.Println("this process:", h.Process.PID == os.Getpid())
		}
	}
	// Output:
	// this process: true
}

// listen opens a listener of plain TCP, at a port of its own.
func listen() (net.Listener, uint16) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return l, netip.MustParseAddrPort(l.Addr().String()).Port()
}
