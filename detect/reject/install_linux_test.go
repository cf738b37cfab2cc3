package reject

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// watchInstalled is watchHost for a Watch that installs what it needs.
func watchInstalled(t *testing.T, h *lab.Host, cfg Config) *watching {
	t.Helper()
	w := &watching{t: t, host: h}
	ready := make(chan struct{})
	cfg.NetNS, cfg.Proc = h.NetNS(), h.FS()
	cfg.Ready = func() { close(ready) }
	if cfg.Install == nil {
		cfg.Install = &Install{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	var end error
	done.Go(func() {
		for v, err := range Watch(ctx, &cfg) {
			w.mu.Lock()
			if err == nil {
				w.verdicts = append(w.verdicts, v)
			} else {
				end = errors.Join(end, err)
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		if !errors.Is(end, context.Canceled) || strings.Contains(end.Error(), "\n") {
			t.Errorf("%s: Watch ended with %v", h.Name(), end)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatalf("Watch does not become ready: %v", end)
	}
	return w
}

// refuser is a way to refuse, and what it is seen by.
type installRefuser struct {
	port    uint16
	nft     nft.Verdict
	with    string // iptables, IPv4
	with6   string // ip6tables; empty is none
	icmp    [2]uint8
	icmp6   [2]uint8
	refusal Refusal
}

var installRefusers = []installRefuser{
	{1001, nft.RejectHostProhibited, "icmp-host-prohibited", "", [2]uint8{3, 10}, [2]uint8{}, Logged},
	{1002, nft.RejectNetProhibited, "icmp-net-prohibited", "", [2]uint8{3, 9}, [2]uint8{}, Logged},
	{1003, nft.RejectAdminProhibited, "icmp-admin-prohibited", "icmp6-adm-prohibited", [2]uint8{3, 13}, [2]uint8{1, 1}, Logged},
	{1004, nft.RejectPort, "icmp-port-unreachable", "icmp6-port-unreachable", [2]uint8{3, 3}, [2]uint8{1, 4}, Logged},
	{1005, nft.RejectTCPReset, "tcp-reset", "tcp-reset", [2]uint8{}, [2]uint8{}, ResetSent},
	{1006, nft.Drop, "", "", [2]uint8{}, [2]uint8{}, Logged},
}

// script runs iptables or another tool in the host.
func script(t *testing.T, h *lab.Host, text string) error {
	t.Helper()
	_, err := h.Exec(within(t), "env", "XTABLES_LOCKFILE="+t.TempDir()+"/lock", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
		"sh", "-ec", text)
	return err
}

func nftRefuse(t *testing.T, h *lab.Host) {
	t.Helper()
	var rules []nft.Rule
	for _, r := range installRefusers {
		rules = append(rules, nft.Rule{Proto: nft.TCP, DstPort: r.port, Verdict: r.nft})
	}
	must(t, h.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: rules},
	}}))
}

// iptablesRefuse refuses with one of the variants of iptables.
func iptablesRefuse(variant string) func(*testing.T, *lab.Host) {
	return func(t *testing.T, h *lab.Host) {
		t.Helper()
		var b strings.Builder
		for _, six := range []string{"", "6"} {
			for _, r := range installRefusers {
				with := r.with
				if six != "" {
					with = r.with6
				}
				target := "REJECT --reject-with " + with
				if r.nft == nft.Drop {
					target = "DROP"
				} else if with == "" {
					continue
				}
				fmt.Fprintf(&b, "ip%stables-%s -A INPUT -p tcp --dport %d -j %s\n", six, variant, r.port, target)
			}
		}
		lab.Tool(t, "iptables-"+variant)
		if err := script(t, h, b.String()); err != nil {
			t.Skipf("iptables-%s does not work here: %v", variant, err)
		}
	}
}

// TestLiveInstall refuses packets in all ways that there are, without a rule that
// logs them.
func TestLiveInstall(t *testing.T) {
	for name, refuse := range map[string]func(*testing.T, *lab.Host){
		"nftables": nftRefuse, "iptables-nft": iptablesRefuse("nft"), "iptables-legacy": iptablesRefuse("legacy"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testInstall(t, refuse, name != "iptables-legacy")
		})
	}
}

func testInstall(t *testing.T, refuse func(*testing.T, *lab.Host), traced bool) {
	client, server := lab.Two(t)
	refuse(t, server)
	w := watchInstalled(t, server, Config{})
	for _, six := range []bool{false, true} {
		from, to := client.Addr4(), server.Addr4()
		if six {
			from, to = client.Addr6(), server.Addr6()
		}
		for _, r := range installRefusers {
			if six && r.icmp6 == [2]uint8{} && r.icmp != [2]uint8{} {
				continue // IPv6 has no such code
			}
			flow := tcpTuple(from, 40000+r.port, to, r.port)
			sendSYN(t, client, flow)
			v := w.waitFor(flow, 1)
			e := &v.Evidence
			if e.Refusal != r.refusal || e.State != New || v.Count != 1 || e.Packet.Value.DstPort != r.port {
				t.Errorf("port %d: refusal %v, state %v, %v", r.port, e.Refusal, e.State, v)
			}
			want := r.icmp
			if six {
				want = r.icmp6
			}
			if got := [2]uint8{e.ICMP.Value.ICMPType, e.ICMP.Value.ICMPCode}; got != want {
				t.Errorf("port %d: ICMP %v, want %v", r.port, got, want)
			}
			if rule := e.Rule.Value; traced && (e.Rule.Result != Present || rule.Verdict != "drop" || rule.Handle == 0 ||
				!strings.Contains(rule.Text, strconv.Itoa(int(r.port)))) {
				t.Errorf("port %d: rule %+v", r.port, e.Rule)
			}
		}
	}
}

// A packet that passes is refused by nobody, even if no socket wants it.
func TestLiveInstallPasses(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	w := watchInstalled(t, server, Config{})
	must(t, server.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, DstPort: 2000, Verdict: nft.Drop}}},
	}}))
	l := listen(t, server, server.Addr4(), 80)
	connect(t, client, netip.AddrPort{}, l, netip.AddrPortFrom(server.Addr4(), 80))
	sendSYN(t, client, tcpTuple(client.Addr4(), 4000, server.Addr4(), 81)) // answered by the stack's RST
	udp, err := client.ListenPacket("udp", netip.AddrPortFrom(client.Addr4(), 4000))
	must(t, err)
	defer udp.Close()                                                                                  //nolint:errcheck // only written to
	_, err = udp.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server.Addr4(), 81))) // by its ICMP port unreachable
	must(t, err)
	last := tcpTuple(client.Addr4(), 4001, server.Addr4(), 2000)
	sendSYN(t, client, last)
	w.waitFor(last, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.verdicts) != 1 {
		t.Errorf("verdicts on packets that passed: %v", w.verdicts)
	}
}

