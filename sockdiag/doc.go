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
// dump can contain, and says how complete it is.
//
// # Cost
//
// A dump walks the kernel's whole table of connections, whatever it selects;
// only a query for listeners skips it. Each row that is selected then costs
// less than a microsecond, and Query.Info adds a quarter to it and takes the
// lock of each connection. So ask for the states and ports that matter: the kernel selects
// before it writes a row.
//
// # Privileges
//
// None: every user sees the sockets of all users in its network namespace.
// Only Socket.Mark takes CAP_NET_ADMIN in the user namespace that owns the
// network namespace; without it the field is absent. To enter the namespace
// named by Config.NetNS takes CAP_SYS_ADMIN there.
package sockdiag
