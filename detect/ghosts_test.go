package detect

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The entry before and after it became a ghost.
const (
	closing = "ipv4     2 tcp      6 35 CLOSE_WAIT src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [ASSURED] mark=0 secmark=0 use=2"
	ghost   = "ipv4     2 tcp      6 431965 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 mark=0 secmark=0 use=2"
	// fromPeer is a ghost that a packet of the peer has raised.
	fromPeer = "ipv4     2 tcp      6 299 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [UNREPLIED] src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 use=1"
)

var ghostTable = []struct {
	name    string
	flow    string
	sockets []string
	want    int
}{
	{"no socket", ghost, nil, 1},
	{"from the peer", fromPeer, nil, 1},
	{"not yet", closing, nil, 0},
	{"another port's socket", ghost, []string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51523"}, 1},
	{"another peer's socket", ghost, []string{"ESTABLISHED 10.1.32.70 9102 10.1.99.5 51522"}, 1},
	{"only the listener", ghost, []string{"LISTEN 10.1.32.70 9102 0.0.0.0 0"}, 1},
	{"socket", ghost, []string{"CLOSE_WAIT 10.1.32.70 9102 10.1.41.192 51522"}, 0},
	{"socket, from the peer", fromPeer, []string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51522"}, 0},
	{"the host connects into it", fromPeer, []string{"SYN_SENT 10.1.32.70 9102 10.1.41.192 51522"}, 1},

	{"forwarded", "tcp 6 299 ESTABLISHED src=10.1.99.5 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.99.5 sport=51522 dport=9102 use=1", nil, 0},
	{"forwarded, source translated to the host's",
		"tcp 6 299 ESTABLISHED src=10.1.99.5 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", nil, 0},
	{"forwarded, destination translated from the host's",
		"tcp 6 299 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [UNREPLIED] src=10.1.99.5 dst=10.1.41.192 sport=9102 dport=51522 use=1", nil, 0},

	{"replied", "tcp 6 431999 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", nil, 0},
	{"assured", "tcp 6 431999 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [ASSURED] use=1", nil, 0},
	{"being connected", "tcp 6 117 SYN_SENT src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", nil, 0},
	{"another state", "tcp 6 117 CLOSE src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", nil, 0},
	{"UDP", "udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", nil, 0},
	{"offloaded", "tcp 6 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [OFFLOAD] use=2", nil, 0},

	// The host's port 80 leads to its 9102, and its own connections leave with
	// its other address. A socket sends what was not yet translated.
	{"redirected", "tcp 6 299 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 [UNREPLIED] src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 use=1", nil, 1},
	{"redirected, socket", "tcp 6 299 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 [UNREPLIED] src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 use=1",
		[]string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51522"}, 0},
	{"source translated", "tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=443 [UNREPLIED] src=10.1.41.192 dst=10.1.32.71 sport=443 dport=9102 use=1", nil, 1},
	{"source translated, socket", "tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=443 [UNREPLIED] src=10.1.41.192 dst=10.1.32.71 sport=443 dport=9102 use=1",
		[]string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 443"}, 0},
	{"source translated, the socket of another",
		"tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=443 [UNREPLIED] src=10.1.41.192 dst=10.1.32.71 sport=443 dport=9102 use=1",
		[]string{"ESTABLISHED 10.1.32.71 9102 10.1.41.192 443"}, 1},
	{"destination translated, socket", "tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.99.5 sport=9102 dport=443 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=443 dport=9102 use=1",
		[]string{"ESTABLISHED 10.1.32.70 9102 10.1.99.5 443"}, 0},

	{"to itself", "tcp 6 299 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=9102 dport=51522 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=51522 dport=9102 use=1",
		[]string{"ESTABLISHED 127.0.0.1 22 127.0.0.1 33"}, 1},
	{"to itself, the peer's socket", "tcp 6 299 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=9102 dport=51522 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=51522 dport=9102 use=1",
		[]string{"ESTABLISHED 127.0.0.1 51522 127.0.0.1 9102"}, 0},
}

func TestGhosts(t *testing.T) {
	for _, tt := range ghostTable {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, family func(string) string) {
				h := rows(t, family, []string{tt.flow}, tt.sockets)
				found := find(t, Ghosts{}, h)
				if len(found) != tt.want {
					t.Fatalf("%d findings, want %d: %v", len(found), tt.want, found)
				}
				for _, f := range found {
					if f.Detector != "Ghosts" || f.Severity != Critical || f.Confidence != Likely ||
						!slices.Equal(f.Evidence.Flows, h.Flows) || f.Subject != connection(h.Flows[0].Original) {
						t.Errorf("got %+v", f)
					}
				}
			})
		})
	}
}