// The kernel's reason comes without a sysctl set by hand; forwarded and own
// packets are seen too.
func TestLiveInstallElsewhere(t *testing.T) {
	t.Parallel()
	client, router, server := lab.Three(t)
	must(t, router.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "forward", Hook: nft.Forward, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.Drop}}},
		{Name: "output", Hook: nft.Output, Rules: []nft.Rule{{Proto: nft.TCP, DstPort: 2000, Verdict: nft.Drop}}},
	}}))
	w := watchInstalled(t, router, Config{Wait: time.Second})
	through := tcpTuple(client.Addr4(), 4000, server.Addr4(), 80)
	sendSYN(t, client, through)
	own := tcpTuple(router.Addr4(), 4000, client.Addr4(), 2000)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	go router.Dial(ctx, "tcp", netip.AddrPortFrom(own.Src, own.SrcPort), netip.AddrPortFrom(own.Dst, own.DstPort), nil) //nolint:errcheck // never connects
	odd := tcpTuple(client.Addr4(), 4001, server.Addr4(), 81)
	must(t, send(client, odd.Dst, slices.Values([][]byte{tcpSegment(odd, packet.SYN|packet.FIN, 1, 0)})))
	for _, tt := range []struct {
		flow  conntrack.Tuple
		state State
	}{{through, New}, {own, New}, {odd, Invalid}} {
		if v := w.waitFor(tt.flow, 1); v.Evidence.State != tt.state || v.Evidence.Rule.Result != Present {
			t.Errorf("%v: %+v", v, v.Evidence)
		} else if tt.state == Invalid && !strings.Contains(v.Evidence.Reason, "flag combination") {
			t.Errorf("%v: reason %q", v, v.Evidence.Reason)
		}
	}
}

