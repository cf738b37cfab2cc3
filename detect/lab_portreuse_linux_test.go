package detect_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// serve lets new connections to a port in, and what belongs to one.
func serve(t *testing.T, h *lab.Host, port uint16) {
	t.Helper()
	syn := nft.TCPFlags{Mask: nft.FIN | nft.SYN | nft.RST | nft.ACK, Value: nft.SYN}
	ok(t, h.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{
			{Proto: nft.ICMPv6, Verdict: nft.Accept},
			{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
			{CTState: nft.New, Proto: nft.TCP, DstPort: port, TCPFlags: syn, Verdict: nft.Accept},
			{Verdict: nft.RejectAdminProhibited},
		}},
	}}))
}

func say(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(from, text)
	ok(t, err)
	_, err = io.ReadFull(to, make([]byte, len(text)))
	ok(t, err)
}

// A service's table is flushed, and the connection picked up when the service
// sends: as one that it began. When the client resets it, the entry outlives the
// socket, and a new connection from the same port is refused until it is gone.
func TestLabPortReuse(t *testing.T) {
	const port, service = 51522, 9102
	families(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		ok(t, server.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "60"))
		serve(t, server, service)
		e := open(t, server)
		l := listen(t, server, addr(server), service)
		near, far := dialThrough(t, client, port, l)
		say(t, near, far, "question")
		quiet(t, e.look(t, addr(server)))

		e.forget(t)
		say(t, far, near, "answer")
		if found := detect.Find(e.look(t, addr(server)), detect.Ghosts{}, detect.PortReuse{}); len(found) != 0 {
			t.Errorf("the connection lives, but: %v", found)
		}
		ok(t, near.(*net.TCPConn).SetLinger(0))
		ok(t, near.Close())
		var h detect.Host
		await(t, "the reset", func() bool {
			h = e.look(t, addr(server))
			f := tcp(h.Flows)
			return len(f) == 1 && f[0].TCP.State == conntrack.TCPClose && len(h.Sockets) == 1
		})
		found := detect.Find(h, all...)
		if len(found) != 1 || found[0].Detector != "PortReuse" || found[0].Confidence != detect.Likely || found[0].Evidence.Flows[0] != tcp(h.Flows)[0] {
			t.Fatalf("got %v", found)
		}
		if err := again(t, client, port, l, 2500*time.Millisecond); err == nil {
			t.Error("a new connection from the port was not refused")
		}
		run(t, server, found[0].Fix[0])
		if err := again(t, client, port, l, 20*time.Second); err != nil {
			t.Errorf("the entry was deleted: %v", err)
		}
		quiet(t, e.look(t, addr(server)))
		detect.Proved(t, found[0].Fix[0])
	})
}

// again connects from the port once more.
func again(t *testing.T, client *lab.Host, port uint16, l net.Listener, wait time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	c, err := client.Dial(ctx, "tcp", netip.AddrPortFrom(netip.Addr{}, port), l.Addr().(*net.TCPAddr).AddrPort(), &lab.DialOptions{ReuseAddr: true})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = c.Close() })
	return nil
}

// run has the host run what is in backquotes.
func run(t *testing.T, h *lab.Host, fix string) {
	t.Helper()
	for i, command := range strings.Split(fix, "`") {
		if i%2 == 0 {
			continue
		}
		tool, _, _ := strings.Cut(command, " ")
		lab.Tool(t, tool)
		if out, err := h.Exec(t.Context(), "sh", "-c", command); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// The router translates connections to few ports: those to one service are
// found when they have taken most, while as many to two services are not.
func TestLabPortSpace(t *testing.T) {
	families(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, router, server := lab.Three(t)
		masquerade(t, router)
		e := open(t, router)
		busy, idle := listen(t, server, addr(server), 443), listen(t, server, addr(server), 80)
		space := detect.PortSpace{Ports: conntrack.PortRange{First: 30_000, Last: 30_009}}
		var open []io.Closer
		for i := range uint16(7) {
			near, far := dialThrough(t, client, 30_000+i, busy)
			open = append(open, near, far)
			dialThrough(t, client, 30_000+i, idle)
		}
		dialThrough(t, client, 40_000, busy) // not of these ports
		if found := detect.Find(e.look(t), space); len(found) != 0 {
			t.Errorf("7 of 10 ports: %v", found)
		}
		dialThrough(t, client, 30_007, busy)
		v4, v6 := router.Addrs(server)
		outer := v6
		if addr(server).Is4() {
			outer = v4
		}
		found := detect.Find(e.look(t), space)
		want := fmt.Sprintf("source NAT %v > %v/tcp", outer, busy.Addr())
		if len(found) != 1 || found[0].Count != 8 || found[0].Limit != 10 || found[0].Severity != detect.Warning || found[0].Subject != want {
			t.Errorf("8 of 10 ports: %v, want %s", found, want)
		}
		quiet(t, e.look(t)) // of all the ports these are few
		freed(t, e, space, open)
	})
}

// freed closes connections that have taken the ports. By the command their
// entries are gone after 30 s, not after two minutes; here after one.
func freed(t *testing.T, e eyes, space detect.PortSpace, open []io.Closer) {
	t.Helper()
	found := detect.Find(e.look(t), space)
	fix := found[0].Fix[len(found[0].Fix)-1]
	if !detect.Installed(t, "sysctl") {
		return
	}
	run(t, e.host, fix)
	ends := func(c ...io.Closer) {
		for _, c := range c {
			ok(t, c.Close())
		}
	}
	ends(open[:2]...)
	await(t, "an entry in TIME_WAIT", func() bool {
		return slices.ContainsFunc(tcp(e.look(t).Flows), func(f conntrack.Flow) bool {
			return f.TCP.State == conntrack.TCPTimeWait && f.Timeout <= 30*time.Second && f.Timeout > 5*time.Second
		})
	})
	ok(t, e.host.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1"))
	ends(open[2:]...)
	await(t, "ports to be free", func() bool { return len(detect.Find(e.look(t), space)) == 0 })
	detect.Proved(t, fix)
}