// Any socket of the connection keeps its flow from being a ghost, whatever its
// state, but for one that is only connecting.
func TestGhostsSocketStates(t *testing.T) {
	h := rows(t, same, []string{ghost}, []string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51522"})
	for s := sockdiag.Established; s < sockdiag.BoundInactive; s++ {
		h.Sockets[0].State = s
		want := 0
		if s == sockdiag.SynSent {
			want = 1
		}
		if found := Find(h, Ghosts{}); len(found) != want {
			t.Errorf("%v: %d findings, want %d", s, len(found), want)
		}
	}
}

func same(s string) string { return s }

// An IPv6 listener's socket with an IPv4 peer belongs to an IPv4 flow; sockdiag
// shows its addresses unmapped. Own addresses may come mapped, or with a zone.
func TestGhostsMapped(t *testing.T) {
	h := rows(t, same, []string{ghost}, []string{"CLOSE_WAIT 10.1.32.70 9102 10.1.41.192 51522"})
	h.Sockets[0].Family = sockdiag.IPv6
	if !h.Sockets[0].Mapped() {
		t.Fatal("the row is not that of a mapped socket")
	}
	if found := find(t, Ghosts{}, h); len(found) != 0 {
		t.Errorf("with a socket: %v", found)
	}
	h.Sockets, h.Addrs = nil, []netip.Addr{netip.MustParseAddr("::ffff:" + server)}
	if found := find(t, Ghosts{}, h); len(found) != 1 {
		t.Errorf("a mapped own address: %v", found)
	}
	h = rows(t, same, []string{"tcp 6 299 ESTABLISHED src=fe80::1 dst=fe80::2 sport=9102 dport=51522 [UNREPLIED] src=fe80::2 dst=fe80::1 sport=51522 dport=9102 use=1"}, nil)
	h.Addrs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}
	if found := find(t, Ghosts{}, h); len(found) != 1 {
		t.Errorf("an own address with a zone: %v", found)
	}
}

// A host's addresses are known from its sockets too, those that listen on one
// included, but not from those that listen on any.
func TestGhostsOwnAddresses(t *testing.T) {
	for line, want := range map[string]int{
		"LISTEN 10.1.32.70 22 0.0.0.0 0":           1,
		"ESTABLISHED 10.1.32.70 22 10.1.99.5 4000": 1,
		"LISTEN 0.0.0.0 9102 0.0.0.0 0":            0,
		"ESTABLISHED 10.1.32.71 22 10.1.99.5 4000": 0,
	} {
		h := rows(t, same, []string{ghost}, []string{line})
		h.Addrs = nil
		if found := find(t, Ghosts{}, h); len(found) != want {
			t.Errorf("%s: %d findings, want %d", line, len(found), want)
		}
	}
}

