// Package conntrack reads and changes the kernel's connection tracking table
// over ctnetlink, and reads its textual forms.
//
// A Flow is one entry: a comparable value with the tuple of the packets of each
// direction, the state, and what the kernel said of it. What it did not say is
// told by Flow.Has: an absent value is not a zero one. What few entries have is
// behind Flow.Details.
//
//	c, err := conntrack.Dial(nil)
//	…
//	for flow, err := range c.All(ctx, nil) {
//		…
//	}
//
// # Reading
//
// All streams in constant memory. Snapshot collects, removes the duplicates a
// dump can contain, and says how complete it is. Parallel reads a large table
// on two sockets, where a second processor is idle. Get looks one entry up.
// Events tells of changes as they happen, who caused them and why an entry
// ended; a Mirror keeps a live copy of the table with counts by state, source
// and service, and catches by a dump now and then what events do not tell.
//
// A Filter, or the expression that ParseFilter reads, is sent to the kernel as
// far as kernels check it rightly, and checked again here; Explain tells which
// part ran where.
//
// Expectations, Stats, Usage and TimeoutPolicies are the tables beside the
// table. ReadFlows and ReadEvents read /proc/net/nf_conntrack and the output of
// conntrack(8), on any operating system; Record keeps flows for later, and
// Replay reads them back the same.
//
// # Safety
//
// In ctnetlink a delete request without a tuple empties the whole table. Delete
// therefore takes a Flow that came from the kernel, always sends its tuple,
// zone and ID, and refuses what lacks them. DeleteAll and DeleteMatching send
// the same requests, many in a datagram; DeleteMatching refuses the zero
// Filter, and checks every flow here, because old kernels ignore the filters
// they do not know. Update looks the entry up first, because the kernel
// compares no ID there. Flush alone asks the kernel to empty the table.
//
// The same holds of expectations and timeout policies: a request to remove one
// always names it, and only FlushExpectations removes all.
//
// # Privileges
//
// Every ctnetlink request, dumps too, takes CAP_NET_ADMIN in the user namespace
// that owns the network namespace. ReadFlows, ReadEvents, ReadSettings,
// ReadStats, ReadUsage and Replay take none.
package conntrack
