package detect

import (
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
)

const (
	// begun is an entry that the service's port has begun, portOpened one
	// begun by the client.
	begun        = "tcp 6 9 STATE src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [ASSURED] use=1"
	portOpened   = "tcp 6 9 STATE src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [ASSURED] use=1"
	forwarded    = "tcp 6 9 STATE src=10.1.99.5 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [ASSURED] use=1"
	portListener = "LISTEN 10.1.32.70 9102 0.0.0.0 0"
	anyone       = "LISTEN 0.0.0.0 9102 0.0.0.0 0"
	connects     = "SYN_SENT 10.1.41.192 51522 10.1.32.70 9102"
)

// inState is a row in a state.
func inState(row, state string) string { return strings.Replace(row, "STATE", state, 1) }

func TestPortReuse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flow    string
		sockets []string
		want    Severity // 0 is nothing
	}{
		{"closed", inState(begun, "CLOSE"), []string{portListener}, Warning},
		{"closing", inState(begun, "LAST_ACK"), []string{portListener}, Warning},
		{"listens on any", inState(begun, "CLOSE"), []string{anyone}, Warning},
		{"TIME_WAIT lets a SYN pass", inState(begun, "TIME_WAIT"), []string{portListener}, 0},
		{"nobody listens", inState(begun, "CLOSE"), nil, 0},
		{"another port listens", inState(begun, "CLOSE"), []string{"LISTEN 10.1.32.70 9103 0.0.0.0 0"}, 0},
		{"the socket lives", inState(begun, "CLOSE_WAIT"), []string{portListener, "CLOSE_WAIT 10.1.32.70 9102 10.1.41.192 51522"}, 0},
		{"begun by the client", inState(portOpened, "CLOSE"), []string{portListener}, 0},
		{"forwarded, translated to the host's", inState(forwarded, "CLOSE"), []string{portListener}, 0},
		{"a ghost", ghost, []string{portListener}, 0},
		{"offloaded", "tcp 6 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [OFFLOAD] use=1", []string{portListener}, 0},
		{"UDP", "udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1", []string{portListener}, 0},

		{"connects into it", inState(begun, "CLOSE"), []string{"SYN_SENT 10.1.41.192 51522 10.1.32.70 9102"}, Critical},
		{"connects the way it was begun", inState(portOpened, "CLOSE"), []string{connects}, 0},
		{"connects into TIME_WAIT", inState(begun, "TIME_WAIT"), []string{connects}, 0},
		{"connects into its own handshake", inState(portOpened, "SYN_SENT"), []string{connects}, 0},
		{"connects elsewhere", inState(begun, "CLOSE"), []string{"SYN_SENT 10.1.41.192 51523 10.1.32.70 9102"}, 0},
		{"has connected", inState(begun, "ESTABLISHED"), []string{"ESTABLISHED 10.1.41.192 51522 10.1.32.70 9102"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, family func(string) string) {
				h := rows(t, func(s string) string {
					return strings.Replace(family(s), "LISTEN 0.0.0.0", family("LISTEN 0.0.0.0"), 1)
				}, []string{tt.flow}, tt.sockets)
				checkReuse(t, h, find(t, PortReuse{}, h), tt.want)
			})
		})
	}
}

func checkReuse(t *testing.T, h Host, found []Finding, want Severity) {
	t.Helper()
	if want == 0 {
		if len(found) != 0 {
			t.Errorf("got %v", found)
		}
		return
	}
	if len(found) != 1 {
		t.Fatalf("%d findings: %v", len(found), found)
	}
	f, row := found[0], h.Flows[0]
	if f.Detector != "PortReuse" || f.Severity != want || !slices.Equal(f.Evidence.Flows, h.Flows) || !f.Until.Equal(now.Add(row.Timeout)) ||
		!mentions(f.Fix[0], "`"+DeleteCommand(&row)+"`") || !mentions(f.Cause, row.TCP.State.String(), "INVALID for another 9s") {
		t.Errorf("got %+v", f)
	}
	if about := connection(row.Reply); want == Critical && f.Subject != about || !strings.Contains(f.Cause+f.Subject, about) {
		t.Errorf("not about %s: %v", about, f)
	}
}

// An entry that was picked up has the tracker's flag, and one that began with a
// SYN the options of that; text has neither.
func TestPortReuseFlags(t *testing.T) {
	for _, tt := range []struct {
		flags uint8
		want  Confidence // Unknown: nothing is found
	}{
		{conntrack.TCPLiberal | conntrack.TCPSackPermitted, Likely},
		{conntrack.TCPWindowScale | conntrack.TCPSackPermitted, Unknown},
		{0, Possible},
	} {
		h := rows(t, same, []string{inState(begun, "CLOSE")}, []string{portListener})
		h.Flows[0].TCP.OriginalFlags = tt.flags
		got := Unknown
		for _, f := range find(t, PortReuse{}, h) {
			got = f.Confidence
			if (got == Possible) != mentions(strings.Join(f.Evidence.Missing, " "), "TCP flags") {
				t.Errorf("missing %q", f.Evidence.Missing)
			}
		}
		if got != tt.want {
			t.Errorf("flags %#x: %v, want %v", tt.flags, got, tt.want)
		}
	}
}

// The states in which a SYN of the reply direction is INVALID.
func TestRefuses(t *testing.T) {
	f := flow(t, inState(begun, "CLOSE"))
	want := []conntrack.TCPState{conntrack.TCPSynRecv, conntrack.TCPEstablished, conntrack.TCPFinWait, conntrack.TCPCloseWait, conntrack.TCPLastAck, conntrack.TCPClose}
	for s := range conntrack.TCPState(16) {
		f.TCP.State = s
		if got := refuses(&f); got != slices.Contains(want, s) {
			t.Errorf("%v: %v", s, got)
		}
	}
}

// Findings are told up to a limit, and counted beyond.
func TestMost(t *testing.T) {
	h := rows(t, same, nil, []string{portListener})
	for i := range 5 {
		for _, row := range []string{inState(begun, "CLOSE"), ghost} {
			f := flow(t, row)
			f.Original.DstPort += uint16(i)
			f.Reply.SrcPort += uint16(i)
			h.Flows = append(h.Flows, f)
		}
		s := socket(t, query)
		h.Sockets = append(h.Sockets, s)
		h.Sockets[i+1].Local = addrPort(t, server, string(rune('1'+i)))
	}
	for _, d := range []Detector{Ghosts{Most: 3}, LostFlows{Most: 3}, PortReuse{Most: 3}} {
		found := Find(h, d)
		if last := found[len(found)-1]; len(found) != 4 || last.Count != 2 || last.Detector != d.Name() {
			t.Errorf("%s: %d findings, %v", d.Name(), len(found), last)
		}
	}
	for _, d := range []Detector{Ghosts{}, LostFlows{}, PortReuse{}} {
		if found := Find(h, d); len(found) != 5 {
			t.Errorf("%s: %d findings", d.Name(), len(found))
		}
	}
}
