// Package conntrack reads and changes the kernel's connection tracking table
// over ctnetlink, and reads its textual forms.
//
// A Flow is one entry: a comparable value with the tuple of the packets of each
// direction, the state, and what the kernel said of it. What it did not say is
// told by Flow.Has: an absent value is not a zero one.
//
//	c, err := conntrack.Dial(nil)
//	…
//	for flow, err := range c.All(ctx, nil) {
//		…
//	}
//
// All streams in constant memory. Snapshot collects, removes the duplicates a
// dump can contain, and says how complete it is. ReadFlows reads
// /proc/net/nf_conntrack and the output of conntrack(8), on any operating
// system.
//
// # Safety
//
// In ctnetlink a delete request without a tuple empties the whole table. Delete
// therefore takes a Flow that came from the kernel, always sends its tuple,
// zone and ID, and refuses what lacks them. No call of this package can remove
// an entry that was not asked for.
//
// # Privileges
//
// Every ctnetlink request, dumps too, takes CAP_NET_ADMIN in the user namespace
// that owns the network namespace. ReadFlows and ReadSettings take none.
package conntrack
