package reject

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// TestLiveSurroundings finds settings, addresses and the rest in the namespace
// that is watched, without being given its /proc.
func TestLiveSurroundings(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		must(t, server.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "4711"))
		firewall(t, server, nft.Input, refusing(nft.Drop))
		w := watchHost(t, server, Config{Wait: 1})
		flow := tcpTuple(addr(client), clientPort, addr(server), closedPort)
		sendSYN(t, client, flow)
		e := w.waitFor(flow, 1).Evidence
		if e.Settings.Value.Timeouts.TCPEstablished != 4711*time.Second || e.Usage.Result != Present || e.Kernel == "" ||
			e.Local != Found(true) || e.Hook != Found(nflog.Input) || e.Listening.IsZero() || e.At.Before(e.Listening) ||
			e.Socket.Result != Absent || e.Listener.Result != Absent || e.Entry.Result != Absent ||
			e.Elsewhere.Result != Absent || e.Control.Result != Absent {
			t.Errorf("got %+v", e)
		}
	})
}

// TestLiveUDP tells a port that is served from one that is not.
func TestLiveUDP(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		firewall(t, server, nft.Input, []nft.Rule{{Proto: nft.UDP, Log: logged("new "), Verdict: nft.Drop}})
		w := watchHost(t, server, Config{Wait: 1})
		l, err := server.ListenPacket("udp", netip.AddrPortFrom(netip.Addr{}, servicePort))
		must(t, err)
		defer l.Close()
		for port, want := range map[uint16]Result{servicePort: Present, closedPort: Absent} {
			c, err := client.Dial(within(t), "udp", netip.AddrPortFrom(addr(client), clientPort), netip.AddrPortFrom(addr(server), port), nil)
			must(t, err)
			_, err = c.Write([]byte("x"))
			must(t, err, c.Close())
			flow := tcpTuple(addr(client), clientPort, addr(server), port)
			flow.Proto = conntrack.ProtoUDP
			if e := w.waitFor(flow, 1).Evidence; e.Listener.Result != want || e.Socket.Result != Absent {
				t.Errorf("port %d: listener %+v, socket %+v", port, e.Listener, e.Socket)
			}
		}
	})
}

// TestLiveElsewhere finds the entry of the connection in another zone, whichever
// direction made it, and a control connection between the hosts.
func TestLiveElsewhere(t *testing.T) {
	t.Parallel()
	addresses(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, server := lab.Two(t)
		firewall(t, server, nft.Input, refusing(nft.Drop))
		w := watchHost(t, server, Config{Wait: 1})
		table := dialTable(t, server)
		flow := tcpTuple(addr(client), clientPort, addr(server), closedPort)
		opposite := tcpTuple(addr(client), clientPort+1, addr(server), closedPort)
		for _, f := range []conntrack.Flow{
			{Original: flow, Reply: flow.Invert(), Zone: 7}, {Original: opposite.Invert(), Reply: opposite, Zone: 8},
			{Original: tcpTuple(addr(client), 1, addr(server), 21), Reply: tcpTuple(addr(client), 1, addr(server), 21).Invert()},
		} {
			f.Timeout, f.TCP.State = time.Minute, conntrack.TCPEstablished
			must(t, table.Create(within(t), f))
		}
		for zone, f := range map[uint16]conntrack.Tuple{7: flow, 8: opposite} {
			must(t, send(client, f.Dst, slices.Values([][]byte{tcpSegment(f, packet.ACK, 1, 1)})))
			if e := w.waitFor(f, 1).Evidence; e.Entry.Result != Absent || e.Elsewhere.Value.Zone != zone || e.Control.Value.Original.DstPort != 21 {
				t.Errorf("zone %d: entry %+v, elsewhere %v, control %v", zone, e.Entry, e.Elsewhere.Value, e.Control.Value)
			}
		}
	})
}

