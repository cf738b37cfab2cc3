package lab

import (
	"errors"
	"net/netip"
	"os"
)

// TB is what New needs of a *testing.T, *testing.B or *testing.F.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// require is the environment variable that, when it is "require", makes tests
// fail where they cannot have a lab, so that skips cannot hide them for ever;
// when it is "skip", tests that need a lab are skipped.
const require = "CONNSLEUTH_LAB"

// disable makes Open answer err.
func disable(err error) {
	var ok bool
	if unavailable, ok = errors.AsType[*Forbidden](err); !ok {
		unavailable = &Forbidden{Tried: "enter the lab", What: "an unexpected error", How: "see the error", Err: err}
	}
}

// New opens a network that is closed when the test ends. Where namespaces are
// forbidden it skips the test, or fails it when the environment has
// CONNSLEUTH_LAB=require.
func New(tb TB) *Network {
	tb.Helper()
	n, err := Open()
	_, no := errors.AsType[*Forbidden](err)
	switch {
	case no && os.Getenv(require) != "require":
		tb.Skipf("%v", err)
	case err != nil:
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Logf("close the lab: %v", err)
		}
	})
	return n
}

// MustHost is Host for tests.
func (n *Network) MustHost(tb TB, name string) *Host {
	tb.Helper()
	h, err := n.Host(name)
	must(tb, err)
	return h
}

// Prefixes of the networks that Two and Three make: documentation prefixes
// (RFC 5737, RFC 3849).
var (
	Near4 = netip.MustParsePrefix("192.0.2.0/24")
	Near6 = netip.MustParsePrefix("2001:db8:1::/64")
	Far4  = netip.MustParsePrefix("198.51.100.0/24")
	Far6  = netip.MustParsePrefix("2001:db8:2::/64")
)

// Two makes a client and a server, linked: 192.0.2.1 and 192.0.2.2,
// 2001:db8:1::1 and 2001:db8:1::2.
func Two(tb TB) (client, server *Host) {
	tb.Helper()
	n := New(tb)
	client, server = n.MustHost(tb, "client"), n.MustHost(tb, "server")
	must(tb, n.Link(client, server, Near4, Near6))
	return client, server
}

// Three makes a client and a server with a router between them: client
// 192.0.2.1, router 192.0.2.2 and 198.51.100.1, server 198.51.100.2, and so on
// in 2001:db8:1::/64 and 2001:db8:2::/64.
func Three(tb TB) (client, router, server *Host) {
	tb.Helper()
	n := New(tb)
	client, router, server = n.MustHost(tb, "client"), n.MustHost(tb, "router"), n.MustHost(tb, "server")
	must(tb, n.Link(client, router, Near4, Near6))
	must(tb, n.Link(router, server, Far4, Far6))
	must(tb, n.Router(router, client, server))
	return client, router, server
}

func must(tb TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%v", err)
	}
}

// Tool returns the path of a reference tool such as conntrack(8), and skips
// the test where it is not installed.
func Tool(tb TB, name string) string {
	tb.Helper()
	path, err := lookPath(name)
	if err != nil {
		tb.Skipf("reference tool: %v", err)
	}
	return path
}
