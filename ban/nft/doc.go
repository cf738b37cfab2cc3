// Package nft bans in nftables, in a table of its own that needs no cooperation
// of other rules: what it drops is dropped, whatever others accept.
//
//	b, err := nft.Open(ctx, nil)
//	…
//	err = b.Ban(ctx, ban.Entry{Prefix: prefix, Until: ban.For(now, time.Hour), Reason: "…"})
//
// The bans are in the kernel, which ends them by itself; they stay when the
// program ends, and Open finds them again. "nft list table inet connsleuth"
// shows everything.
//
// # What is dropped
//
// Base chains at the hooks input and forward, before those of other programs'
// filters, drop the packets of a banned source, those of its established
// connections too. Replies pass (ct direction reply): connections that this
// host, or one that it forwards for, opens to a banned address go on. A packet
// that belongs to no connection (ct state invalid, untracked) is dropped, but for
// untracked ICMPv6, which is how neighbours find each other.
//
// Which side opened a connection is what connection tracking says. It knows that
// of connections since it runs, which is since the first Open at the latest; of an
// older one the side that sends first from then on has opened it. Packets that
// a flow table forwards (flow add) pass by the hook forward.
//
// # Sets
//
// The bans of each prefix length are in a hash set of their own, such as ipv4_32
// and ipv6_64, in which a packet's masked source address is looked up. So bans
// that contain each other each have an end of their own, and a ban costs the same
// with ten bans and with a million. A packet costs a lookup for each prefix
// length that is or was in use. Hosts and IPv6 /64 are always there; other sets
// come with the first ban of their kind.
//
// An element's comment is the Reason: what is printable of the first 120 bytes,
// with ' for ". Its counter, with Config.Counters, is what was dropped since it was
// last banned: a renewal begins at zero.
//
// # Time
//
// A ban lasts 20 ms at least, and 292 years at most, short of Forever
// (ban.ErrTooLong). It ends within a tick of the kernel's clock (1 to 10 ms) of
// what was asked for, or later by as much as its transaction took.
//
// # Privileges
//
// All calls need CAP_NET_ADMIN in the user namespace that owns the network
// namespace. Without it in the initial user namespace too, a call is sent in
// several transactions where it is larger than net.core.wmem_max.
package nft
