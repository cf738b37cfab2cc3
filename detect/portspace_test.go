package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// space has ten ports.
var space = PortSpace{Ports: conntrack.PortRange{First: 5000, Last: 5009}}

// translated is a forwarded connection that leaves the host from a port, to a
// service's port.
func translated(t *testing.T, family func(string) string, proto string, port, service int) conntrack.Flow {
	t.Helper()
	state := map[string]string{"tcp": "tcp 6 99 ESTABLISHED", "udp": "udp 17 99"}[proto]
	return flow(t, family(fmt.Sprintf("%s src=10.1.99.5 dst=10.1.41.192 sport=%d dport=%d src=10.1.41.192 dst=10.1.32.70 sport=%d dport=%d [ASSURED] use=1",
		state, port+1000, service, service, port)))
}

func TestPortSpace(t *testing.T) {
	for _, tt := range []struct {
		name       string
		tcp        int // connections to port 443
		change     func(f *conntrack.Flow, i int)
		severity   Severity // 0: nothing is found
		wantPrefix string
	}{
		{"few", 7, nil, 0, ""},
		{"many", 8, nil, Warning, "8 of the 10 ports 5000-5009"},
		{"all", 10, nil, Critical, "10 of the 10 ports 5000-5009"},
		{"two services", 10, func(f *conntrack.Flow, i int) { f.Original.DstPort += uint16(i % 2); f.Reply.SrcPort += uint16(i % 2) }, 0, ""},
		{"two destinations", 10, func(f *conntrack.Flow, i int) {
			if i%2 == 0 {
				f.Original.Dst = f.Original.Dst.Next()
				f.Reply.Src = f.Original.Dst
			}
		}, 0, ""},
		{"two addresses", 10, func(f *conntrack.Flow, i int) {
			if i%2 == 0 {
				f.Reply.Dst = f.Reply.Dst.Next()
			}
		}, 0, ""},
		{"two zones", 10, func(f *conntrack.Flow, i int) { f.Zone = uint16(i % 2) }, 0, ""},
		{"not translated", 10, func(f *conntrack.Flow, _ int) { f.Original = f.Reply.Invert() }, 0, ""},
		{"other ports", 10, func(f *conntrack.Flow, _ int) { f.Reply.DstPort += 10 }, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, family func(string) string) {
				h := Host{Now: now}
				for i := range tt.tcp {
					f := translated(t, family, "tcp", 5000+i, 443)
					if tt.change != nil {
						tt.change(&f, i)
					}
					h.Flows = append(h.Flows, f)
				}
				for i := range 7 { // of another protocol, and as many
					h.Flows = append(h.Flows, translated(t, family, "udp", 5000+i, 443))
				}
				found := find(t, space, h)
				if tt.severity == 0 {
					if len(found) != 0 {
						t.Errorf("got %v", found)
					}
					return
				}
				want := fmt.Sprintf("source NAT %s > %v/tcp", family(server), addrPort(t, family(client), "443"))
				if len(found) != 1 || found[0].Severity != tt.severity || found[0].Count != uint64(tt.tcp) || found[0].Limit != 10 ||
					found[0].Subject != want || !mentions(found[0].Cause, tt.wantPrefix) || len(found[0].Evidence.Flows) != 1 {
					t.Errorf("got %+v", found)
				}
			})
		})
	}
}

// The ports of rules that name none.
func TestPortSpaceDefault(t *testing.T) {
	h := Host{Now: now}
	base := translated(t, same, "tcp", 1024, 443)
	add := func(n int) {
		for range n {
			f := base
			f.Reply.DstPort += uint16(len(h.Flows))
			h.Flows = append(h.Flows, f)
		}
	}
	add(51_609)
	if found := Find(h, PortSpace{}); len(found) != 0 {
		t.Errorf("with one port too few: %v", found)
	}
	add(1)
	if found := Find(h, PortSpace{}); len(found) != 1 || found[0].Count != 51_610 || found[0].Limit != 64_512 {
		t.Errorf("got %v", found)
	}
}

// Dropped connections make it critical.
func TestPortSpaceClashes(t *testing.T) {
	for dropped, want := range map[uint64]Severity{0: Warning, 5: Critical} {
		h := grown(conntrack.Stats{InsertFailed: dropped, Drop: dropped})
		for i := range 8 {
			h.Flows = append(h.Flows, translated(t, same, "tcp", 5000+i, 443))
		}
		found := Find(h, space)
		if len(found) != 1 || found[0].Severity != want || len(found[0].Evidence.Missing) != 0 ||
			mentions(found[0].Cause, "insert_failed counted 5 in the last "+seconds(time.Minute)) != (want == Critical) {
			t.Errorf("%d dropped: %v", dropped, found)
		}
	}
}
