package nft_test

import (
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
	rules "github.com/connsleuth/connsleuth/internal/nft"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a backend on a host.
func open(t testing.TB, h *lab.Host, cfg nft.Config) *nft.Backend {
	t.Helper()
	cfg.NetNS = h.NetNS()
	b, err := nft.Open(t.Context(), &cfg)
	ok(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// place is a namespace with the table. If it asks, even few bans are listed by asking
// for each.
type place struct {
	host *lab.Host
	ask  bool
}

func (p place) Backend(t *testing.T) ban.Backend {
	b := open(t, p.host, nft.Config{})
	if p.ask {
		nft.Ask(b)
	}
	return b
}

func (p place) Small(t *testing.T, n int) ban.Backend {
	return open(t, p.host, nft.Config{Table: "small", Size: uint32(n)})
}

// Wipe is "nft flush set" for all sets.
func (p place) Wipe(t *testing.T) {
	t.Helper()
	b := open(t, p.host, nft.Config{})
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		ok(t, b.Unban(t.Context(), e.Prefix))
	}
}

func (p place) Remove(t *testing.T) {
	t.Helper()
	c, err := rules.Dial(p.host.NetNS())
	ok(t, err)
	defer c.Close() //nolint:errcheck // nothing under way
	ok(t, c.Delete(t.Context(), rules.INet, "connsleuth"))
}

func TestSuite(t *testing.T)      { testSuite(t, false) }
func TestSuiteAsked(t *testing.T) { testSuite(t, true) }

func testSuite(t *testing.T, ask bool) {
	t.Helper()
	bantest.Run(t, bantest.Suite{
		Open:       func(t *testing.T) bantest.Place { return place{lab.New(t).MustHost(t, "host"), ask} },
		Resolution: 50 * time.Millisecond,
		Many:       20_000,
	})
}