// A connection that was let in is refused later: its packets are not logged, but
// the errors are that answer them.
func TestLiveInstallEstablished(t *testing.T) {
	t.Parallel()
	for refusal, verdict := range map[Refusal]nft.Verdict{ICMPSent: nft.RejectAdminProhibited, ResetSent: nft.RejectTCPReset} {
		client, server := lab.Two(t)
		rules := []nft.Rule{{CTState: nft.Invalid, Verdict: nft.Drop}} // which has the kernel track
		chain := func() nft.Table {
			return nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{{Name: "input", Hook: nft.Input, Rules: rules}}}
		}
		must(t, server.Rules(within(t), chain()))
		l := listen(t, server, server.Addr4(), 80)
		c, _ := connect(t, client, netip.AddrPortFrom(client.Addr4(), 4000), l, netip.AddrPortFrom(server.Addr4(), 80))
		w := watchInstalled(t, server, Config{})
		rules = append(rules, nft.Rule{Proto: nft.TCP, DstPort: 80, Verdict: verdict})
		must(t, server.Rules(within(t), chain()))
		_, err := c.Write([]byte("x"))
		must(t, err)
		v := w.waitFor(tcpTuple(client.Addr4(), 4000, server.Addr4(), 80), 1)
		is(t, v, "C22", CauseRuleOrder, likely)
		if e := &v.Evidence; e.Refusal != refusal || e.State != Established || e.Entry.Result != Present || e.Socket.Result != Present {
			t.Errorf("%v: %+v", v, e)
		}
	}
}

// Too many reasons make the kernel stop to write them, for a while.
func TestLiveInstallBudget(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	watchInstalled(t, server, Config{Install: &Install{Reasons: 2, Traces: -1}})
	logs := func() string {
		v, err := server.Sysctl("net.netfilter.nf_conntrack_log_invalid")
		must(t, err)
		return v
	}
	if got := logs(); got != "255" {
		t.Errorf("at first it is %s", got)
	}
	for n := uint16(0); logs() != "0"; n++ {
		if n == 1000 {
			t.Fatal("the kernel does not stop")
		}
		odd := tcpTuple(client.Addr4(), 4000+n, server.Addr4(), 81)
		must(t, send(client, odd.Dst, slices.Values([][]byte{tcpSegment(odd, packet.SYN|packet.FIN, 1, 0)})))
	}
}

// Packets that are not tracked: those with SYN are logged, and of others the
// trace tells, on Linux 6.16 and later.
func TestLiveInstallUntracked(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	must(t, server.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "raw", Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{{Verdict: nft.NoTrack}}},
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{DstPort: 90, Proto: nft.TCP, Verdict: nft.Drop}, {DstPort: 90, Proto: nft.UDP, Verdict: nft.Drop}}},
	}}))
	w := watchInstalled(t, server, Config{})
	flow := tcpTuple(client.Addr4(), 4000, server.Addr4(), 90)
	sendSYN(t, client, flow)
	v := w.waitFor(flow, 1)
	if v.Evidence.State != Untracked || v.Evidence.Refusal != Logged || v.Count != 1 {
		t.Errorf("%v: %+v", v, v.Evidence)
	}
	var major, minor int
	if _, err := fmt.Sscanf(v.Evidence.Kernel, "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 16 {
		return
	}
	udp, err := client.ListenPacket("udp", netip.AddrPortFrom(client.Addr4(), 4000))
	must(t, err)
	defer udp.Close() //nolint:errcheck // only written to
	_, err = udp.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server.Addr4(), 90)))
	must(t, err)
	flow.Proto = conntrack.ProtoUDP
	if v := w.waitFor(flow, 1); v.Evidence.State != Untracked || v.Evidence.Refusal != Traced || v.Evidence.Rule.Result != Present {
		t.Errorf("%v: %+v", v, v.Evidence)
	}
}
