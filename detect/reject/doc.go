// Package reject says why a packet was refused.
//
// Explain is the decision table: Evidence goes in, which is the packet and what
// the host knew of its connection, and a Verdict comes out: the cause, how sure
// it is, the facts it rests on, the facts that are missing, the one command
// that would decide, and what to change. It is pure.
//
// Watch gathers the evidence live: it reads the packets that the firewall logs
// before it rejects them (NFLOG), the kernel's own reason for calling a packet
// INVALID, the ICMP errors and RSTs that go out and come in, the conntrack entry,
// also behind a translation or in another zone, the entries that ended lately,
// the socket or listener, rules, counters and settings, and yields one Verdict
// per refused connection with a count. It also tells of packets that only the
// kernel's counters saw.
//
//	for v, err := range reject.Watch(ctx, &reject.Config{Install: &reject.Install{}}) {
//		…
//		fmt.Println(v)
//	}
//
// With Config.Install it makes a table of nftables of its own for that, whose
// rules only log and trace, and leaves nothing behind: see Install. Config.Plan
// shows what it would add. Without, it reads what the firewall's own rules log.
//
// # Without Install
//
// Nothing is added to the host then, and Config.Groups names the groups that the
// firewall's own rules log to. What they have to log:
//
// The packet before it is refused, in a rule for each conntrack state, with the
// state as a word of the prefix:
//
//	ct state invalid log prefix "invalid " group 50
//	ct state new     log prefix "new "     group 50
//	reject with icmpx admin-prohibited
//
// And ICMP errors, on their way in and out, which are the only word of what
// others refuse. Of those that it sends itself the kernel leaves most out
// (net.ipv4.icmp_ratelimit), so they are confirmation at best:
//
//	icmp type destination-unreachable   log group 50
//	icmpv6 type destination-unreachable log group 50
//
// And, where a rule rejects with a TCP reset, the RSTs that this host sends, in a
// chain of the output hook, with a prefix that names no state: those that answer
// what was refused are told from those of the kernel itself.
//
//	tcp flags rst / rst log group 50
//
// With Config.Reasons the kernel's own reason is read too, once the sysctls that
// package nflog names are set. It is the best evidence there is.
package reject
