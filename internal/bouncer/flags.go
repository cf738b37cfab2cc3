package bouncer

import (
	"flag"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// Act is whether to act, and how to tell of it.
type Act struct {
	Apply bool
	JSON  bool
}

// Register defines the flags.
func (a *Act) Register(fs *flag.FlagSet) {
	fs.BoolVar(&a.Apply, "apply", false, "do it: takes CAP_NET_ADMIN")
	fs.BoolFunc("dry-run", "say what would be done, and do nothing: the default; the last of -apply and -dry-run counts", func(text string) error {
		dry, err := strconv.ParseBool(text)
		a.Apply = !dry
		return err
	})
	fs.BoolVar(&a.JSON, "json", false, "write one JSON object a line")
}

// Flags are what an example was asked to do.
type Flags struct {
	Act
	Backend  string
	Set      string
	Socket   string // of fail2ban
	Wide     bool   // the jails of fail2ban take prefixes
	Journal  string
	Allow    Prefixes
	Sessions Ports
	BanTime  time.Duration
}

// Register defines the flags, with how long a ban lasts by default.
func (f *Flags) Register(fs *flag.FlagSet, bantime time.Duration) {
	f.Act.Register(fs)
	f.Backend = "nft"
	fs.Func("backend", fmt.Sprintf("`NAME` of what bans with -apply: %s (default %s)", strings.Join(Backends(), ", "), f.Backend), f.setBackend)
	fs.StringVar(&f.Set, "set", "", "`NAME` of the backend's table or set, or of its jails, joined by commas; empty is its own")
	fs.StringVar(&f.Socket, "socket", "", "`PATH` of fail2ban's socket; empty is its own")
	fs.BoolVar(&f.Wide, "jail-prefixes", false, "the actions of fail2ban's jails take prefixes, as IPv6 sources are: those of iptables do")
	fs.StringVar(&f.Journal, "journal", "", "`FILE` that keeps the bans of -apply over a restart; none if empty")
	fs.Var(&f.Allow, "allow", "`PREFIXES` never banned, joined by commas: 203.0.113.43,2001:db8::/48")
	f.Sessions = Ports{22}
	fs.Var(&f.Sessions, "sessions", "`PORTS` of which the peers of live connections are never banned; empty is none")
	fs.DurationVar(&f.BanTime, "bantime", bantime, "`TIME` that a ban lasts; 0 is for ever")
}

func (f *Flags) setBackend(name string) error {
	if _, ok := backends[name]; !ok {
		return fmt.Errorf("want one of %s", strings.Join(Backends(), ", "))
	}
	f.Backend = name
	return nil
}

// Until is the end of a ban that begins now.
func (f *Flags) Until(now time.Time) ban.Until {
	if f.BanTime == 0 {
		return ban.Forever
	}
	return ban.For(now, f.BanTime)
}

// Prefixes is a flag of addresses and prefixes joined by commas. Given again, it
// adds to them.
type Prefixes []netip.Prefix

func (p *Prefixes) String() string { return joined(*p) }

// Set adds prefixes.
func (p *Prefixes) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(word)
		if a, addrErr := netip.ParseAddr(word); addrErr == nil {
			prefix, err = ban.Host(a), nil
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
	if text == "" {
		return nil
	}
	for word := range strings.SplitSeq(text, ",") {
		port, err := strconv.ParseUint(word, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%q is no port from 1 to 65535", word)
		}
		*p = append(*p, uint16(port))
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
