package reject

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// More reasons, of the kernels that write them.
const (
	reasonOver    = "nf_ct_proto_6: SEQ is over upper bound 901 (over the window of the receiver) "
	reasonUnder   = "nf_ct_proto_6: SEQ is under lower bound 2000 (already ACKed data retransmitted) " // 6.1
	reasonUnder5  = "nf_ct_proto_6: SEQ is under the lower bound (already ACKed data retransmitted) "  // 5.10
	reasonHalf    = "nf_ct_proto_6: packet (index 3) in dir 0 invalid, state SYN_SENT "
	reasonReset   = "nf_ct_proto_6: invalid rst "
	reasonAccepts = "nf_ct_proto_6: packet (index 1) in dir 0 invalid, state ESTABLISHED "
	reasonForeign = "nf_ct_proto_1: outer daddr 192.0.2.1 != inner 192.0.2.2 "
	reasonCut     = "nf_ct_proto_17: truncated/malformed packet "
)

// More entries of the connection.
const (
	asked     = "tcp 6 119 SYN_SENT " + fromPeer + "[UNREPLIED] " + fromHost + "use=1"
	zone7     = "tcp 6 119 SYN_SENT " + fromPeer + "[UNREPLIED] " + fromHost + "zone=7 use=1"
	sent7     = "tcp 6 119 SYN_SENT " + fromHost + "[UNREPLIED] " + fromPeer + "zone=7 use=1"
	served    = "tcp 6 431999 ESTABLISHED " + fromPeer + fromHost + "[ASSURED] use=1"
	forwards  = "tcp 6 431999 ESTABLISHED src=10.1.41.192 dst=10.1.99.1 sport=51522 dport=80 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [ASSURED] use=1"
	closes    = "tcp 6 35 CLOSE_WAIT " + fromPeer + fromHost + "use=1"
	closesOK  = "tcp 6 CLOSE_WAIT " + fromPeer + fromHost + "[ASSURED] use=1"
	ftp       = "tcp 6 431999 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=40000 dport=21 src=10.1.32.70 dst=10.1.41.192 sport=21 dport=40000 [ASSURED] "
	question  = "udp 17 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=53 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=53 dport=40000 use=1"
	questionT = "udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=53 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=53 dport=40000 use=1"
	question7 = "udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=53 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=53 dport=40000 zone=7 use=1"
	askedUDP  = "udp 17 20 " + fromPeer + "[UNREPLIED] " + fromHost + "use=1"
)

func counted(c conntrack.Stats) *Counters { return &Counters{Window: time.Minute, Conntrack: c} }

func full(count uint64) *conntrack.Usage {
	return &conntrack.Usage{Count: count, Max: 1000, Buckets: 100, Fields: conntrack.UsageMax | conntrack.UsageBuckets}
}

func load(state sockdiag.State, idle bool) *Load {
	return &Load{Source: netip.MustParsePrefix("192.0.2.7/32"), State: state, Count: 684, Limit: 60, Idle: idle, Descriptors: 1000, Allowed: 1024}
}

// miss is the same symptom with another cause: one thing differs.
type miss struct {
	name   string
	change func(*seen)
	rule   string
}

