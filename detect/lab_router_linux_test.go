package detect_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// all are the detectors that need to know what is the host's own.
var all = []detect.Detector{detect.Ghosts{}, detect.LostFlows{}, detect.PortReuse{}, detect.Pressure{}, detect.PortSpace{}}

// track has a host track connections, and refuse none.
func track(t *testing.T, h *lab.Host) {
	t.Helper()
	ok(t, h.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.Established, Verdict: nft.Accept}}},
	}}))
}

// masquerade has a router translate sources towards the server.
func masquerade(t *testing.T, router *lab.Host) {
	t.Helper()
	ok(t, router.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{
		{Name: "post", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
			{OutIface: "server", Verdict: nft.Masquerade},
		}},
	}}))
}

// eyes read the tables of a lab host.
type eyes struct {
	host *lab.Host
	ct   *conntrack.Conn
	diag *sockdiag.Conn
}

func open(t *testing.T, h *lab.Host) eyes {
	t.Helper()
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	ok(t, err)
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
	ok(t, err)
	t.Cleanup(func() {
		for _, c := range []io.Closer{ct, diag} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return eyes{h, ct, diag}
}

// look reads all that the detectors want.
func (e eyes) look(t *testing.T, addrs ...netip.Addr) detect.Host {
	t.Helper()
	sockets, err := e.diag.Snapshot(t.Context(), sockdiag.Query{Info: true})
	ok(t, err)
	flows, err := e.ct.Snapshot(t.Context(), nil)
	ok(t, err)
	set, err := conntrack.ReadSettings(e.host.FS())
	ok(t, err)
	usage, err := e.ct.Usage(t.Context())
	ok(t, err)
	stats, err := e.ct.Stats(t.Context())
	ok(t, err)
	return detect.Host{Now: time.Now(), Flows: flows.Flows, Sockets: sockets.Sockets, Settings: set, Usage: usage, Stats: stats, Addrs: addrs}
}

// forget deletes the only entry of TCP.
func (e eyes) forget(t *testing.T) {
	t.Helper()
	_, err := e.ct.DeleteMatching(t.Context(), &conntrack.Filter{Proto: conntrack.ProtoTCP}, nil)
	ok(t, err)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await asks until the answer is yes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// dialThrough connects two hosts, from a port of the client's choice if it is
// not zero, and returns both ends.
func dialThrough(t *testing.T, from *lab.Host, port uint16, l net.Listener) (near, far net.Conn) {
	t.Helper()
	remote := l.Addr().(*net.TCPAddr).AddrPort()
	near, err := from.Dial(t.Context(), "tcp", netip.AddrPortFrom(netip.Addr{}, port), remote, &lab.DialOptions{ReuseAddr: true})
	ok(t, err)
	far, err = l.Accept()
	ok(t, err)
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

func listen(t *testing.T, h *lab.Host, addr netip.Addr, port uint16) net.Listener {
	t.Helper()
	l, err := h.Listen("tcp", netip.AddrPortFrom(addr, port))
	ok(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// families runs a test with the host's address of each.
func families(t *testing.T, test func(t *testing.T, addr func(*lab.Host) netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { test(t, (*lab.Host).Addr4) })
	t.Run("IPv6", func(t *testing.T) { test(t, (*lab.Host).Addr6) })
}

// A router translates a connection, forgets it, and picks it up again when the
// client sends what the server does not answer: what would be a ghost on an
// endpoint. On the router nothing is found, on either end nothing but what is
// so: the client has forgotten too.
func TestLabRouter(t *testing.T) {
	families(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		client, router, server := lab.Three(t)
		masquerade(t, router)
		track(t, client)
		near, far := dialThrough(t, client, 0, listen(t, server, addr(server), 443))
		_, err := io.WriteString(near, "hello")
		ok(t, err)
		_, err = io.ReadFull(far, make([]byte, 5))
		ok(t, err)

		ends, middle := open(t, client), open(t, router)
		quiet(t, ends.look(t, client.Addr4(), client.Addr6()))
		near4, near6 := router.Addrs(client)
		far4, far6 := router.Addrs(server)
		own := []netip.Addr{near4, near6, far4, far6}
		translated := middle.look(t, own...)
		quiet(t, translated)
		if f := tcp(translated.Flows); len(f) != 1 || !f[0].Assured() {
			t.Errorf("the router's table: %v", translated.Flows)
		}

		ok(t, server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "deaf", Chains: []nft.Chain{
			{Name: "in", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.Drop}}},
		}}))
		middle.forget(t)
		_, err = io.WriteString(near, "anybody there?")
		ok(t, err)
		var h detect.Host
		await(t, "the router to pick the connection up", func() bool {
			h = middle.look(t, own...)
			f := tcp(h.Flows)
			return len(f) == 1 && f[0].Unreplied() && f[0].TCP.State == conntrack.TCPEstablished
		})
		if f := tcp(h.Flows)[0]; !f.Translated() {
			t.Errorf("not translated: %v", f)
		}
		quiet(t, h)
		// Were the router's addresses those of an end, it would be found.
		if found := detect.Find(withAddr(h, addr(client)), detect.Ghosts{}); len(found) != 1 {
			t.Errorf("with the client's address: %v", found)
		}

		quiet(t, ends.look(t, client.Addr4(), client.Addr6()))
		ends.forget(t)
		lost := ends.look(t, client.Addr4(), client.Addr6())
		found := detect.Find(lost, all...)
		if len(tcp(lost.Flows)) == 0 && (len(found) != 1 || found[0].Detector != "LostFlows") {
			t.Errorf("the client has forgotten: %v", found)
		}
	})
}

func withAddr(h detect.Host, a netip.Addr) detect.Host {
	h.Addrs = []netip.Addr{a}
	return h
}

func quiet(t *testing.T, h detect.Host) {
	t.Helper()
	for _, f := range detect.Find(h, all...) {
		t.Errorf("nothing is wrong, but: %v", f)
	}
}

func tcp(flows []conntrack.Flow) []conntrack.Flow {
	var found []conntrack.Flow
	for _, f := range flows {
		if f.Original.Proto == conntrack.ProtoTCP {
			found = append(found, f)
		}
	}
	return found
}
