package reject

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
)

const (
	certain  = detect.Certain
	likely   = detect.Likely
	possible = detect.Possible
)

// Reasons as Linux 6.18 writes them.
const (
	reasonGhost    = "nf_ct_proto_6: packet (index 0) in dir 1 invalid, state ESTABLISHED "
	reasonReuse    = "nf_ct_proto_6: packet (index 0) in dir 1 invalid, state LAST_ACK "
	reasonNew      = "nf_ct_proto_6: invalid new "
	reasonFlags    = "nf_ct_proto_6: invalid tcp flag combination "
	reasonChecksum = "nf_ct_proto_6: bad checksum "
)

// Entries of the connection, the same in every test.
const (
	alive   = "tcp 6 431999 ESTABLISHED " + fromHost + fromPeer + "[ASSURED] use=1"
	expired = "tcp 6 ESTABLISHED " + fromHost + fromPeer + "[ASSURED] use=1"
	ghost   = "tcp 6 299 ESTABLISHED " + fromHost + "[UNREPLIED] " + fromPeer + "use=1"
	opening = "tcp 6 119 SYN_SENT " + fromHost + "[UNREPLIED] " + fromPeer + "use=1"
	closing = "tcp 6 35 CLOSE_WAIT " + fromPeer + fromHost + "[ASSURED] use=1"
)