// causeTable has for each row a case that it is made for, what Certain rests
// on, if it can be, and near misses.
var causeTable = []struct {
	rule       string
	cause      Cause
	confidence detect.Confidence
	seen       seen
	mentions   []string
	misses     []miss
}{
	{"C25", CauseOnPath, possible,
		seen{packet: "out SYN", how: ICMPReceived, icmp: router, entry: opening, socket: "SYN_SENT"}, []string{router, "traceroute -n -T -p 51522"},
		[]miss{
			{"the peer itself", func(s *seen) { s.icmp = peer }, "C26"},
			{"the peer itself, later", func(s *seen) { s.icmp, s.packet, s.socket = peer, "out PSH|ACK", "ESTABLISHED" }, "C28"},
			{"this host itself", func(s *seen) { s.icmp = host }, "C37"},
			{"a RST", func(s *seen) { s.icmp, s.how = "", ResetReceived }, "C26"},
		}},
	{"C29", CausePeerNoService, likely,
		seen{packet: "out udp 40000 514", how: ICMPReceived, icmp: peer + " port"}, []string{"nothing listens at its port 514"},
		[]miss{
			{"prohibited", func(s *seen) { s.icmp = peer }, "C26"},
			{"of a router", func(s *seen) { s.icmp = router + " port" }, "C25"},
			{"of TCP", func(s *seen) { s.packet = "out SYN" }, "C26"},
		}},
	{"C28", CausePeerForgot, likely,
		seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: alive, socket: "ESTABLISHED"}, []string{"has forgotten it"},
		[]miss{
			{"a new connection", func(s *seen) { s.packet = "out SYN" }, "C26"},
			{"of a router", func(s *seen) { s.icmp = router }, "C25"},
			{"a UDP answer", func(s *seen) { s.packet, s.entry = "out udp", askedUDP }, "C28"},
			{"a UDP question", func(s *seen) { s.packet, s.entry = "out udp", "-" }, "C26"},
		}},
	{"C26", CauseByPeer, possible,
		seen{packet: "out SYN", how: ICMPReceived, icmp: peer + " port", entry: opening, socket: "SYN_SENT"}, []string{"this error is a firewall's"},
		[]miss{
			{"of a router", func(s *seen) { s.icmp = router }, "C25"},
			{"made", func(s *seen) { s.packet, s.socket = "out ACK", "ESTABLISHED" }, "C28"},
			{"UDP", func(s *seen) { s.packet = "out udp" }, "C29"},
			{"echo", func(s *seen) { s.packet, s.icmp = "out icmp 8", peer }, "C26"},
		}},

	{"C30", CauseBanned, certain,
		seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host, rule: "ip saddr @bans counter drop"},
		[]string{"rule 12 of inet filter input: ip saddr @bans counter drop", "`nft delete element inet filter bans { " + peer + " }`"},
		[]miss{
			{"a set of those allowed", func(s *seen) { s.rule = "ip saddr != @friends drop" }, "C19"},
			{"an ipset of those allowed", func(s *seen) { s.rule = "-m set ! --match-set friends src -j DROP" }, "C19"},
			{"the address itself", func(s *seen) { s.rule = "ip saddr " + peer + " drop" }, "C30"},
			{"another address", func(s *seen) { s.rule = "ip saddr " + router + " drop" }, "C19"},
			{"a port", func(s *seen) { s.rule = "tcp dport 9102 drop" }, "C19"},
			{"an ipset", func(s *seen) { s.rule = "-m set --match-set f2b-sshd src -j REJECT" }, "C30"},
		}},
	{"C31", CauseOverLimit, certain,
		seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host, rule: "tcp dport 9102 ct count over 20 reject"}, []string{"a limit is reached"},
		[]miss{
			{"a limit of the answers", func(s *seen) { s.rule = "limit rate 5/second reject" }, "C19"},
			{"a ban", func(s *seen) { s.rule = "ip saddr @bans limit rate over 5/second drop" }, "C30"},
			{"no limit, no listener", func(s *seen) { s.rule, s.listen = "reject", "-" }, "C20"},
		}},
	{"C33", CauseFragment, likely,
		seen{packet: "in fragment", how: Logged, state: Untracked}, []string{"rules that match ports"},
		[]miss{
			{"whole", func(s *seen) { s.packet = "in udp" }, "C23"},
			{"whole, tracked", func(s *seen) { s.packet, s.state, s.entry, s.listen = "in udp", New, "-", host }, "C19"},
		}},

	{"C13", CauseDamaged, certain,
		seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonChecksum, entry: "-", listen: host}, []string{"wrong checksum"},
		[]miss{
			{"sound", func(s *seen) { s.reason, s.state = "", New }, "C19"},
			{"flags", func(s *seen) { s.reason, s.packet = reasonFlags, "in FIN|SYN" }, "C12"},
			{"cut", func(s *seen) { s.reason, s.packet = reasonCut, "in udp" }, "C13"},
			{"foreign", func(s *seen) { s.reason, s.packet = reasonForeign, "in icmp 3" }, "C13"},
			{"out of the window", func(s *seen) { s.reason, s.packet, s.entry = reasonOver, "in PSH|ACK", served }, "C09"},
		}},
	{"C12", CauseInvalidFlags, certain,
		seen{packet: "in FIN|PSH|URG", how: Logged, state: Invalid, reason: reasonFlags, entry: "-", socket: "-"}, []string{"no honest stack", "ban " + peer},
		[]miss{
			{"PSH|RST, which is valid to the tracker", func(s *seen) { s.packet, s.reason = "in RST|PSH", "" }, "C35"},
			{"a late FIN", func(s *seen) { s.packet, s.reason = "in FIN|ACK", reasonNew }, "C07"},
			{"untracked", func(s *seen) { s.state, s.reason = Untracked, "" }, "C23"},
			{"without a reason", func(s *seen) { s.reason = "" }, "C12"},
		}},
	{"C05", CauseGhost, certain,
		seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost, socket: "-", listen: host}, []string{"ghost entry"},
		[]miss{
			{"replied", func(s *seen) { s.entry = alive }, "C06"},
			{"no entry, and new", func(s *seen) { s.entry, s.state, s.reason = "-", New, "" }, "C19"},
			{"a bad checksum", func(s *seen) { s.reason = reasonChecksum }, "C13"},
			{"closed by the reject's own RST", func(s *seen) {
				s.how, s.entry = ResetSent, "tcp 6 9 CLOSE "+fromHost+"[UNREPLIED] "+fromPeer+"use=1"
			}, "C05"},
			{"its own direction", func(s *seen) { s.entry, s.reason = "tcp 6 299 ESTABLISHED "+fromPeer+"[UNREPLIED] "+fromHost, "" }, ""},
		}},
	{"C06", CausePortReuse, certain,
		seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonReuse, socket: "LAST_ACK",
			entry: "tcp 6 20 LAST_ACK " + fromHost + fromPeer + "[ASSURED] use=1"}, []string{"was LAST_ACK", "forgotten after 30s"},
		[]miss{
			{"a ghost", func(s *seen) { s.entry, s.reason = ghost, "" }, "C05"},
			{"over: the tracker takes it", func(s *seen) { s.entry, s.reason = "tcp 6 20 TIME_WAIT "+fromHost+fromPeer+"[ASSURED] use=1", "" }, ""},
			{"gone", func(s *seen) { s.entry, s.state, s.reason, s.listen = "-", New, "", "-" }, "C20"},
		}},
	{"C24", CauseNotTranslated, certain,
		seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonNew, entry: forwards, hook: "forward"}, []string{"resets the untranslated connection"},
		[]miss{
			{"an old RST", func(s *seen) { s.reason = reasonReset }, "C11"},
			{"nothing is translated", func(s *seen) { s.entry, s.reason = served, "" }, "C11"},
			{"no entry", func(s *seen) { s.entry = "-" }, "C35"},
		}},
	{"C11", CauseInvalidReset, certain,
		seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonReset, entry: alive, socket: "ESTABLISHED", kernel: "5.10.0"}, []string{"Linux 5.14 has"},
		[]miss{
			{"of no connection", func(s *seen) { s.reason, s.entry, s.socket = reasonNew, "-", "-" }, "C35"},
			{"with a SYN", func(s *seen) { s.reason, s.packet = reasonFlags, "in SYN|RST" }, "C12"},
			{"data", func(s *seen) { s.reason, s.packet = reasonOver, "in PSH|ACK" }, "C09"},
			{"of a connection that was forgotten", func(s *seen) { s.reason, s.entry = reasonNew, "-" }, "C01"},
		}},
	{"C10", CauseLateDuplicate, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: Invalid, reason: reasonUnder5, entry: alive, socket: "ESTABLISHED"}, []string{"Linux 6.1 and later"},
		[]miss{
			{"a kernel that lets it through", func(s *seen) { s.reason, s.state = reasonUnder, Established }, "C22"},
			{"the same, the state not known", func(s *seen) { s.reason, s.state = reasonUnder, StateUnknown }, "C22"},
			{"above", func(s *seen) { s.reason = reasonOver }, "C09"},
		}},
	{"C14", CauseWrongZone, certain,
		seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: "-", elsewhere: zone7, socket: "SYN_RECV"}, []string{"`ct zone set 7`"},
		[]miss{
			{"no zone, an exemption", func(s *seen) { s.entry, s.elsewhere, s.rules = asked, "", &Rules{Notrack: "tcp sport 9102 notrack"} }, "C15"},
			{"no zone, forwarded", func(s *seen) { s.entry, s.elsewhere, s.hook, s.socket = asked, "", "forward", "" }, "C16"},
			{"its SYN|ACK", func(s *seen) { s.packet, s.reason, s.elsewhere, s.socket = "in SYN|ACK", reasonNew, sent7, "SYN_SENT" }, "C14"},
			{"its SYN|ACK, in no zone", func(s *seen) { s.packet, s.reason, s.elsewhere, s.socket = "in SYN|ACK", reasonNew, "", "SYN_SENT" }, "C17"},
			{"a new SYN", func(s *seen) { s.packet, s.reason, s.state, s.listen = "in SYN", "", New, host }, "C19"},
		}},
	{"C15", CauseUntrackedReturn, certain,
		seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: asked, socket: "SYN_RECV", rules: &Rules{Notrack: "tcp sport 9102 notrack"}},
		[]string{"by tcp sport 9102 notrack"},
		[]miss{
			{"in a zone", func(s *seen) { s.entry = zone7 }, "C14"},
			{"forwarded", func(s *seen) { s.hook, s.socket, s.rules = "forward", "", &Rules{} }, "C16"},
			{"out of the window", func(s *seen) { s.reason, s.entry = reasonOver, served }, "C09"},
			{"no rule exempts", func(s *seen) { s.rules = &Rules{} }, "C34"},
		}},
	{"C16", CauseAsymmetric, certain,
		seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: asked, hook: "forward", rules: &Rules{}}, []string{"different ways"},
		[]miss{
			{"here", func(s *seen) { s.hook, s.socket, s.rules = "input", "SYN_RECV", nil }, "C15"},
			{"in another zone", func(s *seen) { s.entry, s.elsewhere = "-", zone7 }, "C14"},
			{"its SYN|ACK, alone", func(s *seen) { s.packet, s.reason, s.entry = "in SYN|ACK", reasonNew, "-" }, "C16"},
			{"its SYN|ACK, here", func(s *seen) {
				s.packet, s.reason, s.entry, s.hook, s.socket = "in SYN|ACK", reasonNew, "-", "input", "SYN_SENT"
			}, "C17"},
		}},
	{"C34", CauseOutOfState, certain,
		seen{packet: "in SYN|ACK", how: Logged, state: Invalid, reason: reasonAccepts, entry: served, socket: "ESTABLISHED"}, []string{"a SYN|ACK in the original direction"},
		[]miss{
			{"a SYN", func(s *seen) { s.packet, s.reason, s.entry = "in SYN", reasonGhost, alive }, "C06"},
			{"no entry", func(s *seen) { s.entry, s.reason, s.socket = "-", reasonNew, "-" }, "C18"},
			{"half open", func(s *seen) {
				s.packet, s.reason, s.entry, s.hook, s.socket = "in ACK", reasonHalf, asked, "forward", ""
			}, "C16"},
			{"without a reason", func(s *seen) { s.reason = "" }, "C34"},
		}},
	{"C09", CauseOutOfWindow, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: Invalid, reason: reasonOver, entry: served, socket: "ESTABLISHED"}, []string{"by 100 bytes; bound 901", "be_liberal = 0"},
		[]miss{
			{"half open", func(s *seen) { s.reason, s.entry = "", asked }, "C15"},
			{"damaged", func(s *seen) { s.reason = reasonChecksum }, "C13"},
			{"established", func(s *seen) { s.reason, s.state = "", Established }, "C22"},
			{"without a reason", func(s *seen) { s.reason = "" }, "C09"},
			{"without a reason, liberal", func(s *seen) { s.reason, s.settings = "", map[string]string{"tcp_be_liberal": "1"} }, ""},
		}},

	{"C22", CauseRuleOrder, certain,
		seen{packet: "in PSH|ACK", how: Traced, state: Established, entry: served, socket: "ESTABLISHED", rule: "iifname \"eth1\" reject"},
		[]string{"refused by rule 12 of inet filter input: iifname \"eth1\" reject"},
		[]miss{
			{"untracked", func(s *seen) { s.state = Untracked }, "C23"},
			{"invalid", func(s *seen) { s.state, s.reason = Invalid, reasonOver }, "C09"},
			{"forgotten", func(s *seen) { s.state, s.entry = New, "-" }, "C01"},
			{"without the rule", func(s *seen) { s.rule = "" }, "C22"},
			{"related", func(s *seen) { s.packet, s.state, s.entry = "in SYN", Related, "-" }, "C22"},
		}},
	{"C23", CauseUntracked, certain,
		seen{packet: "in PSH|ACK", how: Traced, state: Untracked, entry: "-", socket: "ESTABLISHED", rule: "reject", rules: &Rules{Notrack: "tcp dport 9102 notrack"}},
		[]string{"exempt by: tcp dport 9102 notrack"},
		[]miss{
			{"established", func(s *seen) { s.state = Established }, "C22"},
			{"new", func(s *seen) { s.state = New }, "C01"},
			{"a fragment", func(s *seen) { s.packet = "in fragment" }, "C33"},
		}},

	{"C03", CauseEntryEvicted, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: closes, socket: "CLOSE_WAIT", counters: counted(conntrack.Stats{EarlyDrop: 3})},
		[]string{"evicted from a full table, with 35s left", "evicted 3 entries"},
		[]miss{
			{"nothing was evicted", func(s *seen) { s.counters = counted(conntrack.Stats{}) }, "C02"},
			{"it could not be", func(s *seen) { s.ended, s.socket = alive, "ESTABLISHED" }, "C02"},
			{"somebody deleted it", func(s *seen) { s.by = 4711 }, "C02"},
			{"expired", func(s *seen) { s.ended = closesOK }, "C01"},
			{"the table is full", func(s *seen) { s.counters, s.usage = nil, full(960) }, "C03"},
		}},
	{"C02", CauseEntryDeleted, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: alive, by: 4711, socket: "ESTABLISHED"}, []string{"`ps -p 4711`"},
		[]miss{
			{"expired", func(s *seen) { s.ended, s.by = expired, 0 }, "C01"},
			{"evicted", func(s *seen) {
				s.ended, s.by, s.counters = "tcp 6 200 ESTABLISHED "+fromHost+fromPeer, 0, counted(conntrack.Stats{EarlyDrop: 1})
			}, "C03"},
			{"nobody has it", func(s *seen) { s.socket = "-" }, "C07"},
			{"a UDP answer", func(s *seen) { s.packet, s.ended, s.socket = "in udp 53 40000", questionT, "" }, "C02"},
		}},
	{"C04", CauseTrackedLate, likely,
		seen{packet: "in PSH|ACK", how: Logged, state: Invalid, entry: "-", ended: "-", socket: "ESTABLISHED idle=30", listened: 3600,
			settings: map[string]string{"tcp_loose": "0"}}, []string{"30s ago", "1h0m0s"},
		[]miss{
			{"idle since before", func(s *seen) { s.socket = "ESTABLISHED idle=4000" }, "C01"},
			{"its end was seen", func(s *seen) { s.ended = expired }, "C01"},
			{"nobody listened", func(s *seen) { s.listened = 0 }, "C01"},
			{"nobody has it", func(s *seen) { s.socket = "-" }, "C07"},
		}},
	{"C01", CauseEntryExpired, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: expired, socket: "ESTABLISHED"}, []string{"expired"},
		[]miss{
			{"deleted", func(s *seen) { s.ended = alive }, "C02"},
			{"nobody has it", func(s *seen) { s.socket = "-" }, "C07"},
			{"known", func(s *seen) { s.state, s.entry = Established, served }, "C22"},
			{"its end not seen", func(s *seen) { s.ended = "-" }, "C01"},
		}},
	{"C17", CauseSynMissed, certain,
		seen{packet: "in SYN|ACK", how: Logged, state: Invalid, reason: reasonNew, entry: "-", socket: "SYN_SENT"}, []string{"does not know"},
		[]miss{
			{"nobody asked", func(s *seen) { s.socket = "-" }, "C18"},
			{"in another zone", func(s *seen) { s.elsewhere = sent7 }, "C14"},
			{"forwarded", func(s *seen) { s.hook, s.socket = "forward", "" }, "C16"},
			{"no reason", func(s *seen) { s.reason = "" }, "C17"},
			{"a RST", func(s *seen) { s.packet = "in RST|ACK" }, "C17"},
		}},
	{"C18", CauseBackscatter, likely,
		seen{packet: "in SYN|ACK", how: Logged, state: Invalid, reason: reasonNew, entry: "-", socket: "-", ended: "-"}, []string{"forges the address " + host},
		[]miss{
			{"it was asked for", func(s *seen) { s.ended = "tcp 6 SYN_SENT " + fromHost + "[UNREPLIED] " + fromPeer }, "C17"},
			{"it is", func(s *seen) { s.socket = "SYN_SENT" }, "C17"},
			{"in another zone", func(s *seen) { s.elsewhere = sent7 }, "C14"},
		}},
	{"C35", CauseLateReset, certain,
		seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonNew, entry: "-", socket: "-", ended: "tcp 6 CLOSE " + fromHost + fromPeer}, []string{"is over"},
		[]miss{
			{"a socket has it", func(s *seen) { s.socket, s.ended = "ESTABLISHED", "-" }, "C01"},
			{"the entry is there", func(s *seen) { s.reason, s.entry = reasonReset, alive }, "C11"},
			{"the socket asks", func(s *seen) { s.socket, s.ended = "SYN_SENT", "" }, "C17"},
			{"its end not seen", func(s *seen) { s.ended = "" }, "C35"},
		}},
	{"C07", CauseLateData, certain,
		seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", ended: "tcp 6 TIME_WAIT " + fromPeer + fromHost, socket: "-"}, []string{"the refusal is right"},
		[]miss{
			{"a socket has it", func(s *seen) { s.socket, s.ended = "ESTABLISHED", "-" }, "C01"},
			{"a RST", func(s *seen) { s.packet, s.state = "in RST|ACK", Invalid }, "C35"},
			{"forwarded", func(s *seen) { s.hook, s.ended = "forward", "-" }, "C01"},
			{"in another zone", func(s *seen) { s.elsewhere = "tcp 6 300 ESTABLISHED " + fromPeer + fromHost + "zone=7" }, "C14"},
		}},
	{"C36", CauseLateAnswer, certain,
		seen{packet: "in udp 53 40000", how: Logged, state: New, entry: "-", ended: question, listen: "-"}, []string{"nf_conntrack_udp_timeout = 30", "at 12:00:00"},
		[]miss{
			{"of no service", func(s *seen) { s.packet, s.ended = "in udp 5300 40000", "" }, "C20"},
			{"to a service", func(s *seen) { s.packet, s.ended, s.listen = "in udp 53 9102", "", host }, "C19"},
			{"deleted", func(s *seen) { s.ended = questionT }, "C02"},
			{"in another zone", func(s *seen) { s.ended, s.elsewhere = "", question7 }, "C14"},
			{"its end not seen", func(s *seen) { s.ended = "" }, "C36"},
			{"an echo reply", func(s *seen) { s.packet, s.state, s.ended = "in icmp 0", Invalid, "" }, "C36"},
			{"an echo request", func(s *seen) { s.packet, s.ended, s.listen = "in icmp 8", "", "" }, "C19"},
		}},

	{"C21", CauseMissingHelper, likely,
		seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: host, control: ftp, rules: &Rules{}}, []string{"`ct helper \"ftp\"", "Linux 6.0"},
		[]miss{
			{"a helper reads it", func(s *seen) { s.control = ftp + "helper=ftp" }, "C19"},
			{"no such control", func(s *seen) { s.control = strings.Replace(ftp, "dport=21", "dport=22", 1) }, "C19"},
			{"none at all", func(s *seen) { s.control = "-" }, "C19"},
			{"expected, and refused", func(s *seen) { s.state = Related }, "C22"},
			{"a low port", func(s *seen) { s.packet, s.listen = "in udp 40000 161", "-" }, "C20"},
		}},
	{"C37", CauseNotAllowedOut, likely,
		seen{packet: "out SYN", how: Logged, state: New, entry: "-", hook: "output", kernel: "6.12.0-1-amd64"}, []string{"in the chain of the output hook"},
		[]miss{
			{"in", func(s *seen) { s.packet, s.hook, s.listen = "in SYN", "input", host }, "C19"},
			{"known", func(s *seen) { s.packet, s.state, s.entry = "out PSH|ACK", Established, alive }, "C22"},
			{"by the peer", func(s *seen) { s.how, s.icmp, s.hook = ICMPReceived, peer, "" }, "C26"},
			{"forwarded", func(s *seen) { s.hook = "forward" }, "C19"},
		}},
	{"C19", CauseNotAllowed, certain,
		seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: host, rule: "reject with icmpx admin-prohibited"}, []string{"`ct state new tcp dport 9102 accept`"},
		[]miss{
			{"nothing listens", func(s *seen) { s.listen = "-" }, "C20"},
			{"banned", func(s *seen) { s.rule = "ip saddr @bans drop" }, "C30"},
			{"announced", func(s *seen) { s.control = ftp }, "C21"},
			{"UDP", func(s *seen) { s.packet = "in udp" }, "C19"},
			{"forwarded", func(s *seen) { s.listen, s.local = "", "no" }, "C19"},
			{"another protocol", func(s *seen) { s.packet, s.listen = "in proto 47", "" }, "C19"},
		}},
	{"C20", CauseNoService, certain,
		seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: "-", rule: "reject"}, []string{"nothing listens"},
		[]miss{
			{"something listens", func(s *seen) { s.listen = host }, "C19"},
			{"an answer", func(s *seen) { s.packet = "in udp 53 40000" }, "C36"},
			{"its own", func(s *seen) { s.packet, s.hook = "out SYN", "output" }, "C37"},
			{"UDP", func(s *seen) { s.packet = "in udp" }, "C20"},
		}},

	{"C08", CauseClosingEntryEnds, likely, seen{entry: "-", socket: "CLOSE_WAIT"}, []string{"has no entry any more"},
		[]miss{
			{"no entry was looked for", func(s *seen) { s.entry = "" }, ""},
			{"not closing", func(s *seen) { s.socket = "ESTABLISHED" }, ""},
			{"there is a packet", func(s *seen) { s.packet, s.how, s.state = "in PSH|ACK", Logged, New }, "C01"},
		}},
	{"S1", CauseTableFull, certain, seen{how: Counted, counters: counted(conntrack.Stats{Drop: 9, EarlyDrop: 2}), usage: full(1000)},
		[]string{"9 packets were dropped", "nf_conntrack_max=2000"},
		[]miss{
			{"clashes", func(s *seen) { s.counters, s.usage = counted(conntrack.Stats{Drop: 9, InsertFailed: 9}), full(100) }, "S2"},
			{"nothing", func(s *seen) { s.counters, s.usage = counted(conntrack.Stats{}), full(100) }, ""},
			{"long chains", func(s *seen) {
				s.counters, s.usage = counted(conntrack.Stats{InsertFailed: 9, ChainTooLong: 9}), full(100)
			}, "S3"},
			{"full, not counted", func(s *seen) { s.counters = nil }, "S1"},
			{"dropped, not full", func(s *seen) { s.usage = full(100) }, "S1"},
		}},
	{"S3", CauseLongChains, certain, seen{how: Counted, counters: counted(conntrack.Stats{InsertFailed: 4, ChainTooLong: 4}), usage: full(900)},
		[]string{"18.0 links", "nf_conntrack_buckets=1000"},
		[]miss{
			{"clashes", func(s *seen) { s.counters = counted(conntrack.Stats{InsertFailed: 4, Drop: 4}) }, "S2"},
			{"full", func(s *seen) { s.usage = full(1000) }, "S1"},
		}},
	{"S2", CauseInsertFailed, certain, seen{how: Counted, counters: counted(conntrack.Stats{InsertFailed: 4, Drop: 4, ClashResolve: 7})},
		[]string{"4 packets", "7 more clashed", "single-request-reopen"},
		[]miss{
			{"chains", func(s *seen) { s.counters = counted(conntrack.Stats{InsertFailed: 4, ChainTooLong: 4}) }, "S3"},
			{"full", func(s *seen) { s.counters = counted(conntrack.Stats{InsertFailed: 4, Drop: 40}) }, "S1"},
			{"resolved", func(s *seen) { s.counters = counted(conntrack.Stats{ClashResolve: 7}) }, ""},
		}},
	{"C27", CauseRateLimited, certain, seen{how: Counted, counters: &Counters{Window: time.Second, Refused: 226, Errors: 15, RateLimited: 211}},
		[]string{"226 packets were refused and 15 ICMP errors sent", "held back 211"},
		[]miss{
			{"all are told", func(s *seen) { s.counters = &Counters{Refused: 226, Errors: 226} }, ""},
			{"a rule drops", func(s *seen) { s.counters = &Counters{Refused: 226} }, ""},
			{"not counted", func(s *seen) { s.counters = &Counters{Refused: 226, Errors: 15} }, "C27"},
			{"a full table", func(s *seen) { s.usage = full(1000) }, "S1"},
		}},
	{"L1", CauseIdleFlood, certain, seen{load: load(sockdiag.Established, true)}, []string{"192.0.2.7/32 holds 684", "1000 of 1024 descriptors"},
		[]miss{
			{"another state", func(s *seen) { s.load = load(sockdiag.SynRecv, true) }, "L2"},
			{"busy", func(s *seen) { s.load = load(sockdiag.Established, false) }, "L1"},
			{"allowed", func(s *seen) { s.load = &Load{State: sockdiag.Established, Count: 43, Limit: 60} }, ""},
		}},
	{"L2", CauseStatePile, likely, seen{load: load(sockdiag.SynRecv, false)}, []string{"SYN flood", "tcp_syncookies"},
		[]miss{
			{"established", func(s *seen) { s.load = load(sockdiag.Established, true) }, "L1"},
			{"listening", func(s *seen) { s.load = load(sockdiag.Listen, true) }, ""},
			{"allowed", func(s *seen) { s.load = &Load{State: sockdiag.SynRecv, Count: 60, Limit: 60} }, ""},
		}},
}

