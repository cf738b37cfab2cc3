package ipset_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
)

const incident = "create blocked hash:ip family inet hashsize 1024 maxelem 65536 timeout 300 comment"

// TestIncident keeps bans in the set that the incident's script made, and
// compares with what ipset(8) lists.
func TestIncident(t *testing.T) {
	h := newHost(t)
	run(t, h, "ipset "+incident)
	s := open(t, h, ipset.Config{Name: "blocked", Kinds: ipset.Hosts4})
	reason := "Conn Cnt: 684 is greater than limit:60"
	ok(t, s.Ban(t.Context(),
		ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Until: ban.For(time.Now(), 270*time.Second), Reason: reason},
		ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.10/32"), Until: ban.Forever, Reason: `a "quoted" ` + strings.Repeat("€", 200)}))
	out := run(t, h, "ipset list blocked")
	for _, want := range []string{
		`(?m)^198\.51\.100\.9 timeout 2(70|6\d) comment "` + regexp.QuoteMeta(reason) + `"$`,
		`(?m)^198\.51\.100\.10 timeout 0 comment "a 'quoted' €{81}"$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("ipset list: %s\nwant %s", out, want)
		}
	}
	// What the tool adds is listed, and without a timeout it has the set's.
	run(t, h, "ipset add blocked 198.51.100.11")
	e := list(t, s)["198.51.100.11/32"]
	if left, timed := e.Until.Left(time.Now()); !timed || left > 301*time.Second || left < 200*time.Second {
		t.Errorf("added by hand: %v", e)
	}
	err := s.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("2001:db8::1/128"), Until: ban.Forever})
	if failed, only := ban.Failed(err); len(failed) != 1 || !only || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("IPv6 without a set for it: %v", err)
	}
	if got := s.Room(netip.MustParsePrefix("198.51.100.9/32")); got != 65536 {
		t.Errorf("Room = %d", got)
	}
	if got := s.Room(netip.MustParsePrefix("198.51.100.0/24")); got != 0 {
		t.Errorf("Room for what no set is for = %d", got)
	}
}

// TestCreate makes sets as asked for, as ipset(8) shows them.
func TestCreate(t *testing.T) {
	h := newHost(t)
	open(t, h, ipset.Config{Name: "x", HashSize: 4096, MaxElem: 7, Timeout: 299*time.Second + 1, Bits6: 64, Counters: true})
	out := run(t, h, "ipset list -terse")
	for name, want := range map[string]string{
		"x":      "hash:ip family inet hashsize 4096 maxelem 7 timeout 300 counters comment",
		"x-net":  "hash:net family inet hashsize 4096 maxelem 7 timeout 300 counters comment",
		"x6":     "hash:ip family inet6 hashsize 4096 maxelem 7 netmask 64 timeout 300 counters comment",
		"x6-net": "hash:net family inet6 hashsize 4096 maxelem 7 timeout 300 counters comment",
	} {
		typ, params, _ := strings.Cut(want, " ")
		if !strings.Contains(out, fmt.Sprintf("Name: %s\nType: %s\n", name, typ)) {
			t.Errorf("no %s %s in %s", typ, name, out)
		}
		if typ == "hash:ip" && !strings.Contains(out, "Header: "+params) {
			t.Errorf("want %q in %s", params, out)
		}
	}
}

// TestMisfit refuses sets in which bans cannot be kept as they are meant.
func TestMisfit(t *testing.T) {
	h := newHost(t)
	for name, params := range map[string]string{
		"type": "hash:net timeout 0", "family": "hash:ip family inet6 timeout 0", "other": "bitmap:port range 1-9 timeout 0",
		"netmask": "hash:ip netmask 24 timeout 0", "timeout": "hash:ip",
	} {
		run(t, h, "ipset create "+name+" "+params)
		s, err := ipset.Open(t.Context(), &ipset.Config{NetNS: h.NetNS(), Name: name, Kinds: ipset.Hosts4})
		if err == nil {
			t.Errorf("%s: opened", params)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), "set "+name+" exists and is") {
			t.Errorf("%s: %v", params, err)
		}
	}
	// Without comments bans are kept, and no reasons.
	run(t, h, "ipset create plain hash:ip timeout 10")
	s := open(t, h, ipset.Config{Name: "plain", Kinds: ipset.Hosts4})
	p := netip.MustParsePrefix("198.51.100.9/32")
	ok(t, s.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever, Reason: "why"}))
	if e := list(t, s)[p.String()]; e != (ban.Entry{Prefix: p, Until: ban.Forever}) {
		t.Errorf("%v", e)
	}
	if _, _, err := s.Dropped(t.Context(), p); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Dropped of a set without counters: %v", err)
	}
}

// TestException: an entry that exempts is no ban, and becomes one when it is
// banned.
func TestException(t *testing.T) {
	h := newHost(t)
	s := open(t, h, ipset.Config{Name: "x", Kinds: ipset.Nets4})
	run(t, h, "ipset add x-net 198.51.100.0/25 nomatch")
	if got := list(t, s); len(got) != 0 {
		t.Errorf("an exception is listed: %v", got)
	}
	ok(t, s.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.0/25"), Until: ban.Forever}))
	if out := run(t, h, "ipset list x-net"); strings.Contains(out, "nomatch") || len(list(t, s)) != 1 {
		t.Errorf("still an exception: %s", out)
	}
}

// TestReferenced: sets that rules refer to stay.
func TestReferenced(t *testing.T) {
	h := newHost(t)
	s := open(t, h, ipset.Config{Name: "x", Kinds: ipset.Hosts4})
	run(t, h, "ipset create all list:set")
	run(t, h, "ipset add all x")
	ok(t, s.Enforcing(t.Context()))
	if err := s.Purge(t.Context()); err == nil || !strings.Contains(err.Error(), "IPSET_ERR_BUSY") {
		t.Errorf("Purge of a set that is referred to: %v", err)
	}
	run(t, h, "ipset destroy all")
	ok(t, s.Purge(t.Context()))
	ok(t, s.Purge(t.Context())) // it is gone already
	if err := s.Enforcing(t.Context()); !errors.Is(err, ban.ErrNotEnforcing) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Enforcing without the set: %v", err)
	}
	for _, err := range s.List(t.Context()) {
		if !errors.Is(err, ban.ErrNotEnforcing) {
			t.Errorf("List without the set: %v", err)
		}
	}
	err := s.Unban(t.Context(), netip.MustParsePrefix("198.51.100.9/32"))
	if _, only := ban.Failed(err); only || !errors.Is(err, ban.ErrNotEnforcing) {
		t.Errorf("Unban without the set: %v", err)
	}
}

// TestPoison: entries that the kernel refuses, among many that it takes.
func TestPoison(t *testing.T) {
	s := open(t, newHost(t), ipset.Config{})
	zero := netip.MustParsePrefix("0.0.0.0/32") // IPSET_ERR_HASH_ELEM
	var entries []ban.Entry
	for i := range 5000 {
		entries = append(entries, ban.Entry{Prefix: ban.Host(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})), Until: ban.Forever})
	}
	for _, at := range []int{0, 1500, 4999} {
		entries[at].Prefix = zero
	}
	long := netip.MustParsePrefix("198.51.100.1/32")
	entries[1400] = ban.Entry{Prefix: long, Until: ban.For(time.Now(), 2147484*time.Second)}
	entries[1401].Until = ban.For(time.Now(), 2147483*time.Second)
	failed, only := ban.Failed(s.Ban(t.Context(), entries...))
	var got []netip.Prefix
	for _, f := range failed {
		got = append(got, f.Prefix)
	}
	if want := []netip.Prefix{zero, long, zero, zero}; !slices.Equal(got, want) || !only {
		t.Fatalf("refused: %v, want %v", failed, want)
	}
	if !errors.Is(failed[1], ban.ErrTooLong) || !strings.Contains(failed[3].Error(), "IPSET_ERR_HASH_ELEM") {
		t.Errorf("refused: %v", failed)
	}
	in := list(t, s)
	if len(in) != 4996 {
		t.Errorf("%d in force, want 4996", len(in))
	}
	e := in[entries[1401].Prefix.String()]
	if left, timed := e.Until.Left(time.Now()); !timed || left < 2147400*time.Second {
		t.Errorf("the longest ban: %v", e)
	}
}

// TestBrokenOff: a list that is not read to its end leaves nothing behind.
func TestBrokenOff(t *testing.T) {
	s := open(t, newHost(t), ipset.Config{Kinds: ipset.Hosts4 | ipset.Nets4})
	for _, p := range []string{"198.51.100.9/32", "198.51.100.10/32", "198.51.100.0/24"} {
		ok(t, s.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix(p), Until: ban.Forever}))
	}
	n := 0
	for range s.List(t.Context()) {
		n++
		break
	}
	if n != 1 || len(list(t, s)) != 3 {
		t.Errorf("%d and %v", n, list(t, s))
	}
	if _, _, err := s.Dropped(t.Context(), netip.MustParsePrefix("198.51.100.11/32")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dropped of what is not banned: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	for want, cfg := range map[string]*ipset.Config{
		"27 bytes":           {Name: strings.Repeat("x", 27)},
		"kinds 0x10":         {Kinds: ipset.Nets6 << 1},
		"prefix length 129":  {Bits6: 129},
		"want 0 to 2147483":  {Timeout: 2147484 * time.Second},
		"timeout -1s":        {Timeout: -time.Second},
		"no such file or di": {NetNS: "/nonexistent"},
	} {
		if _, err := ipset.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", cfg, err, want)
		}
	}
}