// verdictTable has one or more rows per rule of the decision table.
var verdictTable = []struct {
	name       string
	seen       seen
	rule       string
	cause      Cause
	confidence detect.Confidence
	decide     string   // a part of the deciding command
	mentions   []string // in Summary, Facts, Missing or Fix
}{
	// C01
	{"expired, and seen to", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, certain, "",
		[]string{"nf_conntrack_tcp_timeout_established = 432000", "nf_conntrack_tcp_loose = 1", "the expired entry: ", fromHost + fromPeer,
			":9102 TCP PSH|ACK", "the entry expired at 12:00:00", "inode 4711"}},
	{"idle for long enough", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: "-", socket: "ESTABLISHED idle=400",
		settings: map[string]string{"tcp_timeout_established": "300"}},
		"C01", CauseEntryExpired, likely, "conntrack -E -e DESTROY", []string{"nf_conntrack_tcp_timeout_established = 300", "idle for 6m40s"}},
	{"not idle for long enough", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED idle=200",
		settings: map[string]string{"tcp_timeout_established": "300"}},
		"C04", CauseTrackedLate, possible, "conntrack -E -e DESTROY", []string{"too lately", "(5m0s)"}},
	{"how long is not known", seen{packet: "in ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, possible, "conntrack -E -e DESTROY", nil},
	{"settings not known", seen{packet: "in ACK", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED", unset: true},
		"C01", CauseEntryExpired, certain, "sysctl net.netfilter.nf_conntrack_tcp_timeout_established", []string{"the tracker's settings"}},
	{"tcp_loose off", seen{packet: "in PSH|ACK", how: Logged, state: Invalid, entry: "-", ended: expired, socket: "ESTABLISHED",
		settings: map[string]string{"tcp_loose": "0"}},
		"C01", CauseEntryExpired, certain, "", []string{"nf_conntrack_tcp_loose = 0", "`sysctl net.netfilter.nf_conntrack_tcp_loose=1`"}},
	{"tcp_loose on, and yet INVALID", seen{packet: "in PSH|ACK", how: Logged, state: Invalid, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, likely, "log_invalid", []string{"would be NEW"}},
	{"the socket half closed", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "FIN_WAIT2",
		ended: "tcp 6 FIN_WAIT " + fromHost + fromPeer + "[ASSURED] use=1"},
		"C01", CauseEntryExpired, certain, "", []string{"nf_conntrack_tcp_timeout_fin_wait = 120"}},
	{"the peer resets", seen{packet: "in RST|ACK", how: Logged, state: Invalid, reason: reasonNew, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, certain, "", []string{"let a RST"}},
	{"forwarded", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired, hook: "forward"},
		"C01", CauseEntryExpired, certain, "", []string{"hosts at its ends"}},
	{"the peer closes", seen{packet: "in FIN|ACK", how: Logged, state: Invalid, reason: reasonNew, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, certain, "", []string{"invalid new"}},
	{"state not known", seen{packet: "in PSH|ACK", how: Logged, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, certain, "", nil},
	{"only the ICMP error was seen", seen{packet: "in PSH|ACK", how: ICMPSent, icmp: host, entry: "-", ended: expired, socket: "ESTABLISHED"},
		"C01", CauseEntryExpired, certain, "", []string{"ICMP error"}},
	{"an earlier connection's end", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED",
		ended: "tcp 6 TIME_WAIT " + fromHost + fromPeer + "[ASSURED] use=1"},
		"C01", CauseEntryExpired, possible, "conntrack -E -e DESTROY", nil},
	{"an old kernel's end", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED",
		ended: "tcp 6 " + fromHost + fromPeer + "[ASSURED] use=1"},
		"C01", CauseEntryExpired, possible, "conntrack -E -e DESTROY", []string{"the entry ended at 12:00:00"}},

	// C02
	{"deleted", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: alive, socket: "ESTABLISHED"},
		"C02", CauseEntryDeleted, certain, "conntrack -S",
		[]string{"with 431999s left, at 12:00:00", "`conntrack -D`", "nf_conntrack_max", "the entry was removed by the kernel"}},
	{"deleted, tcp_loose off", seen{packet: "in PSH|ACK", how: Logged, state: Invalid, entry: "-", ended: alive, socket: "ESTABLISHED"},
		"C02", CauseEntryDeleted, certain, "conntrack -S", nil},

	// C05
	{"ghost, with the reason", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost, socket: "-", listen: host},
		"C05", CauseGhost, certain, "",
		[]string{ghost[10:], "another 299s", "`conntrack -D -f ", "nf_conntrack_tcp_loose = 1", "close_wait = 60", "unacknowledged = 300"}},
	{"ghost, without", seen{packet: "in SYN", how: Logged, state: Invalid, entry: ghost, socket: "-", listen: host},
		"C05", CauseGhost, likely, "log_invalid", []string{"Config.Reasons"}},
	{"ghost, how it was raised", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost, socket: "CLOSE_WAIT",
		ended: "tcp 6 CLOSE_WAIT " + fromPeer + fromHost + "[ASSURED] use=1"},
		"C05", CauseGhost, certain, "", []string{"had expired in CLOSE_WAIT at 12:00:00", "an earlier entry expired"}},
	{"ghost of a forwarded connection", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost},
		"C05", CauseGhost, certain, "", nil},
	{"ghost, only the ICMP error was seen", seen{packet: "in SYN", how: ICMPSent, icmp: host, entry: ghost, socket: "-"},
		"C05", CauseGhost, likely, "log_invalid", nil},

	// C06
	{"port reuse, with the reason", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonReuse, socket: "LAST_ACK",
		entry: "tcp 6 20 LAST_ACK " + fromHost + fromPeer + "[ASSURED] use=1"},
		"C06", CausePortReuse, certain, "", []string{"20 LAST_ACK", "other source ports", "`conntrack -D -f "}},
	{"port reuse, without", seen{packet: "in SYN", how: Logged, state: Invalid, socket: "-",
		entry: "tcp 6 20 FIN_WAIT " + fromHost + fromPeer + "[ASSURED] use=1"},
		"C06", CausePortReuse, likely, "log_invalid", []string{"forgotten after 120s"}},
	{"port reuse, the entry gone since", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonReuse, socket: "-", entry: "-"},
		"C06", CausePortReuse, certain, "", []string{"gone meanwhile", "LAST_ACK"}},
	{"port reuse, the connection alive", seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, socket: "ESTABLISHED", entry: alive},
		"C06", CausePortReuse, certain, "", nil},

	// C07
	{"late data", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: "-", socket: "-"},
		"C07", CauseLateData, likely, "conntrack -E -e DESTROY", []string{":9102 TCP PSH|ACK", "reuse of port 9102", "TCP reset"}},
	{"late data, the end seen", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: closing[:6] + closing[9:], socket: "-"},
		"C07", CauseLateData, certain, "", []string{"the entry expired at 12:00:00"}},
	{"late FIN", seen{packet: "in FIN|ACK", how: Logged, state: Invalid, reason: reasonNew, entry: "-", socket: "-"},
		"C07", CauseLateData, likely, "conntrack -E", []string{"invalid new"}},
	{"late FIN, no reason", seen{packet: "in FIN|ACK", how: Logged, state: Invalid, entry: "-", socket: "-"},
		"C07", CauseLateData, likely, "conntrack -E", nil},
	{"late data, state not known", seen{packet: "in PSH|ACK", how: Logged, entry: "-", socket: "-"},
		"C07", CauseLateData, likely, "conntrack -E", nil},
	{"late data, a socket in TIME_WAIT", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "TIME_WAIT orphan"},
		"C07", CauseLateData, likely, "conntrack -E", nil},
	{"late data, FIN_WAIT2 that no process has", seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "FIN_WAIT2 orphan"},
		"C07", CauseLateData, likely, "conntrack -E", nil},

	// C08
	{"CLOSE_WAIT without an entry", seen{entry: "-", socket: "CLOSE_WAIT"},
		"C08", CauseClosingEntryEnds, likely, "ss -tnpo state close-wait dst ", []string{"has no entry any more", "close_wait = 60", ":9102 > "}},
	{"CLOSE_WAIT with an entry", seen{entry: closing, socket: "CLOSE_WAIT"},
		"C08", CauseClosingEntryEnds, possible, "ss -tnpo state close-wait dst ", []string{"for another 35s", "when the application will answer"}},

	// C19 and C20
	{"not allowed", seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host},
		"C19", CauseNotAllowed, likely, "nft monitor trace", []string{"to port 9102", "`ct state new tcp dport 9102 accept`", "a socket listens on"}},
	{"not allowed, asking for ECN", seen{packet: "in SYN|ECE|CWR", how: Logged, state: New, entry: "-", listen: host},
		"C19", CauseNotAllowed, likely, "nft monitor trace", nil},
	{"not allowed, state not known", seen{packet: "in SYN", how: ICMPSent, icmp: host, entry: "-", listen: host},
		"C19", CauseNotAllowed, likely, "nft monitor trace", nil},
	{"no service, the host's own connection to itself", seen{packet: "in SYN", how: Logged, state: New, entry: "tcp 6 119 SYN_SENT " + fromPeer + "[UNREPLIED] " + fromHost, listen: "-"},
		"C20", CauseNoService, likely, "nft monitor trace", nil},
	{"no service", seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: "-"},
		"C20", CauseNoService, likely, "nft monitor trace", []string{"port 9102", "nothing listens on port 9102"}},

	// C25, C26 and C28
	{"on the path", seen{packet: "out SYN", how: ICMPReceived, icmp: router, entry: opening, socket: "SYN_SENT"},
		"C25", CauseOnPath, possible, "traceroute -n -T -p 51522 ", []string{router + " refused a packet to " + peer, "administratively"}},
	{"on the path, a connection that is made", seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: router, entry: alive, socket: "ESTABLISHED"},
		"C25", CauseOnPath, possible, "traceroute", nil},
	{"on the path, flags not quoted", seen{packet: "out ?", how: ICMPReceived, icmp: router, entry: opening, socket: "SYN_SENT"},
		"C25", CauseOnPath, possible, "traceroute", nil},
	{"by the peer", seen{packet: "out SYN", how: ICMPReceived, icmp: peer, entry: opening, socket: "SYN_SENT"},
		"C26", CauseByPeer, possible, "nc -v -z -p 9103 ", []string{"port 51522", "source port 9102", "[UNREPLIED]", "administratively"}},
	{"by the peer, the error itself not told", seen{packet: "out SYN", how: ICMPReceived, entry: opening, socket: "SYN_SENT"},
		"C26", CauseByPeer, possible, "nc -v -z -p 9103 ", []string{"no ICMP error was seen"}},
	{"by the peer, flags not quoted", seen{packet: "out ?", how: ICMPReceived, icmp: peer, entry: opening, socket: "SYN_SENT"},
		"C26", CauseByPeer, possible, "nc -v -z -p 9103 ", nil},
	{"the peer forgot", seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: alive, socket: "ESTABLISHED"},
		"C28", CausePeerForgot, likely, "# on the peer", []string{"nf_conntrack_tcp_timeout_established"}},
	{"the peer closed long ago", seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: ghost, socket: "CLOSE_WAIT"},
		"C28", CausePeerForgot, likely, "# on the peer", []string{"CLOSE_WAIT: the peer closed long ago", "end of file"}},
	{"the peer forgot, this side closes", seen{packet: "out FIN|ACK", how: ICMPReceived, icmp: peer, entry: alive, socket: "FIN_WAIT1"},
		"C28", CausePeerForgot, likely, "# on the peer", []string{"nf_conntrack_tcp_timeout_established"}},
	{"the peer forgot, no socket any more", seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: ghost, socket: "-"},
		"C28", CausePeerForgot, possible, "# on the peer", nil},
	{"the peer forgot, flags not quoted", seen{packet: "out ?", how: ICMPReceived, icmp: peer, entry: alive, socket: "ESTABLISHED"},
		"C28", CausePeerForgot, likely, "# on the peer", nil},
}

