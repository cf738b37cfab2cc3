// Package ipset keeps bans in sets of the kernel's ip_set, for firewalls made
// with iptables: sets that are made here or were made by others, with the
// parameters of ipset(8).
//
//	b, err := ipset.Open(ctx, &ipset.Config{Name: "banned", MaxElem: 1 << 17})
//	…
//	fmt.Println(strings.Join(b.Rules(), "\n"))
//	err = b.Ban(ctx, ban.Entry{Prefix: p, Until: ban.For(now, 270*time.Second), Reason: "Conn Cnt: 684 is greater than limit:60"})
//
// A set drops nothing by itself: rules that refer to it do. Rules returns those
// that are needed, and Enforcing whether there are any. The rules match on the
// original direction of connections, so that what a banned source has open is
// cut and what this host opened to it goes on.
//
// # What the kernel does with a ban
//
//   - Time is counted in seconds. An end is rounded up to the next one, and read
//     back as much as a second early.
//   - A ban that is not for ever lasts 2147483 seconds, 24.8 days, at most. The
//     kernel would silently shorten a longer one (ip_set_timeout_uget): it is
//     refused with ban.ErrTooLong.
//   - An add without a timeout gets that of the set, which may be none. Every add
//     made here has one, and 0 is for ever.
//   - A set does not grow beyond its maxelem: ban.ErrFull. Only a new set has
//     another.
//   - The reason is the entry's comment, 255 bytes at most, where the set has
//     comments.
package ipset
