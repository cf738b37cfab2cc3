// Package ban keeps sources out: what a ban is, who may never be banned, when
// one is due, and how it outlives a restart. Where it is enforced is a Backend's
// business: packages ban/nft, ban/ipset and ban/fail2ban, and Memory for tests
// and dry runs. Package ban/cut ends what a banned source has open already.
//
//	guard := …                      // never the gateway, the resolver, this session
//	jail  := …                      // 40 TIME_WAIT in 750 s
//	b, err := nft.Open(ctx, nil)
//	…
//	for _, e := range jail.Add(now, hits...) {
//		if err := guard.Check(now, e); err != nil { … }
//	}
//	err = b.Ban(ctx, entries...)
//
// # Time
//
// A ban lasts until an instant or for ever, and Forever is a value of its own:
// the zero Until is no time at all and is refused everywhere, because where a
// lost timeout means "never expires" (nftables, ipset) it would lock a source
// out for good.
package ban
