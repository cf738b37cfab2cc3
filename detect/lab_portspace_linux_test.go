package detect_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// A router has one port for each service. The second connection to one is
// dropped: the kernel counts insert_failed, and that in drop too, which must not
// be taken for a full table. The other service is reached.
func TestLabPortSpaceExhausted(t *testing.T) {
	const only = 30_000
	families(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, router, server := lab.Three(t)
		v4, v6 := router.Addrs(server)
		outer := v6
		if addr(server).Is4() {
			outer = v4
		}
		ok(t, router.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
			{Name: "post", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
				{OutIface: "server", Proto: nft.TCP, Verdict: nft.SNAT, To: netip.AddrPortFrom(outer, only)},
			}},
		}}))
		e := open(t, router)
		busy, idle := listen(t, server, addr(server), 443), listen(t, server, addr(server), 80)
		dialThrough(t, client, 0, busy)
		early := e.look(t)

		dialThrough(t, client, 0, idle)
		ctx, cancel := context.WithCancel(t.Context())
		refused := make(chan error, 1)
		go func() {
			c, err := client.Dial(ctx, "tcp", netip.AddrPort{}, busy.Addr().(*net.TCPAddr).AddrPort(), nil)
			if err == nil {
				_ = c.Close()
			}
			refused <- err
		}()
		var h detect.Host
		await(t, "the kernel to count", func() bool {
			h = e.look(t)
			return conntrack.Total(h.Stats).InsertFailed > conntrack.Total(early.Stats).InsertFailed
		})
		cancel()
		if err := <-refused; err == nil {
			t.Error("a second connection got a port")
		}
		h.Earlier = detect.Earlier{At: early.Now, Usage: early.Usage, Stats: early.Stats}
		found := detect.Find(h, detect.PortSpace{Ports: conntrack.PortRange{First: only, Last: only}})
		if len(found) != 2 {
			t.Fatalf("got %v", found)
		}
		for _, f := range found {
			if f.Severity != detect.Critical || f.Count != 1 || f.Limit != 1 || !strings.Contains(f.Cause, "insert_failed counted ") {
				t.Errorf("got %v", f)
			}
		}
		for _, f := range detect.Find(h, detect.Pressure{}) {
			if f.Subject != "conntrack counter insert_failed" {
				t.Errorf("the table is nearly empty, but: %v", f)
			}
		}
	})
}
