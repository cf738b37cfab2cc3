// Package connsleuth is the map of a library for people who keep Linux hosts
// reachable: it joins the packet that was refused, its conntrack entry, the
// socket, the rule and the settings, and says why, how sure it is, and what to
// change; and it keeps out who floods a host.
//
// The packages:
//
//   - conntrack: the connection tracking table: dump, get, create, delete,
//     events, settings, and its textual forms
//   - sockdiag: the kernel's sockets, with tcp_info
//   - detect: pure detectors over rows of the two
//   - detect/snapshot: what detectors look at, kept in a directory, or read from
//     text that people saved
//   - detect/packet: headers of a captured packet, and of the one an ICMP error
//     quotes; what no healthy TCP sends
//   - detect/nflog: logged packets from the kernel as an iterator
//   - detect/reject: why a packet was refused: evidence, decision table,
//     verdict; Watch does it live
//   - ban: bans, the guard, the jail and the journal in front of a backend; ban/nft,
//     ban/ipset and ban/fail2ban are backends, and ban/cut ends what a banned
//     source has open
//
// Arrows point one way: detect uses the values of conntrack and sockdiag, never
// their sockets, ban knows no detector, and nothing imports the examples.
//
// All of it builds on every operating system. What talks to the kernel is
// Linux only, and answers errors.ErrUnsupported elsewhere; text, packets and
// decisions work everywhere.
package connsleuth
