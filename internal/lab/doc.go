// Package lab makes private networks in which incidents can be staged: hosts
// that are network namespaces, veth links between them, rules, sysctls and
// ordinary Go sockets. It needs no root: where it may not make namespaces
// outright, it starts the program again in a user namespace of its own.
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestReject(t *testing.T) {
//		client, server := lab.Two(t)
//		err := server.Rules(t.Context(), nft.Table{…})
//		…
//		conn, err := client.Dial(t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), 80), nil)
//	}
//
// Nothing of it touches the machine's own network, and all of it is gone when
// the Network is closed or the process ends, however it ends.
//
// # How a host differs from a fresh namespace
//
//   - lo is up.
//   - Addresses are usable at once: no duplicate address detection, no router
//     solicitations.
//   - Neighbours are permanent entries, so that no rule set can break ARP or
//     neighbour discovery, and captures hold no such packets.
//   - Every refused packet is answered: net.ipv4.icmp_ratelimit and
//     net.ipv6.icmp.ratelimit are 0. Set them back to see the kernel's limit.
//   - Sockets made by Dial and Listen are plain TCP, not MPTCP, and send no
//     keep-alive probes.
//
// Connections are tracked only in a namespace with a rule that asks for their
// state, or with NAT: until then its conntrack table stays empty. The sysctls
// net.netfilter.nf_conntrack_* can be set before.
//
// Packets cross a link within the system call that sends them, and so may the
// answer. An ICMP error that comes back while connect(2) still holds its socket
// is a soft error (LockDroppedIcmps in /proc/net/netstat): over IPv4 the caller
// learns of it at once, over IPv6 when the next SYN is refused, 1 second later.
//
// # Where namespaces are forbidden
//
// Open and Enter answer a *Forbidden error that says what forbids them and how
// to allow them. Tests are skipped with that text, or fail with it when the
// environment has CONNSLEUTH_LAB=require. On systems other than Linux all of
// the package builds, and Open answers errors.ErrUnsupported.
package lab
