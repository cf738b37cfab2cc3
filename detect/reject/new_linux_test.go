package reject

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const (
	servicePort = 80
	closedPort  = 81
	clientPort  = 40000
)

// TestLiveNew refuses new connections, to a service (C19) and to a port where
// none is (C20): one verdict per flow, not per packet, and later the count. The
// client is told by the ICMP error (C26).
func TestLiveNew(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited))
		firewall(t, client, nft.Input, []nft.Rule{{Proto: nft.ICMP, Log: logged("")}, {Proto: nft.ICMPv6, Log: logged("")}})
		listen(t, server, addr(server), servicePort)
		const again = 600 * time.Millisecond
		w := watchHost(t, server, Config{Repeat: again, Wait: slow})
		own := watchHost(t, client, Config{})
		for port, want := range map[uint16]struct {
			rule  string
			cause Cause
		}{servicePort: {"C19", CauseNotAllowed}, closedPort: {"C20", CauseNoService}} {
			flow := tcpTuple(addr(client), clientPort, addr(server), port)
			const packets = 20
			begun := time.Now()
			for range packets {
				sendSYN(t, client, flow)
			}
			v := w.waitFor(flow, 1)
			is(t, v, want.rule, want.cause, likely)
			e := v.Evidence
			if e.Refusal != Logged || e.State != New || e.ICMP.Value.Src != addr(server) || !e.ICMP.Value.Prohibited() ||
				e.Entry.Result != Absent || e.Settings.Result != Present || v.Count < 1 || v.Count > packets {
				t.Errorf("got %+v", v)
			}
			time.Sleep(again)
			sendSYN(t, client, flow)
			v = w.waitCount(flow, packets+1)
			is(t, v, want.rule, want.cause, likely)
			if !v.Last.After(v.First) {
				t.Errorf("packets from %v to %v", v.First, v.Last)
			}
			if n, most := len(w.on(flow)), 2+int(time.Since(begun)/again); n > most {
				t.Errorf("%d verdicts, want %d at most", n, most)
			}
			is(t, own.waitFor(flow, 1), "C26", CauseByPeer, possible)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, v := range w.verdicts { // the kernel's ICMPv6 is logged too
			if v.Flow.Proto != conntrack.ProtoTCP {
				t.Errorf("nothing refused %v", v.Flow)
			}
		}
	})
}

// TestLiveRetransmitted drops what is refused, so that an ordinary connect
// sends its SYN again.
func TestLiveRetransmitted(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		firewall(t, server, nft.Input, refusing(nft.Drop))
		w := watchHost(t, server, Config{Repeat: 100 * time.Millisecond, Wait: 50 * time.Millisecond})
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		flow := tcpTuple(addr(client), clientPort, addr(server), servicePort)
		go func() {
			c, err := client.Dial(ctx, "tcp", netip.AddrPortFrom(addr(client), clientPort), netip.AddrPortFrom(addr(server), servicePort), nil)
			if err == nil {
				_ = c.Close()
				t.Error("connected through a firewall that drops")
			}
		}()
		v := w.waitFor(flow, 2) // about 1 s later
		is(t, v, "C20", CauseNoService, likely)
		if v.Count < 2 || v.Evidence.ICMP.Result != NotLooked || v.Last.Sub(v.First) < 500*time.Millisecond {
			t.Errorf("got %+v", v)
		}
	})
}

