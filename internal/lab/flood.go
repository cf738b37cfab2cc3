package lab

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Flood begins more connections to a port of the server than a listener with a
// short queue takes, which accepts none. They have given up when it returns.
func Flood(tb TB, client, server *Host, port uint16) {
	tb.Helper()
	to := netip.AddrPortFrom(server.Addr4(), port)
	l, err := server.Listen("tcp4", to)
	must(tb, err)
	defer l.Close() //nolint:errcheck // it accepts nothing
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var dials sync.WaitGroup
	for range 16 {
		dials.Go(func() {
			if c, err := client.Dial(ctx, "tcp4", netip.AddrPort{}, to, nil); err == nil {
				_ = c.Close() // it was in the queue
			}
		})
	}
	dials.Wait()
}