func TestCauses(t *testing.T) {
	for _, tt := range causeTable {
		t.Run(tt.rule, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				v := explainTwice(t, tt.seen.evidence(t, f))
				if v.Rule != tt.rule || v.Cause != tt.cause || v.Confidence != tt.confidence {
					t.Errorf("got %s %v", v.Rule, v)
				}
				var words []string
				for _, w := range tt.mentions {
					words = append(words, f(w))
				}
				all := v.Text()
				if lack := lacking(all, words); len(lack) > 0 {
					t.Errorf("no word of %q in:\n%s", lack, all)
				}
				for _, m := range tt.misses {
					s := tt.seen
					m.change(&s)
					if v := explainTwice(t, s.evidence(t, f)); v.Rule != m.rule {
						t.Errorf("but %s: got %q %v, want %q", m.name, v.Rule, v, m.rule)
					}
				}
			})
			others := slices.DeleteFunc(slices.Clone(tt.misses), func(m miss) bool { return m.rule == tt.rule })
			if len(others) < 2 {
				t.Errorf("%d near misses", len(others))
			}
		})
	}
}

// Neighbour discovery is of IPv6 alone.
func TestExplainDiscovery(t *testing.T) {
	for _, tt := range []struct {
		seen seen
		rule string
	}{
		{seen{packet: "in icmp 135", how: Logged, state: Untracked}, "C32"},
		{seen{packet: "in icmp 135", how: Logged}, "C32"},
		{seen{packet: "in icmp 8", how: Logged, state: Untracked}, "C23"},
		{seen{packet: "in icmp 8", how: Logged, state: New, entry: "-"}, "C19"},
		{seen{packet: "in udp", how: Logged, state: Untracked}, "C23"},
	} {
		v := explainTwice(t, tt.seen.evidence(t, toIPv6.Replace))
		if v.Rule != tt.rule || len(v.Fix) == 0 || v.Rule == "C32" && v.Cause != CauseDiscovery {
			t.Errorf("%s: %q %v, want %s", tt.seen.packet, v.Rule, v, tt.rule)
		}
	}
}