// TestLiveHurried refuses more flows than may be looked up: the others are told
// without, and say so.
func TestLiveHurried(t *testing.T) {
	t.Parallel()
	const flows, lookups = 100, 10
	client, server := flooded(t, group)
	looked, missing := 0, 0
	ctx := within(t)
	cfg := &Config{NetNS: server.NetNS(), Groups: []uint16{group}, Lookups: lookups, Repeat: patience}
	cfg.Ready = func() {
		go func() {
			_ = send(client, server.Addr4(), syns(client.Addr4(), server.Addr4(), flows, flows, 1<<30, patience))
		}()
	}
	for v, err := range Watch(ctx, cfg) {
		must(t, err)
		hurried := slices.ContainsFunc(v.Missing, func(s string) bool { return strings.Contains(s, "Config.Lookups") })
		if e := v.Evidence; hurried != (e.Entry.Result == NotLooked) || hurried != (e.Listener.Result == NotLooked) || hurried == (v.Cause == CauseNoService && e.Socket.Result == Absent) {
			t.Errorf("hurried: %t, missing %q: %+v", hurried, v.Missing, e)
		}
		if missing++; !hurried {
			missing--
			looked++
		}
		if looked+missing == flows {
			break
		}
	}
	if looked < lookups || missing < flows/2 {
		t.Errorf("%d flows were looked up, and %d not", looked, missing)
	}
}

// TestLiveDestinationNAT has a gateway refuse what it forwards: it sees the packet
// as it is after translation, and finds the entry all the same.
func TestLiveDestinationNAT(t *testing.T) {
	t.Parallel()
	client, router, server := lab.Three(t)
	gateway, _ := router.Addrs(client)
	nat := nft.Chain{Name: "nat", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT, Rules: []nft.Rule{{
		Proto: nft.TCP, DstPort: servicePort, Verdict: nft.DNAT, To: netip.AddrPortFrom(server.Addr4(), 8080),
	}}}
	must(t, router.Rules(within(t), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{nat}}))
	w := watchHost(t, router, Config{Wait: slow})
	c, _ := connect(t, client, netip.AddrPortFrom(client.Addr4(), clientPort), listen(t, server, server.Addr4(), 8080), netip.AddrPortFrom(gateway, servicePort))
	firewall(t, router, nft.Forward, []nft.Rule{{Proto: nft.TCP, Log: logged("established "), Verdict: nft.RejectAdminProhibited}})
	_, err := c.Write([]byte("x"))
	must(t, err)
	sent, behind := tcpTuple(client.Addr4(), clientPort, gateway, servicePort), tcpTuple(client.Addr4(), clientPort, server.Addr4(), 8080)
	e := w.waitFor(behind, 1).Evidence
	if e.Entry.Result != Present || e.Entry.Value.Original != sent || e.Refusal != Logged || e.ICMP.Value.Src != gateway || e.Hook != Found(nflog.Forward) {
		t.Errorf("got %+v", e)
	}
}

func TestBudget(t *testing.T) {
	b := budget{rate: 10}
	spend := func(n int, d time.Duration) (spent int) {
		for range n {
			if b.spend(at(d)) {
				spent++
			}
		}
		return spent
	}
	for _, tt := range []struct {
		at         time.Duration
		asks, gets int
	}{{0, 20, 10}, {0, 5, 0}, {500 * time.Millisecond, 20, 5}, {-time.Hour, 5, 0}, {time.Hour, 100, 10}} {
		if got := spend(tt.asks, tt.at); got != tt.gets {
			t.Errorf("at %v: %d of %d, want %d", tt.at, got, tt.asks, tt.gets)
		}
	}
}