// TestLiveOnPath has a router refuse: the client's verdict is C25. The router
// itself does not take the packet for one to its own ports.
func TestLiveOnPath(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, router, server := lab.Three(t)
		firewall(t, router, nft.Forward, refusing(nft.RejectAdminProhibited))
		firewall(t, client, nft.Input, []nft.Rule{{Proto: nft.ICMP, Log: logged("")}, {Proto: nft.ICMPv6, Log: logged("")}})
		listen(t, server, addr(server), servicePort)
		onPath, own := watchHost(t, router, Config{Wait: slow}), watchHost(t, client, Config{})
		_, err := client.Dial(within(t), "tcp", netip.AddrPortFrom(addr(client), clientPort), netip.AddrPortFrom(addr(server), servicePort), nil)
		if err == nil {
			t.Fatal("connected through a router that rejects")
		}
		flow := tcpTuple(addr(client), clientPort, addr(server), servicePort)
		v := own.waitFor(flow, 1)
		is(t, v, "C25", CauseOnPath, possible)
		if e := v.Evidence; e.Refusal != ICMPReceived || e.ICMP.Value.Src != addr(router) || len(lacking(v.Summary, []string{addr(router).String()})) > 0 {
			t.Errorf("got %+v", v)
		}
		v = onPath.waitFor(flow, 1)
		is(t, v, "C19", CauseNotAllowed, likely)
		if e := v.Evidence; e.Refusal != Logged || e.State != New || e.Socket.Result != NotLooked || e.Listener.Result != NotLooked || e.ICMP.Result != Present {
			t.Errorf("the router's: %+v", v)
		}
	})
}

// TestLiveOnlyICMP logs nothing but ICMP errors: the host that was connected to
// looks at its ports, a router does not.
func TestLiveOnlyICMP(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, router, server := lab.Three(t)
		reject := func(port uint16) []nft.Rule {
			return []nft.Rule{{Proto: nft.TCP, DstPort: port, Verdict: nft.RejectAdminProhibited}}
		}
		firewall(t, router, nft.Forward, reject(servicePort))
		firewall(t, server, nft.Input, reject(closedPort))
		onPath, w := watchHost(t, router, Config{}), watchHost(t, server, Config{})
		flow := tcpTuple(addr(client), clientPort, addr(server), servicePort)
		sendSYN(t, client, flow)
		v := onPath.waitFor(flow, 1)
		is(t, v, "C19", CauseNotAllowed, likely)
		if e := v.Evidence; e.Refusal != ICMPSent || e.Socket.Result != NotLooked || e.Listener.Result != NotLooked {
			t.Errorf("the router's: %+v", v)
		}
		flow.DstPort = closedPort
		sendSYN(t, client, flow)
		v = w.waitFor(flow, 1)
		is(t, v, "C20", CauseNoService, likely)
		if v.Evidence.Refusal != ICMPSent {
			t.Errorf("got %+v", v)
		}
	})
}

// TestLiveToItself has a host refuse its own connection to itself: one verdict,
// of this host's firewall, though the host receives the ICMP error too.
func TestLiveToItself(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		h, _ := lab.Two(t)
		firewall(t, h, nft.Input, refusing(nft.RejectAdminProhibited))
		w := watchHost(t, h, Config{})
		flow := tcpTuple(addr(h), clientPort, addr(h), servicePort)
		for range 3 {
			sendSYN(t, h, flow)
		}
		is(t, w.waitFor(flow, 1), "C20", CauseNoService, likely)
		time.Sleep(500 * time.Millisecond) // for those that must not come
		if vs := w.on(flow); len(vs) != 1 {
			t.Errorf("%d verdicts: %v", len(vs), vs)
		}
	})
}

// TestLiveOut has a host refuse a packet on its way out: neither the peer nor
// the path are to blame.
func TestLiveOut(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		firewall(t, client, nft.Output, refusing(nft.RejectAdminProhibited))
		w := watchHost(t, client, Config{})
		flow := tcpTuple(addr(client), clientPort, addr(server), servicePort)
		_, err := client.Dial(within(t), "tcp", netip.AddrPortFrom(addr(client), clientPort), netip.AddrPortFrom(addr(server), servicePort), nil)
		if err == nil {
			t.Fatal("connected through a firewall that rejects")
		}
		v := w.waitFor(flow, 1)
		is(t, v, "C37", CauseNotAllowedOut, likely)
		if v.Evidence.Refusal != Logged || v.Evidence.Socket.Result != NotLooked {
			t.Errorf("got %+v", v)
		}
	})
}
