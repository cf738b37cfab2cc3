package ban_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestGuardHost: the addresses and gateways of a host are protected as they are
// at the moment of the ban.
func TestGuardHost(t *testing.T) {
	n := lab.New(t)
	host, gateway, other := n.MustHost(t, "host"), n.MustHost(t, "gateway"), n.MustHost(t, "other")
	if err := n.Link(host, gateway, lab.Near4, lab.Near6); err != nil {
		t.Fatal(err)
	}
	memory := new(ban.Memory)
	b := ban.Guard{System: ban.SystemOf(host.FS(), fstest.MapFS{}, "")}.Protect(memory)
	own4, own6 := host.Addrs(gateway)
	via4, via6 := gateway.Addrs(host)
	try := func(a netip.Addr, why string) {
		t.Helper()
		err := b.Ban(t.Context(), ban.Entry{Prefix: ban.Host(a), Until: ban.Forever})
		switch {
		case why == "" && err != nil:
			t.Errorf("%v: %v; want it banned", a, err)
		case why != "" && (!errors.Is(err, ban.ErrGuarded) || !strings.Contains(err.Error(), why)):
			t.Errorf("%v: %v; want %q", a, err, why)
		}
		if why == "" {
			if err := b.Unban(t.Context(), ban.Host(a)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, a := range []netip.Addr{own4, own6} {
		try(a, "own address")
	}
	for _, a := range []netip.Addr{via4, via6} {
		try(a, "") // a neighbour, and not yet the gateway
	}
	if err := n.Route(host, gateway); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{via4, via6} {
		try(a, "gateway, by gateway") // the interface is named after its neighbour
	}
	later4, later6 := lab.Far4.Addr().Next(), lab.Far6.Addr().Next()
	for _, a := range []netip.Addr{later4, later6} {
		try(a, "")
	}
	if err := n.Link(host, other, lab.Far4, lab.Far6); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{later4, later6} {
		try(a, "own address")
	}
	for e := range memory.List(t.Context()) {
		t.Errorf("%v is banned", e)
	}
}
