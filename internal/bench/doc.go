// Command bench does the same work with this library, with its peers and with
// conntrack(8), ss(8) and nft(8), and prints what each took: one table for flows, one
// for sockets, one for ending connections, three for bans.
//
//	go -C internal/bench run . [-n 100000] [-rounds 5] [-only REGEXP]
//
// Dumps are compared with their floor: the same request, read with bare
// read(2) calls and thrown away. Deletes find and remove every entry, one
// request each (DeleteAll: in batches), and are compared with DeleteAll; so are
// the connections that are destroyed, a 25th of the sockets.
//
// Bans are made, listed and made anew in the same set of nftables by all, and what
// each has left is counted; the time of opening a connection is left out, and so
// is that of writing the file of nft -f.
//
// Each table is that of a private namespace, and each piece of work is done by a
// fresh process in it. All take turns, round by round: wall, the ratio and the
// rest are medians over the rounds. The CPU columns are processor time inside
// and outside the kernel, by entry. RSS is the most memory the process had
// resident; an idle Go program has about 5 MB.
//
// It is a module of its own, so that importers of the library need none of its
// peers. It needs no root where user namespaces are allowed.
package main
