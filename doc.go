// Package connsleuth is the map of a library for people who keep Linux hosts
// reachable: it joins the packet that was refused, its conntrack entry, the
// socket and the settings, and says why, how sure it is, and what to change.
//
// The packages:
//
//   - conntrack: the connection tracking table: dump, get, create, delete,
//     events, settings, and its textual forms
//   - sockdiag: the kernel's sockets, with tcp_info
//   - detect: pure detectors over rows of the two
//   - detect/packet: headers of a captured packet, and of the one an ICMP error
//     quotes
//   - detect/nflog: logged packets from the kernel as an iterator
//   - detect/reject: why a packet was refused: evidence, decision table,
//     verdict; Watch does it live
//
// Arrows point one way: detect uses the values of conntrack and sockdiag, never
// their sockets, and nothing imports the examples.
//
// All of it builds on every operating system. What talks to the kernel is
// Linux only, and answers errors.ErrUnsupported elsewhere; text, packets and
// decisions work everywhere.
package connsleuth
