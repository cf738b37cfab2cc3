package reject

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
	sentSYN   = "tcp 6 119 SYN_SENT " + fromHost + "[UNREPLIED] " + fromPeer + "use=1"
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

// strayCases are of packets that others refused, that rules refuse for their
// own sake, and that are INVALID.
var strayCases = []causeCase{
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
		[]string{"rule handle 12 of inet filter input: ip saddr @bans counter drop", "`nft delete element inet filter bans { " + peer + " }`"},
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
		seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: "-", elsewhere: zone7, socket: "SYN_RECV",
			rules: &Rules{Zone: "iifname eth0 ct zone set 7"}}, []string{"`ct zone set 7`", "zone assigned by: iifname eth0 ct zone set 7"},
		[]miss{
			{"no zone, an exemption", func(s *seen) { s.entry, s.elsewhere, s.rules = asked, "", &Rules{Notrack: "tcp sport 9102 notrack"} }, "C15"},
			{"no zone, forwarded", func(s *seen) { s.entry, s.elsewhere, s.hook, s.socket = asked, "", "forward", "" }, "C16"},
			{"its SYN|ACK", func(s *seen) { s.packet, s.reason, s.elsewhere, s.socket = "in SYN|ACK", reasonNew, sent7, "SYN_SENT" }, "C14"},
			{"its SYN|ACK, in no zone", func(s *seen) { s.packet, s.reason, s.elsewhere, s.socket = "in SYN|ACK", reasonNew, "", "SYN_SENT" }, "C17"},
			{"an exemption beside zones", func(s *seen) { s.rules = &Rules{Notrack: "tcp sport 9102 notrack", Zone: "ct zone set 7"} }, "C15"},
			{"the SYN|ACK looked up elsewhere, whatever rules exempt", func(s *seen) {
				s.answer, s.rules = reasonNew, &Rules{Notrack: "udp dport 53 notrack", Zone: "ct zone set 7"}
			}, "C14"},
			{"rules not known", func(s *seen) { s.rules = nil }, "C14"},
			{"rules assign zones", func(s *seen) { s.entry, s.elsewhere, s.rules = asked, "", &Rules{Zone: "oifname eth1 ct zone set 7"} }, "C14"},
			{"a new SYN", func(s *seen) { s.packet, s.reason, s.state, s.listen = "in SYN", "", New, host }, "C19"},
		}},
	{"C15", CauseUntrackedReturn, certain,
		seen{packet: "in ACK", how: Logged, state: Invalid, reason: reasonHalf, entry: asked, socket: "SYN_RECV", rules: &Rules{Notrack: "tcp sport 9102 notrack"}},
		[]string{"by tcp sport 9102 notrack"},
		[]miss{
			{"in a zone", func(s *seen) { s.entry, s.rules = zone7, nil }, "C14"},
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
}
