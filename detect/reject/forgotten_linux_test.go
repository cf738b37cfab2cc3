package reject

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func dialTable(t *testing.T, h *lab.Host) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// reasons has the kernel write why packets are INVALID.
func reasons(t *testing.T, h *lab.Host) {
	t.Helper()
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_log_invalid", "255"),
		h.SetSysctl("net.netfilter.nf_log.2", "nfnetlink_log"), h.SetSysctl("net.netfilter.nf_log.10", "nfnetlink_log"))
}

// redirect sends what comes for servicePort to another port of the host.
func redirect(to uint16) nft.Chain {
	return nft.Chain{Name: "nat", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT, Rules: []nft.Rule{{
		Proto: nft.TCP, DstPort: servicePort, Verdict: nft.Redirect, To: netip.AddrPortFrom(netip.Addr{}, to),
	}}}
}

// TestLiveDeleted deletes the entry of a live connection: the peer's next
// packet is refused (C02), which the peer sees as C28. The same where the
// service's port is another than the one that was connected to.
func TestLiveDeleted(t *testing.T) {
	t.Parallel()
	for name, port := range map[string]uint16{"direct": servicePort, "redirected": 8080} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) { testDeleted(t, addr, port) })
		})
	}
}

func testDeleted(t *testing.T, addr func(*lab.Host) netip.Addr, port uint16) {
	client, server := lab.Two(t)
	var nat []nft.Chain
	if port != servicePort {
		nat = append(nat, redirect(port))
	}
	firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited, port), nat...)
	firewall(t, client, nft.Input, []nft.Rule{{Proto: nft.ICMP, Log: logged("")}, {Proto: nft.ICMPv6, Log: logged("")}})
	w, own := watchHost(t, server, Config{Wait: slow}), watchHost(t, client, Config{Wait: slow})
	to := netip.AddrPortFrom(addr(server), servicePort)
	c, s := connect(t, client, netip.AddrPortFrom(addr(client), clientPort), listen(t, server, addr(server), port), to)
	_, err := io.WriteString(s, "hello")
	must(t, err)
	_, err = io.ReadFull(c, make([]byte, 5)) // nothing is under way any more
	must(t, err)

	sent := tcpTuple(addr(client), clientPort, addr(server), servicePort)
	table := dialTable(t, server)
	entry, err := table.Get(within(t), sent, 0)
	must(t, err, table.Delete(within(t), entry))
	_, err = io.WriteString(c, "more")
	must(t, err)

	refused := sent
	refused.DstPort = port
	v := w.waitFor(refused, 1)
	end := v.Evidence.Ended
	told := end.Result == Present && end.Value.Event.Flow.Has(conntrack.FieldTCP|conntrack.FieldTimeout)
	t.Logf("SUPPORT: destroy event tells expiry: %s", yes(told))
	if e := v.Evidence; e.State != New || e.Entry.Result != Absent || e.Socket.Value.State != sockdiag.Established || e.Owner.Result != Present {
		t.Errorf("got %+v", e)
	}
	is(t, own.waitFor(sent, 1), "C28", CausePeerForgot, likely)
	if end.Result != Present || end.Value.Event.Flow.Original != sent {
		t.Errorf("the end of the entry: %+v", end)
	}
	if !told {
		is(t, v, "C01", CauseEntryExpired, possible)
		return
	}
	is(t, v, "C02", CauseEntryDeleted, certain)
	left := fmt.Sprintf("with %ds left", int64(end.Value.Event.Flow.Timeout/time.Second))
	if lack := lacking(v.Summary, []string{left}); len(lack) > 0 || end.Value.Event.Flow.Timeout < time.Minute {
		t.Errorf("%q not in %s", lack, v.Summary)
	}
}

// TestLiveForgottenFIN has the peer of a forgotten connection close it: a FIN
// is never picked up, and is INVALID with a reason of its own.
func TestLiveForgottenFIN(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		must(t, server.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "1"))
		reasons(t, server)
		firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited, servicePort))
		w := watchHost(t, server, Config{Reasons: true, Wait: slow})
		to := netip.AddrPortFrom(addr(server), servicePort)
		c, _ := connect(t, client, netip.AddrPortFrom(addr(client), clientPort), listen(t, server, addr(server), servicePort), to)
		time.Sleep(2500 * time.Millisecond) // longer than the tracker remembers, which counts whole seconds
		must(t, c.Close())
		v := w.waitFor(tcpTuple(addr(client), clientPort, addr(server), servicePort), 1)
		reason := strings.Contains(v.Evidence.Reason, "invalid new")
		t.Logf("SUPPORT: kernel reason for a FIN of no known connection: %s", yes(reason))
		if v.Evidence.State != Invalid || v.Evidence.Packet.Value.Flags.String() != "FIN|ACK" {
			t.Errorf("got %+v", v.Evidence)
		}
		confidence := certain
		if !v.Evidence.expired() {
			confidence = likely // the socket was idle for long enough
		}
		is(t, v, "C01", CauseEntryExpired, confidence)
		if lack := lacking(v.Summary, []string{"nf_conntrack_tcp_timeout_established = 1"}); len(lack) > 0 {
			t.Errorf("%q not in %s", lack, v.Summary)
		}
	})
}

// TestLiveGhost puts a ghost into the table. Without the kernel's reason the
// verdict is likely, with it certain; without the ghost, the port can be used.
func TestLiveGhost(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]bool{"with reasons": true, "without reasons": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) { testGhost(t, addr, with) })
		})
	}
}

func testGhost(t *testing.T, addr func(*lab.Host) netip.Addr, withReasons bool) {
	client, server := lab.Two(t)
	firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited, servicePort))
	if withReasons {
		reasons(t, server)
	}
	w := watchHost(t, server, Config{Reasons: withReasons, Wait: slow})
	l := listen(t, server, addr(server), servicePort)
	flow := tcpTuple(addr(client), clientPort, addr(server), servicePort)
	table := dialTable(t, server)
	must(t, table.Create(within(t), conntrack.Flow{
		Original: flow.Invert(), Reply: flow, Timeout: 299 * time.Second, TCP: conntrack.TCPInfo{State: conntrack.TCPEstablished},
	}))
	from, to := netip.AddrPortFrom(addr(client), clientPort), netip.AddrPortFrom(addr(server), servicePort)
	if c, err := client.Dial(within(t), "tcp", from, to, nil); err == nil {
		_ = c.Close()
		t.Fatal("connected in spite of a ghost")
	}
	v := w.waitFor(flow, 1)
	confidence := likely
	if withReasons {
		t.Logf("SUPPORT: kernel reason for INVALID packets: %s", yes(v.Evidence.Reason != ""))
	}
	if v.Evidence.Reason != "" {
		confidence = certain
	}
	is(t, v, "C05", CauseGhost, confidence)
	if e := v.Evidence; e.State != Invalid || e.Entry.Value.Reply != flow || e.Listener.Result != Present || !withReasons && e.Reason != "" {
		t.Errorf("got %+v", e)
	}
	must(t, table.Delete(within(t), v.Evidence.Entry.Value))
	var c net.Conn
	c, _ = connect(t, client, from, l, to)
	must(t, c.Close())
}