// What a survey left out, or is older than, it does not call absent.
func TestSurvey(t *testing.T) {
	zoned := flow(t, alive)
	zoned.Zone = 3
	ftp := flow(t, "tcp 6 9 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=1 dport=21 src=10.1.32.70 dst=10.1.41.192 sport=21 dport=1")
	s := survey{at: now, whole: true, zoned: map[flowKey]*conntrack.Flow{}, controls: map[[2]flowKey]*conntrack.Flow{}}
	s.add(&zoned)
	s.add(&ftp)
	seen := sighting{packet: header(t, same, "in SYN")}
	var f findings
	s.tell(&seen, &f, false)
	if f.elsewhere.result != Present || *f.elsewhere.value != zoned || f.control.result != Present || *f.control.value != ftp {
		t.Errorf("got %+v", f)
	}
	seen.packet.SrcPort, seen.packet.Src = 9, netip.MustParseAddr(router)
	for want, current := range map[Result]bool{NotLooked: false, Absent: true} {
		if s.tell(&seen, &f, current); f.elsewhere.result != want || f.control.result != want {
			t.Errorf("got %+v, want %v", f, want)
		}
	}
	for i := range 5 * surveyMax {
		zoned.Original.SrcPort, zoned.Original.DstPort = uint16(i), uint16(i>>16)
		zoned.Reply = zoned.Original.Invert()
		s.add(&zoned)
	}
	if s.whole || len(s.zoned) > 2*surveyMax+2 {
		t.Errorf("whole: %t, of %d", s.whole, len(s.zoned))
	}
	if s.tell(&seen, &f, true); f.elsewhere.result != NotLooked {
		t.Errorf("got %+v", f)
	}
}

// One listener is kept once for all flows that it could have had.
func TestShared(t *testing.T) {
	l := &looker{listeners: make(map[uint64]*sockdiag.Socket)}
	a, b := l.shared(found(&sockdiag.Socket{Cookie: 1})), l.shared(found(&sockdiag.Socket{Cookie: 1}))
	c := l.shared(found(&sockdiag.Socket{Cookie: 2}))
	if a.value != b.value || a.value == c.value || l.shared(absent[sockdiag.Socket]()).result != Absent {
		t.Errorf("got %p, %p, %p", a.value, b.value, c.value)
	}
}

// TestLiveRateLimited refuses so fast that the kernel holds most ICMP errors
// back, which only its counters tell.
func TestLiveRateLimited(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	firewall(t, server, nft.Input, refusing(nft.RejectAdminProhibited))
	w := watchHost(t, server, Config{Repeat: 200 * time.Millisecond, Wait: 1})
	const packets = 300
	must(t, send(client, server.Addr4(), syns(client.Addr4(), server.Addr4(), packets, 1, 1<<30, patience)))
	v := w.waitFor(conntrack.Tuple{}, 1)
	held := v.Evidence.Counters.Value.RateLimited
	t.Logf("SUPPORT: counter of ICMP errors held back: %s", yes(held > 0))
	is(t, v, "C27", CauseRateLimited)
	confidence := certain
	if held == 0 {
		confidence = likely
	}
	if v.Confidence != confidence || v.Evidence.Refusal != Counted {
		t.Errorf("got %+v", v)
	}
}

// TestLiveRules names the rules that decide some cases, by table and chain.
func TestLiveRules(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	must(t, server.Rules(within(t), nft.Table{Family: nft.INet, Name: "raw", Chains: []nft.Chain{
		{Name: "pre", Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{{Proto: nft.UDP, Verdict: nft.NoTrack}}},
		{Name: "in", Hook: nft.Input, Rules: []nft.Rule{
			{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Verdict: nft.Drop},
		}},
	}}))
	firewall(t, server, nft.Input, refusing(nft.Drop))
	w := watchHost(t, server, Config{Wait: 1})
	flow := tcpTuple(client.Addr4(), clientPort, server.Addr4(), closedPort)
	sendSYN(t, client, flow)
	rules := w.waitFor(flow, 1).Evidence.Rules
	r := rules.Value
	if rules.Result != Present || !strings.HasPrefix(r.Notrack, "inet raw pre: ") || !strings.HasSuffix(r.Notrack, " notrack") ||
		!strings.HasPrefix(r.DropReset, "inet raw in: ") || r.Zone != "" || r.Helper != "" {
		t.Errorf("got %+v", rules)
	}
}
