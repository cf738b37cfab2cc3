package detect_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// mass is entries of one network, made by hand: they are TCP connections that
// are assured, or else first packets of UDP.
type mass struct {
	net     byte
	assured bool
	made    int
}

func (m *mass) flow() conntrack.Flow {
	f := conntrack.Flow{
		Original: conntrack.Tuple{
			Src: netip.AddrFrom4([4]byte{100, m.net, byte(m.made >> 15), 1}), Dst: netip.AddrFrom4([4]byte{198, 51, 100, 80}),
			SrcPort: uint16(1024 + m.made&0x7fff), DstPort: 53, Proto: conntrack.ProtoUDP,
		},
		Timeout: time.Hour,
	}
	if m.assured {
		f.Original.Proto, f.Fields, f.TCP.State = conntrack.ProtoTCP, conntrack.FieldTCP, conntrack.TCPEstablished
		f.Status = conntrack.SeenReply | conntrack.Assured
	}
	f.Reply = f.Original.Invert()
	m.made++
	return f
}

// add makes entries until there are so many in the table.
func (m *mass) add(t *testing.T, e eyes, most uint64) {
	t.Helper()
	for n := e.count(t); n < most; n++ {
		ok(t, e.ct.Create(t.Context(), m.flow()))
	}
}

func (m *mass) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, m.net, 0, 0}), 16)
}

// left is how many are in the table.
func (m *mass) left(t *testing.T, e eyes) (n uint64) {
	t.Helper()
	for _, err := range e.ct.All(t.Context(), &conntrack.Filter{Src: m.prefix()}) {
		ok(t, err)
		n++
	}
	return n
}

func (e eyes) count(t *testing.T) uint64 {
	t.Helper()
	u, err := e.ct.Usage(t.Context())
	ok(t, err)
	return u.Count
}

// counts is a Host of what counts, and of no rows.
func (e eyes) counts(t *testing.T) detect.Host {
	t.Helper()
	h := detect.Host{Now: time.Now()}
	var err error
	h.Usage, err = e.ct.Usage(t.Context())
	ok(t, err)
	h.Stats, err = e.ct.Stats(t.Context())
	ok(t, err)
	return h
}

// since is what Pressure finds of a subject since an earlier reading.
func (e eyes) since(t *testing.T, early detect.Host, subject string) detect.Finding {
	t.Helper()
	h := e.counts(t)
	h.Earlier = early.Counted()
	found, err := detect.Scan(h, nil, e.ct.All(t.Context(), nil), detect.Pressure{})
	ok(t, err)
	for _, f := range found {
		if f.Subject == subject {
			return f
		}
	}
	t.Errorf("nothing of the %s, but %v", subject, found)
	return detect.Finding{}
}

// knock tries connections, and returns how many were made.
func knock(t *testing.T, client *lab.Host, l net.Listener, n int) (made int) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		c, err := client.Dial(ctx, "tcp", netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort(), nil)
		cancel()
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			made++
		}
	}
	return made
}

// A table that is truly full: the limit is the machine's, but holds in each
// network namespace by itself. While all entries are assured new connections
// are dropped; when others are among them, those go.
func TestLabFull(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	track(t, server)
	e := open(t, server)
	most := e.counts(t).Usage.Max
	if mib := available(t); testing.Short() || raceDetector || most > 300_000 || mib < 700 {
		t.Skipf("fills a table of %d entries, with %d MiB of memory left; not in short tests or under the race detector", most, mib)
	}
	l := listen(t, server, server.Addr4(), 443)
	stay, go1, brief := &mass{net: 64, assured: true}, &mass{net: 65, assured: true}, &mass{net: 66}

	go1.add(t, e, most/4)
	early := e.counts(t)
	stay.add(t, e, most*6/10)
	if f := e.since(t, early, "conntrack table"); f.Severity != detect.Warning || !strings.Contains(f.Cause, " a second and is full in ") {
		t.Errorf("while it fills: %v", f)
	}
	stay.add(t, e, most)
	early = e.counts(t)
	if n := knock(t, client, l, 2); n > 0 {
		t.Errorf("the table is full of assured entries, and %d connections were made", n)
	}
	f := e.since(t, early, "conntrack table")
	if f.Severity != detect.Critical || f.Count != most || !strings.Contains(f.Cause, "it is full") || !strings.Contains(f.Cause, "early drop can evict the 0 (0 %)") {
		t.Errorf("full: %v", f)
	}
	if f := e.since(t, early, "conntrack counter drop"); f.Severity != detect.Critical || f.Count == 0 {
		t.Errorf("packets were dropped: %v", f)
	}

	_, err := e.ct.DeleteMatching(t.Context(), &conntrack.Filter{Src: go1.prefix()}, nil)
	ok(t, err)
	brief.add(t, e, most)
	assured := stay.left(t, e)
	early = e.counts(t)
	made := 0
	for range 20 {
		brief.add(t, e, most) // the collector has entries go, too
		made += knock(t, client, l, 1)
	}
	f = e.since(t, early, "conntrack counter early_drop")
	evicted := uint64(brief.made) - brief.left(t, e)
	t.Logf("%d connections, %d of %d entries evicted, %d counted", made, evicted, brief.made, f.Count)
	if f.Severity != detect.Critical || f.Count == 0 || evicted < f.Count || made == 0 {
		t.Errorf("early drop: %v", f)
	}
	if n := stay.left(t, e); n != assured {
		t.Errorf("%d of %d assured entries are left", n, assured)
	}
}

// available is how many MiB of memory there are.
func available(t *testing.T) (mib uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	ok(t, err)
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	_, err = fmt.Sscan(rest, &mib)
	ok(t, err)
	return mib >> 10
}
