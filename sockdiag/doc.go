// Package sockdiag reads the kernel's sockets over sock_diag netlink, the
// interface of ss(8).
//
// A Socket is one row: a comparable value with the addresses, the state, the
// queues and the timer of a TCP socket, and what the kernel told beyond that.
// What it did not tell is named by Socket.Has: an absent value is not a zero
// one.
//
//	c, err := sockdiag.Dial(nil)
//	…
//	q := sockdiag.Query{States: sockdiag.States(sockdiag.CloseWait)}
//	for s, err := range c.All(ctx, q) {
//		…
//	}
//
// All streams in constant memory. Snapshot collects, removes the duplicates a
// dump can contain, and says how complete it is; Aggregate counts by state,
// port, peer or owner without keeping rows, and Compare tells what came, went,
// moved and stalled between two snapshots. Query.Protocol asks for UDP, UDPLite,
// raw, SCTP or MPTCP sockets instead of TCP, and Conn.Unix tells UNIX sockets.
//
// A Filter, or the expression of ss(8) that ParseFilter reads, is compiled to
// the kernel's bytecode as far as that goes, and checked again here; Explain
// tells which part ran where.
//
// ReadSockets reads /proc/net, netstat and ss, on any operating system; Record
// and Replay keep a snapshot; ReadSettings and ReadCounters read what bounds
// sockets and what was dropped. Proc.Holders tells which processes have a
// socket open, and ReadCgroups which unit, container or pod.
//
// # Safety
//
// Without a cookie the kernel may destroy a listener in place of a connection
// that is gone. Destroy and DestroyAll therefore send the cookie of a row always,
// and leave listeners, sockets without a peer and orphans alone unless they are
// asked for. Closed tells of sockets as they end.
//
// # Cost
//
// A dump walks the kernel's whole table of connections, whatever it selects;
// only a query for listeners skips it. Each row that is selected then costs
// less than a microsecond, and Query.Info adds a quarter to it and takes the
// lock of each connection. So ask for the states and ports that matter: the
// kernel selects before it writes a row. To find one socket in a thousand by
// bytecode takes about a fifth of the full dump.
//
// # Privileges
//
// None to look: every user sees the sockets of all users in its network
// namespace, and may ask for a dry run of DestroyAll, for Closed and for
// ReadCgroups. Socket.Mark takes CAP_NET_ADMIN in the user namespace that owns
// the network namespace; without it the field is absent, and a Filter on it is
// refused. Destroying takes the same capability. Proc.Holders sees other users'
// processes with CAP_SYS_PTRACE, and counts those it could not read. To enter
// the namespace named by Config.NetNS takes CAP_SYS_ADMIN there.
package sockdiag
