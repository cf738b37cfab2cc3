package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// attemptsTo are connection attempts to each of the addresses, on a port.
func attemptsTo(port uint16, n int, retransmits uint8, remotes ...string) (rows []sockdiag.Socket) {
	for _, s := range unmet(held(n, 0, remotes...), retransmits) {
		s.State = sockdiag.SynSent
		s.Local, s.Remote = netip.AddrPortFrom(s.Local.Addr(), s.Remote.Port()), netip.AddrPortFrom(s.Remote.Addr(), port)
		rows = append(rows, s)
	}
	return rows
}

func TestOutboundScan(t *testing.T) {
	timerless := attemptsTo(23, 1, 0, addresses(41, "198.51.100.%d")...)
	for i := range timerless {
		timerless[i].Timer = sockdiag.TimerOff
	}
	for _, tt := range []struct {
		name string
		d    OutboundScan
		rows []sockdiag.Socket
		want []string
	}{
		{"a scan", OutboundScan{}, attemptsTo(23, 1, 1, addresses(41, "198.51.100.%d")...), []string{"this host, to port 23"}},
		{"a scan over IPv6", OutboundScan{}, attemptsTo(23, 1, 1, addresses(41, "2001:db8::7:%d")...), []string{"this host, to port 23"}},
		{"one less", OutboundScan{}, attemptsTo(23, 1, 1, addresses(40, "198.51.100.%d")...), nil},
		{"a crawler", OutboundScan{}, attemptsTo(443, 1, 0, addresses(250, "198.51.100.%d")...), nil},
		{"several ports", OutboundScan{}, append(attemptsTo(23, 1, 1, addresses(40, "198.51.100.%d")...), attemptsTo(22, 1, 1, addresses(40, "198.51.101.%d")...)...), nil},
		{"a dead peer", OutboundScan{}, attemptsTo(5432, 21, 1, "198.51.100.7"), []string{"this host, to 198.51.100.7"}},
		{"a dead peer, one less", OutboundScan{}, attemptsTo(5432, 20, 1, "198.51.100.7"), nil},
		{"a scan and a dead peer", OutboundScan{}, append(attemptsTo(23, 30, 1, addresses(41, "198.51.100.%d")...), attemptsTo(5432, 21, 6, "203.0.113.7")...),
			[]string{"this host, to port 23", "this host, to 203.0.113.7"}},
		{"without timers", OutboundScan{}, timerless, []string{"this host, to port 23"}},
		{"allowed", OutboundScan{Allow: prefixes("198.51.100.0/24")}, attemptsTo(23, 1, 1, addresses(250, "198.51.100.%d")...), nil},
		{"another port", OutboundScan{Ports: []uint16{22}}, attemptsTo(23, 1, 1, addresses(250, "198.51.100.%d")...), nil},
		{"another limit", OutboundScan{Limit: 9}, attemptsTo(23, 1, 1, addresses(10, "198.51.100.%d")...), []string{"this host, to port 23"}},
		{"loopback", OutboundScan{}, attemptsTo(23, 1, 1, addresses(250, "127.0.0.%d")...), nil},
		{"established", OutboundScan{}, held(9, sockdiag.Established, addresses(250, "198.51.100.%d")...), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := find(t, tt.d, Host{Now: now, Sockets: tt.rows})
			checkSubjects(t, found, tt.want...)
			for _, f := range found {
				if unsure := tt.name == "without timers"; unsure != (f.Confidence == Possible) || unsure != (len(f.Evidence.Missing) > 0) ||
					len(f.Evidence.Sockets) == 0 || len(f.Evidence.Sockets) > 3 || f.Sources != nil {
					t.Errorf("got %+v", f)
				}
			}
		})
	}
}

// A client of a router scans; its attempts are told by flows alone, and how old
// they are by what is left of their time.
func TestOutboundScanFlows(t *testing.T) {
	const line = "tcp 6 117 SYN_SENT src=10.1.1.5 dst=198.51.100.1 sport=1031 dport=23 [UNREPLIED] src=198.51.100.1 dst=192.0.2.1 sport=23 dport=1031 use=1"
	scan := func(n int, left time.Duration) (flows []conntrack.Flow) {
		for i := range n {
			f := flow(t, strings.ReplaceAll(line, "198.51.100.1", fmt.Sprintf("198.51.100.%d", i+1)))
			f.Timeout = left * time.Second
			flows = append(flows, f)
		}
		return flows
	}
	own := []netip.Addr{netip.MustParseAddr("10.1.1.5")}
	ours := attemptsTo(23, 1, 1, addresses(41, "198.51.100.%d")...)
	for i := range ours {
		ours[i].Local = netip.AddrPortFrom(own[0], 1031)
	}
	for _, tt := range []struct {
		name       string
		h          Host
		want       string
		confidence Confidence
		count      uint64
	}{
		{"a client", Host{Flows: scan(41, 118)}, "10.1.1.5, to port 23", Likely, 41},
		{"one less", Host{Flows: scan(40, 118)}, "", 0, 0},
		{"young", Host{Flows: scan(41, 119)}, "", 0, 0},
		{"by raw packets", Host{Flows: scan(41, 1), Addrs: own}, "this host, to port 23", Likely, 41},
		{"told twice", Host{Flows: scan(41, 1), Sockets: ours}, "this host, to port 23", Likely, 41},
		{"in part told twice", Host{Flows: scan(50, 1), Sockets: ours}, "this host, to port 23", Likely, 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.h.Now, tt.h.Settings = now, settings(t, nil)
			found := find(t, OutboundScan{}, tt.h)
			if tt.want == "" {
				checkSubjects(t, found)
				return
			}
			checkSubjects(t, found, tt.want)
			if f := found[0]; f.Confidence != tt.confidence || f.Count != tt.count || len(f.Evidence.Flows)+len(f.Evidence.Sockets) != 3 ||
				(len(f.Sources) > 0) != (tt.name == "a client") {
				t.Errorf("got %+v", f)
			}
		})
	}
	if f := Find(Host{Flows: scan(41, 119)}, OutboundScan{}); len(f) != 1 || f[0].Confidence != Possible {
		t.Errorf("without settings: %+v", f)
	}
}
