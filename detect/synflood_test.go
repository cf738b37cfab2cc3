package detect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

func text(v any) string { return fmt.Sprint(v) }

// unmet makes of connections half-open ones whose SYN-ACK was sent again.
func unmet(rows []sockdiag.Socket, retransmits uint8) []sockdiag.Socket {
	for i := range rows {
		rows[i].State, rows[i].Timer, rows[i].Retransmits = sockdiag.SynRecv, sockdiag.TimerOn, retransmits
	}
	return rows
}

func TestSynFlood(t *testing.T) {
	old := slices.Concat(unmet(held(40, 0, "198.51.100.7"), 1), unmet(held(1, 0, addresses(25, "203.0.113.%d")...), 1))
	full := listener443()
	full.AcceptQueue, full.Backlog = 129, 128
	elsewhere := func(rows []sockdiag.Socket) []sockdiag.Socket {
		for i := range rows {
			rows[i] = listenOn(rows[i], uint16(8000+i%10))
		}
		return rows
	}
	for _, tt := range []struct {
		name    string
		d       SynFlood
		rows    []sockdiag.Socket
		sources string
		words   []string // nil: nothing is found
	}{
		{"forged", SynFlood{}, unmet(held(1, 0, addresses(65, "198.51.100.%d")...), 1), "[]", []string{"forged"}},
		{"forged, IPv6", SynFlood{}, unmet(held(1, 0, addresses(65, "2001:db8:7:%d::1")...), 3), "[]", []string{"forged"}},
		{"one less", SynFlood{}, unmet(held(1, 0, addresses(64, "198.51.100.%d")...), 1), "", nil},
		{"on their way", SynFlood{}, unmet(held(1, 0, addresses(250, "198.51.100.%d")...), 0), "", nil},
		{"one source", SynFlood{}, old, "[198.51.100.7/32]", []string{"40 of them of 198.51.100.7"}},
		{"several", SynFlood{}, unmet(held(9, 0, addresses(8, "198.51.%d.1")...), 2), "[]", []string{"by several"}},
		{"allowed", SynFlood{Sources: Sources{Allow: prefixes("198.51.100.7/32")}}, old, "", nil},
		{"another port", SynFlood{Sources: Sources{Ports: []uint16{80}}}, old, "", nil},
		{"another limit", SynFlood{Limit: 65}, old, "", nil},
		{"the accept queue is full", SynFlood{}, append(slices.Clone(old), full), "", nil},
		{"in all", SynFlood{}, elsewhere(unmet(held(1, 0, addresses(257, "198.51.%d.1")[:255]...), 1)), "", nil},
		{"in all, more", SynFlood{Total: 254}, elsewhere(unmet(held(1, 0, addresses(255, "198.51.%d.1")...), 1)), "[]", []string{"all ports", "forged"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := find(t, tt.d, Host{Now: now, Sockets: append(tt.rows, listener443())})
			if tt.words == nil {
				checkSubjects(t, found)
				return
			}
			if len(found) != 1 || !mentions(found[0].Cause, tt.words...) || fmt.Sprint(found[0].Sources) != tt.sources ||
				found[0].Confidence != Likely || len(found[0].Evidence.Sockets) == 0 || found[0].Count <= found[0].Limit {
				t.Fatalf("got %+v", found)
			}
			if banned := mentions(found[0].Fix[0], "ban"); banned != (tt.sources != "[]") {
				t.Errorf("fix %q", found[0].Fix)
			}
		})
	}
}

// Rows without timers do not tell how old they are.
func TestSynFloodAgeless(t *testing.T) {
	rows := held(1, sockdiag.SynRecv, addresses(65, "198.51.100.%d")...)
	found := find(t, SynFlood{}, Host{Now: now, Sockets: rows})
	if len(found) != 1 || found[0].Confidence != Possible || !mentions(text(found[0].Evidence.Missing), "how long") {
		t.Errorf("got %+v", found)
	}
}

// A router sees the handshakes of the servers behind it, and how old they are
// by what is left of their time.
func TestSynFloodFlows(t *testing.T) {
	const line = "tcp 6 57 SYN_RECV src=203.0.113.5 dst=192.0.2.80 sport=51600 dport=80 src=192.0.2.80 dst=203.0.113.5 sport=80 dport=51600 use=1"
	for _, tt := range []struct {
		left     time.Duration
		settings bool
		want     Confidence
	}{{58, true, Likely}, {59, true, Unknown}, {60, true, Unknown}, {60, false, Possible}} {
		h := Host{Now: now}
		if tt.settings {
			h.Settings = settings(t, map[string]string{"tcp_timeout_syn_recv": "60"})
		}
		for i := range 65 {
			f := flow(t, strings.ReplaceAll(line, "203.0.113.5", fmt.Sprintf("203.0.113.%d", i)))
			f.Timeout = tt.left * time.Second
			h.Flows = append(h.Flows, f)
		}
		found := find(t, SynFlood{}, h)
		if got := len(found) == 1; got != (tt.want != Unknown) || got && found[0].Confidence != tt.want {
			t.Errorf("%+v: %v", tt, found)
		}
		if len(found) == 1 && (mentions(text(found[0].Fix), onServer) || !mentions(text(found[0].Fix), "sysctl")) {
			t.Errorf("without sockets: %q", found[0].Fix)
		}
		h.Sockets = []sockdiag.Socket{held(1, sockdiag.Established, "203.0.113.77")[0]}
		h.Sockets[0].Local = netip.MustParseAddrPort("192.0.2.1:22")
		if found := find(t, SynFlood{}, h); len(found) == 1 && (!mentions(text(found[0].Fix), onServer) || mentions(text(found[0].Fix), "sysctl")) {
			t.Errorf("on a router: %q", found[0].Fix)
		}
		h.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.80")}
		h.Sockets = []sockdiag.Socket{held(1, sockdiag.Established, "203.0.113.77")[0]}
		if found := find(t, SynFlood{}, h); len(found) != 0 {
			t.Errorf("the host's own: %v", found)
		}
	}
}
