// Package fail2ban bans through fail2ban: by its socket, or by log lines that
// its jails read.
//
// # By the socket
//
//	b, err := fail2ban.Open(ctx, &fail2ban.Config{Jails: []string{"connsleuth", "connsleuth-hour"}})
//	…
//	err = b.Ban(ctx, ban.Entry{Prefix: p, Until: ban.For(now, time.Hour), Reason: "684 connections"})
//
// How long a ban lasts is the jail's to say: its bantime. A ban goes to the jail
// that bans for as long, and is refused where there is none: one for ever wants
// a jail with bantime = -1. Jails with bantime.increment ban for longer than they
// say, and are not for this. A jail's bantime must stay: changing it changes the
// bans that the jail holds, those for ever too. What is banned in one of the jails and now in another is
// lifted there.
//
// A ban is an attempt of the source, with its reason: evidence that actions and
// fail2ban's database keep. The jails' ignoreip is honoured here, as far as it
// has addresses and no names: fail2ban 1.0 does not for attempts, and no
// version does for banip. Own addresses, its ignoreself, are for a ban.Guard to
// keep. The server checks nothing that it is given; what is sent to it are
// addresses and plain text.
//
// The socket is root's. Whoever may write to it may do all that fail2ban does.
//
// # By log lines
//
// AppendBan writes a line that is a ban, and AppendHit one that is counted, as a
// script would that writes one for each TIME_WAIT socket. Files has the filters that read
// them, and jails that use these:
//
//	err := os.CopyFS("/etc/fail2ban", fail2ban.Files())
//
// Whoever may write to a log that a jail reads may ban anybody: make it its
// writer's.
package fail2ban
