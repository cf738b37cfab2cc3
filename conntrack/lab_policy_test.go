package conntrack

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// policyTable is a table without policies, in a kernel that can have some.
func policyTable(t *testing.T) *Conn {
	t.Helper()
	c, _ := emptyTable(t)
	skipWithoutPolicies(t, c)
	return c
}

func skipWithoutPolicies(t *testing.T, c *Conn) {
	t.Helper()
	supported := true
	for p, err := range c.TimeoutPolicies(within(t)) {
		if supported = !errors.Is(err, errors.ErrUnsupported); supported {
			t.Errorf("a policy in a fresh namespace: %v, %v", p, err)
		}
	}
	t.Logf("SUPPORT: timeout policies: %s", yesNo(supported))
	if !supported {
		t.Skip("no nfnetlink_cttimeout in this kernel")
	}
}

// policies collects those there are by name.
func policies(t *testing.T, c *Conn) map[string]TimeoutPolicy {
	t.Helper()
	m := make(map[string]TimeoutPolicy)
	for p, err := range c.TimeoutPolicies(within(t)) {
		must(t, err)
		m[p.Name] = p
	}
	return m
}

// TestTimeoutPolicies makes a policy of each protocol with a timeout of its
// own for each state.
func TestTimeoutPolicies(t *testing.T) {
	c := policyTable(t)
	want := make(map[string]TimeoutPolicy)
	for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoICMP, ProtoICMPv6, ProtoGRE, ProtoSCTP, ProtoGeneric} {
		p := TimeoutPolicy{Name: "of-" + proto.String(), Family: proto.family(), Proto: proto, Timeouts: distinct().Of(proto)}
		err := c.CreateTimeoutPolicy(within(t), p)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Logf("protocol %v: %v", proto, err)
			continue
		}
		must(t, err)
		p.Use = 1
		want[p.Name] = p
		if got, err := c.TimeoutPolicy(within(t), p.Name); got != p || err != nil {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, p)
		}
	}
	got := policies(t, c)
	for name, p := range want {
		if got[name] != p {
			t.Errorf("got  %+v\nwant %+v", got[name], p)
		}
	}
	if len(got) != len(want) || len(want) < 5 {
		t.Errorf("%d policies, want %d", len(got), len(want))
	}
}

// distinct gives each timeout a value of its own.
func distinct() Timeouts {
	var t Timeouts
	n := time.Duration(0)
	for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoICMP, ProtoICMPv6, ProtoGRE, ProtoSCTP, ProtoGeneric} {
		for _, at := range timeoutsOf(proto) {
			n++
			*at(&t) = 100*time.Second + n*time.Second
		}
	}
	return t
}

func TestTimeoutPolicyChanges(t *testing.T) {
	c := policyTable(t)
	defaults, err := c.DefaultTimeouts(within(t))
	must(t, err)
	p := TimeoutPolicy{Name: "keep", Family: FamilyIPv4, Proto: ProtoUDP, Timeouts: Timeouts{UDP: 7 * time.Second}}
	other := p
	other.Name = "other"
	must(t, c.CreateTimeoutPolicy(within(t), p), c.CreateTimeoutPolicy(within(t), other))
	if err := c.CreateTimeoutPolicy(within(t), p); !errors.Is(err, fs.ErrExist) || !isOp(err, "create timeout policy") {
		t.Errorf("created again: %v", err)
	}
	want := p
	want.Timeouts.UDPStream, want.Use = defaults.UDPStream, 1
	if got := policies(t, c)["keep"]; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	p.Timeouts = Timeouts{UDPStream: 9 * time.Second}
	must(t, c.ReplaceTimeoutPolicy(within(t), p))
	want.Timeouts = Timeouts{UDP: defaults.UDP, UDPStream: 9 * time.Second}
	if got := policies(t, c)["keep"]; got != want {
		t.Errorf("replaced: got  %+v\nwant %+v", got, want)
	}
	p.Family = FamilyIPv6
	if err := c.ReplaceTimeoutPolicy(within(t), p); !errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of another family: %v", err)
	}
	must(t, c.DeleteTimeoutPolicy(within(t), "keep"))
	if err := c.DeleteTimeoutPolicy(within(t), "keep"); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "delete timeout policy") {
		t.Errorf("deleted again: %v", err)
	}
	if _, err := c.TimeoutPolicy(within(t), "keep"); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "get timeout policy") {
		t.Errorf("after its deletion: %v", err)
	}
	if got := policies(t, c); len(got) != 1 || got["other"].Name != "other" {
		t.Errorf("left: %v", got)
	}
}

