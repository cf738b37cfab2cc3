package detect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const toRouter = "tcp 6 431999 ESTABLISHED src=203.0.113.5 dst=192.0.2.80 sport=51600 dport=5060 src=10.1.1.80 dst=203.0.113.5 sport=5060 dport=51600 [ASSURED] use=2"

func TestPerSource(t *testing.T) {
	for _, tt := range []struct {
		name  string
		d     PerSource
		n     int
		state sockdiag.State
		want  int
	}{
		{"TIME_WAIT", PerSource{}, 40, sockdiag.TimeWait, 1},
		{"TIME_WAIT, one less", PerSource{}, 39, sockdiag.TimeWait, 0},
		{"ESTABLISHED", PerSource{}, 61, sockdiag.Established, 1},
		{"ESTABLISHED, one less", PerSource{}, 60, sockdiag.Established, 0},
		{"SYN_RECV", PerSource{}, 21, sockdiag.SynRecv, 1},
		{"SYN_RECV by its other name", PerSource{State: sockdiag.NewSynRecv}, 21, sockdiag.SynRecv, 1},
		{"SYN_RECV, one less", PerSource{}, 20, sockdiag.NewSynRecv, 0},
		{"CLOSE_WAIT", PerSource{}, 61, sockdiag.CloseWait, 1},
		{"FIN_WAIT1", PerSource{}, 61, sockdiag.FinWait1, 1},
		{"LAST_ACK", PerSource{}, 61, sockdiag.LastAck, 1},
		{"SYN_SENT is not theirs", PerSource{}, 500, sockdiag.SynSent, 0},
		{"no connection", PerSource{}, 500, sockdiag.Close, 0},
		{"another state asked for", PerSource{State: sockdiag.TimeWait}, 500, sockdiag.Established, 0},
		{"another limit", PerSource{State: sockdiag.Established, Limit: 684}, 684, sockdiag.Established, 0},
		{"over another limit", PerSource{State: sockdiag.Established, Limit: 683}, 684, sockdiag.Established, 1},
		{"allowed", PerSource{Sources: Sources{Allow: prefixes("198.51.100.0/24", "2001:db8:7::/48")}}, 500, sockdiag.TimeWait, 0},
		{"another allowed", PerSource{Sources: Sources{Allow: prefixes("198.51.101.0/24")}}, 500, sockdiag.TimeWait, 1},
		{"its port", PerSource{Sources: Sources{Ports: []uint16{80, 443}}}, 500, sockdiag.TimeWait, 1},
		{"another port", PerSource{Sources: Sources{Ports: []uint16{80}}}, 500, sockdiag.TimeWait, 0},
	} {
		for _, remote := range []string{"198.51.100.7", "2001:db8:7::7"} {
			t.Run(tt.name+" "+remote, func(t *testing.T) {
				h := Host{Now: now, Sockets: append(held(tt.n, tt.state, remote), listener443())}
				found := find(t, tt.d, h)
				if len(found) != tt.want {
					t.Fatalf("%d findings, want %d: %v", len(found), tt.want, found)
				}
				for _, f := range found {
					checkSource(t, f, remote, tt.n)
				}
			})
		}
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, p := range texts {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func checkSource(t *testing.T, f Finding, remote string, n int) {
	t.Helper()
	if len(f.Sources) != 1 || !f.Sources[0].Contains(netip.MustParseAddr(remote)) || f.Count != uint64(n) ||
		f.Severity != Warning || len(f.Evidence.Sockets) == 0 || !mentions(f.Cause, fmt.Sprintf(" %d connections", n), "on port 443") {
		t.Errorf("got %+v", f)
	}
	if certain := f.Confidence == Likely; certain != (!mentions(f.Cause, "CLOSE_WAIT") && len(f.Evidence.Missing) == 0) {
		t.Errorf("confidence %v: %+v", f.Confidence, f)
	}
}

// The host's own connections are nobody's flood: a pool to a database, what a
// proxy has with its backends, and what it has with itself.
func TestPerSourceOutgoing(t *testing.T) {
	database := held(300, sockdiag.Established, "10.1.2.3")
	for i := range database {
		s := &database[i]
		s.Local, s.Remote = netip.AddrPortFrom(s.Local.Addr(), 40000+uint16(i)), netip.AddrPortFrom(s.Remote.Addr(), 5432)
	}
	for name, rows := range map[string][]sockdiag.Socket{
		"a pool":                        append(slices.Clone(database), listener443()),
		"a pool, no listener":           database,
		"itself":                        append(held(300, sockdiag.TimeWait, "192.0.2.10"), listener443()),
		"loopback":                      append(held(300, sockdiag.TimeWait, "127.0.0.1", "::1"), listener443()),
		"many clients":                  append(held(10, sockdiag.Established, addresses(250, "198.51.100.%d")...), listener443()),
		"a busy and a database":         append(held(43, sockdiag.Established, "10.1.2.3"), listener443()),
		"a port that listens no longer": append(held(300, sockdiag.TimeWait, "198.51.100.7"), listenOn(listener443(), 80)),
	} {
		t.Run(name, func(t *testing.T) {
			if found := find(t, PerSource{}, Host{Now: now, Sockets: rows}); len(found) != 0 {
				t.Errorf("got %v", found)
			}
		})
	}
}

func listenOn(s sockdiag.Socket, port uint16) sockdiag.Socket {
	s.Local = netip.AddrPortFrom(s.Local.Addr(), port)
	return s
}

// The lines of the flood of TIME_WAIT, from IPv6 sockets with IPv4 peers, with
// consecutive ports, as netstat tells them: without listeners.
func TestTimeWaitFlood(t *testing.T) {
	var rows []sockdiag.Socket
	for i := range 40 {
		for _, remote := range []string{"89.95.200.5", "90.0.28.227"}[:1+i%2] {
			s := socket(t, fmt.Sprintf("TIME_WAIT 192.0.2.10 443 %s %d", remote, 58936+i))
			s.Family = sockdiag.IPv6
			rows = append(rows, s)
		}
	}
	found := find(t, PerSource{State: sockdiag.TimeWait, Sources: Sources{Ports: []uint16{80, 443}}}, Host{Now: now, Sockets: rows})
	if len(found) != 1 || found[0].Sources[0].String() != "89.95.200.5/32" || found[0].Count != 40 || found[0].Limit != 39 || found[0].Confidence != Likely {
		t.Fatalf("got %v", found)
	}
	if !mentions(strings.Join(found[0].Fix, " "), "89.95.200.5 }", "maxretry = 40", "findtime = 750", "bantime = -1") {
		t.Errorf("fix %q", found[0].Fix)
	}
	found = find(t, PerSource{}, Host{Now: now, Sockets: rows})
	if len(found) != 1 || found[0].Confidence != Possible || len(found[0].Evidence.Missing) != 1 {
		t.Errorf("without listeners and ports: %+v", found)
	}
}

// One source of 684 beside a database of 43, as on the SIP server.
func TestEstablishedFlood(t *testing.T) {
	rows := append(held(684, sockdiag.Established, "203.0.113.9"), held(43, sockdiag.Established, "10.1.2.3")...)
	found := find(t, PerSource{}, Host{Now: now, Sockets: append(rows, listener443())})
	checkSubjects(t, found, "203.0.113.9")
	if found[0].Count != 684 || found[0].Limit != 60 || len(found[0].Evidence.Sockets) != 1 {
		t.Errorf("got %+v", found[0])
	}
}

// An allowed address in a prefix that would be banned.
func TestPerSourceAllowedInside(t *testing.T) {
	d := PerSource{Sources: Sources{Allow: prefixes("2001:db8:7::1/128")}}
	rows := append(held(70, sockdiag.Established, "2001:db8:7::1", "2001:db8:7::2"), listener443())
	found := find(t, d, Host{Now: now, Sockets: rows})
	checkSubjects(t, found, "2001:db8:7::/64")
	if found[0].Count != 70 || found[0].Confidence != Possible || !mentions(fmt.Sprint(found[0].Evidence.Missing), "allowed address") {
		t.Errorf("got %+v", found)
	}
}

// Flows count where there are no sockets to tell of them, and only there.
func TestPerSourceFlows(t *testing.T) {
	flows := func(line string, n int) (all []conntrack.Flow) {
		for i := range n {
			all = append(all, flow(t, strings.ReplaceAll(line, "51600", fmt.Sprint(10000+i))))
		}
		return all
	}
	own := strings.NewReplacer("10.1.1.80", "192.0.2.80").Replace(toRouter)
	listening := socket(t, "LISTEN 0.0.0.0 5060 0.0.0.0 0")
	one := socket(t, "ESTABLISHED 192.0.2.80 5060 203.0.113.6 10000")
	for _, tt := range []struct {
		name    string
		line    string
		sockets []sockdiag.Socket
		want    int
	}{
		{"forwarded to a server behind", toRouter, nil, 1},
		{"forwarded, beside sockets", toRouter, []sockdiag.Socket{listening, one}, 1},
		{"forwarded, another port listens", toRouter, []sockdiag.Socket{listenOn(listening, 22), one}, 1},
		{"its own, told by sockets", own, []sockdiag.Socket{listening, one}, 0},
		{"its own, no sockets", own, nil, 1},
		{"no answer yet", strings.Replace(toRouter, "use", "[UNREPLIED] use", 1), nil, 0},
		{"a client behind it", "tcp 6 431999 ESTABLISHED src=10.1.1.80 dst=203.0.113.5 sport=51600 dport=443 src=203.0.113.5 dst=192.0.2.80 sport=443 dport=51600 [ASSURED] use=2", nil, 0},
		{"not of TCP", "udp 17 170 src=203.0.113.5 dst=192.0.2.80 sport=51600 dport=5060 src=192.0.2.80 dst=203.0.113.5 sport=5060 dport=51600 [ASSURED] use=1", nil, 0},
		{"closed", strings.Replace(toRouter, "ESTABLISHED", "CLOSE", 1), nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Host{Now: now, Flows: flows(tt.line, 61), Sockets: tt.sockets, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.80")}}
			found := find(t, PerSource{}, h)
			if len(found) != tt.want || tt.want > 0 && (found[0].Subject != "203.0.113.5" || found[0].Count != 61) {
				t.Errorf("got %v, want %d findings", found, tt.want)
			}
			if router := tt.sockets != nil; tt.want > 0 && (mentions(text(found[0].Fix), onServer) != router || mentions(text(found[0].Fix), "sysctl") == router) {
				t.Errorf("settings of the wrong host: %q", found[0].Fix)
			}
		})
	}
	// A source, or a network, that this host serves too has its settings.
	for name, sockets := range map[string][]sockdiag.Socket{
		"203.0.113.5":    held(1, sockdiag.Established, "203.0.113.5"),
		"203.0.113.0/24": held(40, sockdiag.Established, addresses(10, "203.0.113.%d")...),
	} {
		found := Find(Host{Now: now, Flows: flows(toRouter, 61), Sockets: append(sockets, listener443())}, PerSource{})
		if len(found) != 1 || found[0].Subject != name || mentions(text(found[0].Fix), onServer) || !mentions(text(found[0].Fix), "sysctl") {
			t.Errorf("%s: %v", name, found)
		}
	}
	if found := Find(Host{Flows: flows(toRouter, 60)}, PerSource{}); len(found) != 0 {
		t.Errorf("one less: %v", found)
	}
}

// The order of the rows makes no difference but to the evidence, and a listener
// may come last.
func TestPerSourceOrder(t *testing.T) {
	rows := append(held(50, sockdiag.TimeWait, addresses(5, "198.51.%d.1")...), listener443())
	want := bareFindings(rows)
	if len(want) != 5 {
		t.Fatalf("got %v", want)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		if got := bareFindings(rows); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func bareFindings(rows []sockdiag.Socket) []Finding {
	found := Find(Host{Sockets: rows}, PerSource{})
	for i := range found {
		found[i].Evidence.Sockets = nil
	}
	return found
}
