package reject

import (
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// knownCases are of packets whose connection is known, forgotten or new, and of
// no packet.
var knownCases = []causeCase{
	{"C22", CauseRuleOrder, certain,
		seen{packet: "in PSH|ACK", how: Traced, state: Established, entry: served, socket: "ESTABLISHED", rule: "iifname \"eth1\" reject"},
		[]string{"refused by rule handle 12 of inet filter input: iifname \"eth1\" reject"},
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
			{"nobody listened", func(s *seen) { s.listened = 0 }, "C04"},
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
			{"the SYN was sent again", func(s *seen) { s.reason, s.entry, s.ended = "", sentSYN, sentSYN }, "C17"},
			{"the entry has not ended", func(s *seen) { s.reason, s.entry = "", sentSYN }, ""},
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
		seen{packet: "in SYN", how: Traced, state: New, entry: "-", listen: host, rule: "reject with icmpx admin-prohibited"}, []string{" ct state new tcp dport 9102 accept`"},
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
		[]string{"226 packets were refused and 15 ICMP errors sent", "held back 211 (`net.ipv4.icmp_ratelimit`)"},
		[]miss{
			{"all are told", func(s *seen) { s.counters = &Counters{Refused: 226, Errors: 226} }, ""},
			{"a rule drops", func(s *seen) { s.counters = &Counters{Refused: 226} }, ""},
			{"not counted", func(s *seen) { s.counters = &Counters{Refused: 226, Errors: 15} }, "C27"},
			{"counted, and none", func(s *seen) { s.counters, s.kernel = &Counters{Refused: 226, Errors: 15}, "6.12.1" }, ""},
			{"a full table", func(s *seen) { s.usage = full(1000) }, "S1"},
		}},
	{"S4", CauseReversePath, certain, seen{how: Counted, counters: &Counters{Window: time.Second, ReversePath: 7}},
		[]string{"7 packets were dropped because the route to their sender", "net.ipv4.conf.all.rp_filter=2", "log_martians"},
		[]miss{
			{"none", func(s *seen) { s.counters = &Counters{Window: time.Second} }, ""},
			{"a full table", func(s *seen) { s.usage = full(1000) }, "S1"},
			{"there is a packet", func(s *seen) { s.packet, s.how, s.state = "in PSH|ACK", Logged, New }, ""},
		}},
	{"S5", CauseAcceptQueueFull, certain, seen{how: Counted, counters: &Counters{Window: time.Second, Overflows: 7}, listen: "0.0.0.0"},
		[]string{"7 packets of handshakes", "of 0.0.0.0:9102, where 0 wait", "net.core.somaxconn"},
		[]miss{
			{"another drop", func(s *seen) { s.counters = &Counters{ReversePath: 7} }, "S4"},
			{"which is not known", func(s *seen) { s.listen = "" }, "S5"},
			{"there is a packet", func(s *seen) { s.packet, s.how, s.state = "in PSH|ACK", Logged, New }, ""},
		}},
	{"L1", CauseIdleFlood, certain, seen{load: load(sockdiag.Established, true)}, []string{"192.0.2.7 holds 684", "1000 of 1024 descriptors"},
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
