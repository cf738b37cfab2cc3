package fail2ban

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// jail is what the server says of one.
type jail struct {
	name     string
	banTime  time.Duration // forever if negative
	maxRetry int64
	ignore   []netip.Prefix
	held     map[netip.Prefix]ban.Until
}

func (j *jail) forever() bool { return j.banTime < 0 }

// maxMatches is how many failures an attempt may have to count for: a jail with
// a greater maxretry is one that counts lines.
const maxMatches = 100

// ask reads what a jail is like, and what it holds.
func (c *client) ask(name string) (*jail, error) {
	j := &jail{name: name}
	seconds, err := c.number("get", name, "bantime")
	if err != nil {
		return nil, unknown(err)
	}
	const most = int64(1<<63-1) / int64(time.Second)
	j.banTime = time.Duration(min(seconds, most)) * time.Second
	if seconds < 0 {
		j.banTime = -1
	}
	if j.maxRetry, err = c.number("get", name, "maxretry"); err != nil {
		return nil, err
	}
	ignored, err := c.lines("get", name, "ignoreip")
	if err != nil {
		return nil, err
	}
	for _, s := range ignored {
		if p, ok := source(s); ok {
			j.ignore = append(j.ignore, p)
		}
	}
	return j, c.list(j)
}

// unknown tells a jail that is not there from other errors.
func unknown(err error) error {
	if e, ok := errors.AsType[*serverError](err); ok && strings.HasSuffix(e.class, "UnknownJailException") {
		return fmt.Errorf("%w: %w (enable the jail in jail.d, and: fail2ban-client reload)", ban.ErrNotEnforcing, err)
	}
	return err
}

// list reads what a jail holds.
func (c *client) list(j *jail) error {
	lines, err := c.lines("get", j.name, "banip", "--with-time")
	if err != nil {
		return unknown(err)
	}
	j.held = make(map[netip.Prefix]ban.Until, len(lines))
	for _, line := range lines {
		p, until, ok, err := parseBan(line)
		if err != nil {
			return err
		}
		if ok {
			j.held[p] = until
		}
	}
	return nil
}

// stamp is the time in a list (MyTime.time2str), local to the server.
const stamp = "2006-01-02 15:04:05"

// parseBan reads a line such as
//
//	198.51.100.9 	2026-12-22 20:30:01 + 600 = 2026-12-22 20:40:01
//
// where -1 seconds are for ever. ok is false if it is not a source that is
// banned: jails ban other things too.
func parseBan(line string) (p netip.Prefix, until ban.Until, ok bool, err error) {
	id, rest, _ := strings.Cut(line, "\t")
	if p, ok = source(strings.TrimSpace(id)); !ok {
		return netip.Prefix{}, ban.Until{}, false, nil
	}
	_, rest, found1 := strings.Cut(rest, " + ")
	seconds, end, found2 := strings.Cut(rest, " = ")
	n, err1 := strconv.ParseInt(seconds, 10, 64)
	at, err2 := time.ParseInLocation(stamp, end, time.Local)
	switch {
	case found1 && found2 && err1 == nil && n < 0:
		return p, ban.Forever, true, nil
	case !found1 || !found2 || err1 != nil || err2 != nil:
		return netip.Prefix{}, ban.Until{}, false, fmt.Errorf("ban of %v: no time such as %q in %q", p, stamp+" + 600 = "+stamp, rest)
	}
	return p, ban.At(at), true, nil
}

// source reads an address or a prefix that could be banned.
func source(s string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return ban.Host(a), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Bits() == 0 || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

// ignores returns what of ignoreip is about p, in it or around it.
func (j *jail) ignores(p netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(j.ignore, p.Overlaps)
	if i < 0 {
		return netip.Prefix{}, false
	}
	return j.ignore[i], true
}