func TestGhostsConfidence(t *testing.T) {
	closeWait := Setting{"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "60"}
	for _, tt := range []struct {
		name       string
		settings   conntrack.Settings
		confidence Confidence
		evidence   []Setting
		missing    []string
	}{
		{"tcp_loose on", settings(t, nil), Likely, []Setting{{"net.netfilter.nf_conntrack_tcp_loose", "1"}, closeWait}, nil},
		{"tcp_loose off", settings(t, map[string]string{"tcp_loose": "0"}), Possible,
			[]Setting{{"net.netfilter.nf_conntrack_tcp_loose", "0"}, closeWait},
			[]string{"tcp_loose is off now: who made the entry, and when"}},
		{"unknown", conntrack.Settings{}, Likely, nil, []string{"the tracker's settings"}},
	} {
		h := rows(t, same, []string{ghost}, nil)
		h.Settings = tt.settings
		f := find(t, Ghosts{}, h)[0]
		if f.Confidence != tt.confidence || !slices.Equal(f.Evidence.Settings, tt.evidence) || !slices.Equal(f.Evidence.Missing, tt.missing) {
			t.Errorf("%s: %v, settings %v, missing %q", tt.name, f.Confidence, f.Evidence.Settings, f.Evidence.Missing)
		}
	}
}

// The text names the seconds left, the connection that is blocked and the
// command that removes exactly this entry.
func TestGhostsText(t *testing.T) {
	eachFamily(t, func(t *testing.T, family func(string) string) {
		h := rows(t, family, []string{ghost}, nil)
		f := find(t, Ghosts{}, h)[0]
		if want := now.Add(431965 * time.Second); !f.Until.Equal(want) || !f.Since.IsZero() {
			t.Errorf("from %v until %v, want an unknown beginning and %v", f.Since, f.Until, want)
		}
		if !mentions(f.Cause, "for another 431965s", connection(h.Flows[0].Reply)) {
			t.Error(f.Cause)
		}
		if !mentions(f.Fix[0], "`"+DeleteCommand(&h.Flows[0])+"`") {
			t.Error(f.Fix)
		}
	})
	h := rows(t, same, []string{ghost}, nil)
	h.Now = time.Time{}
	if f := Find(h, Ghosts{})[0]; !f.Until.IsZero() {
		t.Errorf("without Now, until %v", f.Until)
	}
	h = rows(t, same, []string{ghost}, nil)
	h.Flows[0].Fields &^= conntrack.FieldTimeout
	if f := Find(h, Ghosts{})[0]; !f.Until.IsZero() || mentions(f.Cause, "for another") {
		t.Errorf("without a timeout, until %v: %s", f.Until, f.Cause)
	}
}

// The new connection that a translated ghost blocks is that of its reply tuple.
func TestGhostsTranslatedText(t *testing.T) {
	h := rows(t, same, []string{
		"tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=443 [UNREPLIED] src=10.1.41.192 dst=10.1.32.71 sport=443 dport=1024 use=1",
	}, nil)
	if f := Find(h, Ghosts{})[0]; !mentions(f.Cause, "10.1.41.192:443 > 10.1.32.71:1024 is INVALID") || f.Subject != "10.1.32.70:9102 > 10.1.41.192:443" {
		t.Errorf("got %v", f)
	}
}

func TestDeleteCommand(t *testing.T) {
	f := flow(t, ghost)
	for _, tt := range []struct {
		flow conntrack.Flow
		want string
	}{
		{f, "conntrack -D -f ipv4 -p tcp -s 10.1.32.70 -d 10.1.41.192 --sport 9102 --dport 51522"},
		{flow(t, toIPv6.Replace(ghost)), "conntrack -D -f ipv6 -p tcp -s 2001:db8:32::70 -d 2001:db8:41::192 --sport 9102 --dport 51522"},
		{flow(t, "udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=53 dport=1025 src=10.1.41.192 dst=10.1.32.70 sport=1025 dport=53 zone=7 use=1"),
			"conntrack -D -f ipv4 -p udp -s 10.1.32.70 -d 10.1.41.192 --sport 53 --dport 1025 -w 7"},
	} {
		if got := DeleteCommand(&tt.flow); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// Many flows and sockets, one ghost of each family among them.
func TestGhostsAmongMany(t *testing.T) {
	h := rows(t, same, []string{ghost, closing, toIPv6.Replace(ghost)}, []string{"LISTEN 10.1.32.70 9102 0.0.0.0 0"})
	h.Addrs = append(h.Addrs, netip.MustParseAddr(toIPv6.Replace(server)))
	many := busy(2000)
	h.Flows, h.Sockets = append(h.Flows, many.Flows...), append(h.Sockets, many.Sockets...)
	if found := find(t, Ghosts{}, h); len(found) != 2+2 {
		t.Errorf("%d findings: %v", len(found), found)
	}
}