// TestDefaultTimeouts compares with the sysctls, and sees a change of one.
func TestDefaultTimeouts(t *testing.T) {
	c, h := emptyTable(t)
	skipWithoutPolicies(t, c)
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "77"))
	got, err := c.DefaultTimeouts(within(t))
	must(t, err)
	s, err := ReadSettings(h.FS())
	must(t, err)
	if got.UDPStream != 77*time.Second || got.TCPSynSent2 == 0 {
		t.Errorf("got %+v", got)
	}
	s.Timeouts.TCPSynSent2 = got.TCPSynSent2 // no sysctl
	for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoICMP, ProtoICMPv6, ProtoGRE, ProtoSCTP, ProtoGeneric} {
		if of := got.Of(proto); of != s.Timeouts.Of(proto) && of != (Timeouts{}) {
			t.Errorf("%v: got  %+v\nwant %+v", proto, of, s.Timeouts.Of(proto))
		}
	}
}

// TestTimeoutPolicyProtects has idle connections meet a timeout that is too
// short: of two services, the one that a policy protects keeps its entry.
func TestTimeoutPolicyProtects(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	skipWithoutPolicies(t, c)
	const portPlain = 83
	plainEnd, err := s.server.Listen("tcp4", netip.AddrPortFrom(netip.Addr{}, portPlain))
	must(t, err)
	t.Cleanup(func() { must(t, plainEnd.Close()) })
	keep := TimeoutPolicy{Name: "keep", Family: FamilyIPv4, Proto: ProtoTCP, Timeouts: Timeouts{TCPEstablished: time.Hour}}
	must(t, c.CreateTimeoutPolicy(within(t), keep))
	err = s.client.Rules(within(t), protecting(portOpen, "keep"))
	t.Logf("SUPPORT: timeout policy by rule: %s", yesNo(err == nil))
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err, s.client.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "2"))

	protected, answering := s.connect(s.server.Addr4(), portOpen)
	s.talk(protected, answering)
	s.listeners[true] = plainEnd
	s.talk(s.connect(s.server.Addr4(), portPlain))
	entries := timeLeftByPort(t, c)
	for end := time.Now().Add(patience); len(entries) > 1 && time.Now().Before(end); entries = timeLeftByPort(t, c) {
		time.Sleep(50 * time.Millisecond)
	}
	if _, there := entries[portPlain]; there || entries[portOpen] < 50*time.Minute {
		t.Errorf("time left by port: %v", entries)
	}

	got, err := c.TimeoutPolicy(within(t), "keep")
	t.Logf("SUPPORT: timeout policy counts its connections: %s", yesNo(got.Use > 2))
	if err != nil || got.Use < 2 {
		t.Errorf("got %+v, %v, want the rule counted", got, err)
	}
	if err := c.DeleteTimeoutPolicy(within(t), "keep"); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "policy keep") {
		t.Errorf("deleted in use: %v", err)
	}
	keep.Timeouts.TCPEstablished = 3 * time.Hour
	must(t, c.ReplaceTimeoutPolicy(within(t), keep))
	s.talk(protected, answering)
	if entries = timeLeftByPort(t, c); entries[portOpen] < 2*time.Hour {
		t.Errorf("after the policy changed: %v", entries)
	}
}

// timeLeftByPort looks at the TCP entries.
func timeLeftByPort(t *testing.T, c *Conn) map[uint16]time.Duration {
	t.Helper()
	ports := make(map[uint16]time.Duration)
	for f, err := range c.All(within(t), &Filter{Proto: ProtoTCP}) {
		must(t, err)
		ports[f.Original.DstPort] = f.Timeout
	}
	return ports
}

// protecting is a table that assigns a policy to connections to a port. With
// iptables: iptables -t raw -A OUTPUT -p tcp --dport PORT -j CT --timeout NAME
func protecting(port uint16, policy string) nft.Table {
	return nft.Table{Family: nft.IPv4, Name: "raw", Chains: []nft.Chain{{
		Name: "OUTPUT", Hook: nft.Output, Priority: nft.PriorityRaw,
		Rules: []nft.Rule{{Proto: nft.TCP, DstPort: port, TimeoutPolicy: policy}},
	}}}
}
