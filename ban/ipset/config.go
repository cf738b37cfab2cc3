package ipset

import (
	"fmt"
	"math"
	"time"
)

// Config is which sets are used, and how those that do not exist are made. The
// parameters of a set that exists stay as they are.
type Config struct {
	// NetNS is the path of the network namespace, such as /run/netns/blue;
	// empty is that of the calling thread.
	NetNS string
	// Name is that of the set for Hosts4, and begins those of the others: see
	// Kinds. At most 26 bytes; empty is "connsleuth".
	Name string
	// Kinds is which sets there are; 0 is all. What none is for is refused with
	// errors.ErrUnsupported.
	Kinds Kinds
	// HashSize is the number of buckets to begin with, 1024 if 0; the kernel
	// doubles it when needed. MaxElem is for how many bans each set has room,
	// 65536 if 0.
	HashSize, MaxElem uint32
	// Timeout is how long an entry stays that others add without saying it, up
	// to 2147483 seconds; 0 is for ever. Bans made here always say it.
	Timeout time.Duration
	// Bits6 is the prefix length of what Hosts6 holds: 128, or another such as
	// 64, so that a lookup for /64 does not depend on which other lengths
	// Nets6 has; 0 is 128.
	Bits6 int
	// Counters counts what each entry matched, for Dropped.
	Counters bool
}

// Kinds is a choice of sets.
type Kinds uint8

// The sets. Those of prefixes take hosts too where the set of hosts was not
// chosen.
const (
	Hosts4 Kinds = 1 << iota // NAME, hash:ip family inet
	Nets4                    // NAME-net, hash:net family inet
	Hosts6                   // NAME6, hash:ip family inet6
	Nets6                    // NAME6-net, hash:net family inet6
)

const (
	defaultName = "connsleuth"
	maxName     = 31       // IPSET_MAXNAMELEN without its NUL
	maxTimeout  = 2147483  // IPSET_MAX_TIMEOUT, seconds
	maxComment  = 255      // IPSET_MAX_COMMENT_SIZE
	longest     = "6-net"  // what a Name may be followed by
	hashSize    = 1024     // of hash sets (IPSET_DEFAULT_HASHSIZE)
	maxElem     = 64 << 10 // of hash sets (IPSET_DEFAULT_MAXELEM)
	allKinds    = Nets6<<1 - 1
)

// check fills in what is not said.
func (c Config) check() (Config, error) {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.Kinds == 0 {
		c.Kinds = allKinds
	}
	if c.HashSize == 0 {
		c.HashSize = hashSize
	}
	if c.MaxElem == 0 {
		c.MaxElem = maxElem
	}
	if c.Bits6 == 0 {
		c.Bits6 = 128
	}
	switch seconds := math.Ceil(c.Timeout.Seconds()); {
	case len(c.Name)+len(longest) > maxName:
		return c, fmt.Errorf("name %q: %d bytes, at most %d", c.Name, len(c.Name), maxName-len(longest))
	case c.Kinds > allKinds:
		return c, fmt.Errorf("kinds %#x: there are only %#x", c.Kinds, allKinds)
	case c.Bits6 < 1 || c.Bits6 > 128:
		return c, fmt.Errorf("prefix length %d of hosts: want 1 to 128", c.Bits6)
	case seconds < 0 || seconds > maxTimeout:
		return c, fmt.Errorf("timeout %v of the sets: want 0 to %d s", c.Timeout, maxTimeout)
	}
	return c, nil
}
