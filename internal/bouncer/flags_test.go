package bouncer

import (
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

func parse(args ...string) (f Flags, err error) {
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f.Register(set, 270*time.Second)
	return f, set.Parse(args)
}

func TestFlags(t *testing.T) {
	f, err := parse()
	if err != nil || f.Apply || f.JSON || f.Backend != "nft" || !slices.Equal(f.Sessions, Ports{22}) || f.BanTime != 270*time.Second {
		t.Errorf("by default: %+v, %v", f, err)
	}
	f, err = parse("-apply", "-json", "-backend", "ipset", "-set", "banned", "-journal", "j", "-sessions", "2222,22",
		"-socket", "s", "-jail-prefixes",
		"-allow", "203.0.113.43,2001:db8::1/48", "-allow", "::ffff:192.0.2.1", "-bantime", "0")
	if err != nil || !f.Apply || !f.JSON || f.Backend != "ipset" || f.Set != "banned" || f.Journal != "j" || f.Socket != "s" || !f.Wide || f.Sessions.String() != "2222,22" ||
		f.Allow.String() != "203.0.113.43/32,2001:db8::/48,192.0.2.1/32" || f.Until(time.Now()) != ban.Forever {
		t.Errorf("%+v, %v", f, err)
	}
	if now := time.Now(); (&Flags{BanTime: time.Hour}).Until(now) != ban.For(now, time.Hour) {
		t.Error("Until of an hour")
	}
	for _, tt := range []struct {
		args  string
		apply bool
	}{
		{"-dry-run", false}, {"-apply -dry-run", false}, {"-dry-run -apply", true}, {"-apply -dry-run=false", true}, {"-dry-run=false", true},
	} {
		if f, err := parse(strings.Fields(tt.args)...); err != nil || f.Apply != tt.apply {
			t.Errorf("%s: apply %v, %v", tt.args, f.Apply, err)
		}
	}
	if f, err := parse("-sessions", ""); err != nil || len(f.Sessions) != 0 {
		t.Errorf("no sessions: %v, %v", f.Sessions, err)
	}
}

func TestFlagErrors(t *testing.T) {
	for args, want := range map[string]string{
		"-backend iptables":   "fail2ban, ipset, memory, nft",
		"-allow x":            `"x" is neither an address nor a prefix`,
		"-allow 192.0.2.1,":   `"" is neither`,
		"-allow 192.0.2.0/33": `"192.0.2.0/33" is neither`,
		"-sessions ssh":       `"ssh" is no port`,
		"-sessions 0":         `"0" is no port`,
		"-sessions 65536":     `"65536" is no port`,
		"-sessions 22,":       `"" is no port`,
		"-dry-run=perhaps":    "perhaps",
		"-bantime 5":          "bantime",
	} {
		if _, err := parse(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
