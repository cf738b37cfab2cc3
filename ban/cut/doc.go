// Package cut ends what a banned source has open: it destroys the sockets of its
// connections to this host and deletes their conntrack entries, looks again, and
// reports what was done, what was gone already, and what is left.
//
//	c := &cut.Cutter{Conntrack: ct, Sockets: diag}
//	preview, err := c.Preview(ctx, prefixes...)     // what a ban would end
//	…
//	err = backend.Ban(ctx, entries...)              // first keep it out
//	report, err := c.Sources(ctx, nil, prefixes...) // then end what it has
//
// # What is cut, and what is left alone
//
// Connections that the source made to this host. Those that this host made to
// the source are left, unless Options.Outbound: a ban keeps a source from coming
// in, and package ban/nft lets its answers pass.
//
// Entries of connections that this host only forwards are left, too, unless
// Options.Forwarded, and the ban holds them: its rule drops what the source
// sends. Without its entry, the next packet of the other end would be picked up
// in the middle (net.netfilter.nf_conntrack_tcp_loose), as a connection which
// that end began: the source's packets would then be its answers, which pass.
//
// For the same reason sockets go before entries: a socket that still has
// something to send would make such an entry.
package cut
