package detect

import (
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestPressureLab fills a real table a little: Pressure is quiet, fires where
// that is held for too much, and is quiet again when the entries are deleted.
func TestPressureLab(t *testing.T) {
	h := lab.New(t).MustHost(t, "host")
	c, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	const entries = 2000
	for i := range entries {
		tuple := conntrack.Tuple{Proto: conntrack.ProtoUDP, SrcPort: uint16(1024 + i), DstPort: 53,
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}
		if err := c.Create(t.Context(), conntrack.Flow{Original: tuple, Reply: tuple.Invert(), Timeout: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(d Pressure) []Finding {
		t.Helper()
		u, err := c.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found, err := Scan(Host{Now: time.Now(), Usage: u}, nil, c.All(t.Context(), nil), d)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	u, err := c.Usage(t.Context())
	if err != nil || u.Count != entries {
		t.Fatalf("%v, %v", u, err)
	}
	share, _ := u.Share()
	if found := look(Pressure{}); share < 0.8 && len(found) > 0 {
		t.Errorf("%v", found)
	}
	tight := Pressure{Full: share * 0.9}
	found := look(tight)
	if len(found) != 1 || found[0].Count != entries || found[0].Limit != u.Max || !mentions(found[0].Cause, "udp/53 100 %", "2000 (100 %) that are not assured") {
		t.Errorf("%+v", found)
	}
	if _, err := c.DeleteMatching(t.Context(), &conntrack.Filter{Proto: conntrack.ProtoUDP}, nil); err != nil {
		t.Fatal(err)
	}
	if found := look(tight); len(found) > 0 {
		t.Errorf("after the remedy: %v", found)
	}
}
