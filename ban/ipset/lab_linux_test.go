package ipset_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHost(t *testing.T) *lab.Host {
	t.Helper()
	return lab.New(t).MustHost(t, "host")
}

// open opens the sets of a host, and skips the test where the kernel has none.
func open(t *testing.T, h *lab.Host, cfg ipset.Config) *ipset.Sets {
	t.Helper()
	cfg.NetNS = h.NetNS()
	s, err := ipset.Open(t.Context(), &cfg)
	if errors.Is(err, errors.ErrUnsupported) && os.Getenv("CONNSLEUTH_LAB") != "require" {
		t.Skip(err)
	}
	ok(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// place is the sets of a host.
type place struct {
	host *lab.Host
	cfg  ipset.Config
}

func (p *place) Backend(t *testing.T) ban.Backend { return open(t, p.host, p.cfg) }

func (p *place) Small(t *testing.T, n int) ban.Backend {
	return open(t, newHost(t), ipset.Config{MaxElem: uint32(n)})
}

func (p *place) Remove(t *testing.T) {
	t.Helper()
	ok(t, open(t, p.host, p.cfg).Purge(t.Context()))
}

func (p *place) Wipe(t *testing.T) {
	t.Helper()
	const cmdFlush, attrProtocol = 4, 1 // without IPSET_ATTR_SETNAME: of all sets
	c, err := nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: p.host.NetNS()})
	ok(t, err)
	defer c.Close() //nolint:errcheck // nothing under way
	b := nfnl.NewNetfilter(6, cmdFlush, 0, 0)
	b.U8(attrProtocol, 6)
	ok(t, c.Do(t.Context(), b.Message(), nil))
}

func TestSuite(t *testing.T) {
	for name, cfg := range map[string]ipset.Config{
		"all": {MaxElem: 1 << 17},
		// Hosts among prefixes, hosts of 64 bits, and what else there is.
		"other": {Kinds: ipset.Nets4 | ipset.Hosts6 | ipset.Nets6, Counters: true, Bits6: 64, Timeout: 300 * time.Second, Name: "other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite := bantest.Suite{
				Open:       func(t *testing.T) bantest.Place { return &place{newHost(t), cfg} },
				Resolution: 2 * time.Second, // one of the kernel's, and what calls take
				Longest:    2147483 * time.Second,
				Many:       2000,
			}
			if cfg.MaxElem > 20_000 {
				suite.Many = 20_000
			}
			bantest.Run(t, suite)
		})
	}
}

func list(t *testing.T, b ban.Backend) map[string]ban.Entry {
	t.Helper()
	got := make(map[string]ban.Entry)
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		got[e.Prefix.String()] = e
	}
	return got
}

func run(t *testing.T, h *lab.Host, line string) string {
	t.Helper()
	args := strings.Fields(line)
	out, err := h.Exec(t.Context(), lab.Tool(t, args[0]), args[1:]...)
	ok(t, err)
	return string(out)
}
