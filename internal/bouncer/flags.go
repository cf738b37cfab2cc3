package bouncer

import (
	"flag"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Flags are what an example was asked to do.
type Flags struct {
	Apply    bool
	JSON     bool
	Backend  string
	Set      string
	Journal  string
	Allow    Prefixes
	Sessions Ports
	Every    time.Duration
	Rounds   int
	NetNS    string
}

// Register defines the flags, with how often the example looks by default.
func (f *Flags) Register(fs *flag.FlagSet, every time.Duration) {
	fs.BoolVar(&f.Apply, "apply", false, "do it")
	fs.BoolFunc("dry-run", "say what would be done, and do nothing: the default; the last of -apply and -dry-run counts", func(text string) error {
		dry, err := strconv.ParseBool(text)
		f.Apply = !dry
		return err
	})
	fs.BoolVar(&f.JSON, "json", false, "write one JSON object a line")
	fs.StringVar(&f.Backend, "backend", "nft", "`NAME` of what bans: "+strings.Join(Backends(), ", "))
	fs.StringVar(&f.Set, "set", "", "`NAME` of the backend's table, set or jail; empty is its own")
	fs.StringVar(&f.Journal, "journal", "", "`FILE` that keeps the bans over a restart; none if empty")
	fs.Var(&f.Allow, "allow", "`PREFIXES` never banned, joined by commas: 203.0.113.43,2001:db8::/48")
	f.Sessions = Ports{22}
	fs.Var(&f.Sessions, "sessions", "`PORTS` of which the peers of live connections are never banned")
	fs.DurationVar(&f.Every, "every", every, "`TIME` between two looks")
	fs.IntVar(&f.Rounds, "rounds", 0, "`N` looks and no more; 0 is no end, 1 is once")
}

// Prefixes is a flag of addresses and prefixes joined by commas.
type Prefixes []netip.Prefix

func (p *Prefixes) String() string { return joined(*p) }

// Set adds prefixes.
func (p *Prefixes) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(word)
		if a, addrErr := netip.ParseAddr(word); addrErr == nil {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a prefix such as 203.0.113.0/24", word)
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// Ports is a flag of ports joined by commas. Setting it replaces the default.
type Ports []uint16

func (p *Ports) String() string { return joined(*p) }

// Set replaces the ports.
func (p *Ports) Set(text string) error {
	*p = nil
	for word := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddrPort("0.0.0.0:" + word)
		if err != nil || a.Port() == 0 {
			return fmt.Errorf("%q is no port from 1 to 65535", word)
		}
		*p = append(*p, a.Port())
	}
	return nil
}

func joined[T any](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ",")
}
