package detect_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

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
		moreAddresses(t, client, router, busy, e)
	})
}

// moreAddresses does what is advised, in the words of nft and of iptables: the
// next connections have a port, and none is refused.
func moreAddresses(t *testing.T, client, router *lab.Host, l net.Listener, e eyes) {
	t.Helper()
	fix := detect.Find(pressed(e.look(t)), detect.Pressure{})[0].Fix[0]
	outer := l.Addr().(*net.TCPAddr).AddrPort().Addr()
	first, last, tables, bits := "198.51.100.10", "198.51.100.13", "iptables", "/24"
	if outer.Is6() {
		first, last, tables, bits = "2001:db8:2::10", "2001:db8:2::13", "ip6tables", "/64"
	}
	if !detect.Installed(t, "nft", "ip", tables) {
		return
	}
	words := strings.NewReplacer("FIRST", first, "LAST", last)
	parts := strings.Split(words.Replace(fix), "`") // the rules of nft and of iptables are 1 and 3
	family := map[bool]string{true: "ip6", false: "ip"}[outer.Is6()]
	for i, commands := range [][]string{
		{"nft delete table inet nat", "nft add table inet more", "nft 'add chain inet more post { type nat hook postrouting priority srcnat; }'",
			"nft add rule inet more post meta l4proto tcp " + strings.Replace(parts[1], "snat", "snat "+family, 1)},
		{"nft delete table inet more", tables + " -t nat -A POSTROUTING -p tcp " + parts[3]},
	} {
		for n := range 4 { // the router answers for the addresses
			if i == 0 {
				a := strings.TrimSuffix(first, "0") + string(rune('0'+n)) + bits
				commands = append(commands, "ip addr add "+a+" dev server nodad 2>/dev/null || ip addr add "+a+" dev server")
			}
		}
		for _, c := range commands {
			if out, err := router.Exec(t.Context(), "sh", "-c", c); err != nil {
				t.Fatalf("%s: %v\n%s", c, err, out)
			}
		}
		early := e.look(t)
		for range 3 {
			dialThrough(t, client, 0, l)
		}
		h := e.look(t)
		h.Earlier = detect.Earlier{At: early.Now, Usage: early.Usage, Stats: early.Stats}
		if found := detect.Find(h, detect.PortSpace{Ports: conntrack.PortRange{First: 1024, Last: 65535}}, detect.Pressure{}); len(found) != 0 {
			t.Errorf("with %v: %v", commands, found)
		}
	}
	detect.Proved(t, fix)
}

// pressed is a host with a counter that counts.
func pressed(h detect.Host) detect.Host {
	const many = 1000
	h.Earlier = detect.Earlier{At: h.Now.Add(-time.Second), Stats: h.Stats}
	h.Stats = []conntrack.Stats{h.Stats[0]}
	h.Stats[0].InsertFailed += many
	h.Stats[0].Drop += many
	return h
}