func TestExplain(t *testing.T) {
	for _, tt := range verdictTable {
		t.Run(tt.rule+" "+tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				e := tt.seen.evidence(t, f)
				v := explainTwice(t, e)
				if v.Rule != tt.rule || v.Cause != tt.cause || v.Confidence != tt.confidence {
					t.Errorf("got %s %s, %v", v.Rule, v.Cause, v.Confidence)
				}
				if !strings.Contains(v.Decide, f(tt.decide)) || (v.Decide == "") != (tt.decide == "") || (v.Decide == "") != (len(v.Missing) == 0) {
					t.Errorf("decide by %q, want %q; missing %q", v.Decide, tt.decide, v.Missing)
				}
				var words []string
				for _, w := range tt.mentions {
					words = append(words, f(w))
				}
				all := strings.Join(slices.Concat([]string{v.Summary}, v.Facts, v.Missing, v.Fix), "\n")
				if lack := lacking(all, words); len(lack) > 0 {
					t.Errorf("no word of %q in:\n%s", lack, all)
				}
				if len(v.Fix) == 0 || len(v.Facts) == 0 {
					t.Errorf("no remedy or no facts: %+v", v)
				}
			})
		})
	}
}

// explainTwice makes sure that Explain is pure.
func explainTwice(t testing.TB, e Evidence) Verdict {
	t.Helper()
	before := e
	v, again := Explain(e), Explain(e)
	if e != before || v.Evidence != before {
		t.Error("the evidence was changed")
	}
	if !reflect.DeepEqual(v, again) {
		t.Errorf("the same evidence gave %v, then %v", v, again)
	}
	return v
}
