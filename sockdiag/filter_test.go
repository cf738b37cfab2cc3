package sockdiag

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// fixedNames are names that no host has to know.
var fixedNames = Names{
	Interface: func(name string) (uint32, error) {
		return uint32(len(name)), lookup(name != "none")
	},
	Service: func(name string) (uint16, error) {
		return map[string]uint16{"ssh": 22, "https": 443}[name], lookup(name == "ssh" || name == "https")
	},
	Cgroup: func(path string) (uint64, error) {
		return uint64(len(path)), lookup(path != "/none")
	},
}

func lookup(ok bool) error {
	if ok {
		return nil
	}
	return fs.ErrNotExist
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestParseFilter(t *testing.T) {
	ssh, web := LocalPort(Equal, 22), RemotePort(Equal, 443)
	ten := Local(prefix("10.0.0.0/8"))
	for text, want := range map[string]Filter{
		"":                          {},
		" \t\n":                     {},
		"src *":                     {},
		"dst :* and sport *":        {},
		"sport = :22":               ssh,
		"sport == :ssh":             ssh,
		"sport eq ssh":              ssh,
		"sport :22":                 ssh,
		"sport 0x16":                ssh,
		"sport=:22":                 ssh,
		"src :22":                   ssh,
		"src = *:ssh":               ssh,
		"sport != 22":               LocalPort(NotEqual, 22),
		"sport neq 22":              LocalPort(NotEqual, 22),
		"sport ne 22":               LocalPort(NotEqual, 22),
		"dport >= :1024":            RemotePort(GreaterOrEqual, 1024),
		"dport geq 1024":            RemotePort(GreaterOrEqual, 1024),
		"dport ge 1024":             RemotePort(GreaterOrEqual, 1024),
		"dport <= 1024":             RemotePort(LessOrEqual, 1024),
		"dport leq 1024":            RemotePort(LessOrEqual, 1024),
		"dport le 1024":             RemotePort(LessOrEqual, 1024),
		"dport > 1024":              RemotePort(Greater, 1024),
		"dport gt 1024":             RemotePort(Greater, 1024),
		"dport<1024":                RemotePort(Less, 1024),
		"dport lt 1024":             RemotePort(Less, 1024),
		"src 10/8":                  ten,
		"src = 10.0.0.0/8":          ten,
		"src 10.1.2.3/8":            ten,
		"src 10/255.0.0.0":          ten,
		"src inet:10/8":             And(OfFamily(IPv4), ten),
		"src inet6:*":               OfFamily(IPv6),
		"src 10/8:22":               And(ten, ssh),
		"src 10.1:22":               And(Local(prefix("10.1.0.0/32")), ssh),
		"src != 10/8":               Not(ten),
		"src default":               {},
		"dst [::1]":                 Remote(prefix("::1/128")),
		"dst [::1]:443":             And(Remote(prefix("::1/128")), web),
		"dst [2001:db8::/32]":       Remote(prefix("2001:db8::/32")),
		"dst 2001:db8::/32":         Remote(prefix("2001:db8::/32")),
		"dst [2001:db8::]/32:https": And(Remote(prefix("2001:db8::/32")), web),
		"dst 2001:db8::/32:443":     And(Remote(prefix("2001:db8::/32")), web),
		"dst [::ffff:10.0.0.1]":     Remote(netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 128)),
		"dev eth0":                  OnInterface(4),
		"dev = 7":                   OnInterface(7),
		"dev != lo":                 Not(OnInterface(2)),
		"fwmark 0x1/0xff":           HasMark(1, 255),
		"fwmark = 7":                HasMark(7, 1<<32-1),
		"fwmark != 7":               Not(HasMark(7, 1<<32-1)),
		"cgroup /a/b":               cgroupFilter(4, "/a/b"),
		`cgroup = /a=(b)&c\ d`:      cgroupFilter(10, "/a=(b)&c d"),
		`cgroup /a\\b`:              cgroupFilter(4, `/a\b`),
		strings.Repeat("( sport 22 ) ", 1001) + "uid = 0": And(append(slices.Repeat([]Filter{ssh}, 1001), OfUser(0))...),
		"cgroup != id:9":                                     Not(InCgroup(9)),
		`cgroup \id:9`:                                       cgroupFilter(4, "id:9"),
		"uid 1000 inode = 7 cookie 0x1f":                     And(OfUser(1000), HasInode(7), HasCookie(31)),
		"uid != 0":                                           Not(OfUser(0)),
		"autobound":                                          IsAutobound(),
		"not autobound":                                      Not(IsAutobound()),
		"! ! autobound":                                      IsAutobound(),
		"state established":                                  InState(States(Established)),
		"state listen state CLOSE-WAIT":                      InState(States(Listen, CloseWait)),
		"state syn-rcv":                                      InState(States(SynRecv)),
		"state new-syn-recv":                                 InState(States(SynRecv)),
		"exclude listening":                                  InState(allStates &^ States(Listen)),
		"excl listening excl time-wait":                      InState(allStates &^ States(Listen, TimeWait)),
		"state connected exclude syn-sent":                   InState(Synchronized),
		"state bucket":                                       InState(States(SynRecv, TimeWait)),
		"state big":                                          InState(allStates &^ States(SynRecv, NewSynRecv, TimeWait)),
		"state all":                                          InState(allStates),
		"state bound-inactive":                               InState(States(BoundInactive)),
		"state established sport = :22":                      And(InState(States(Established)), ssh),
		"sport 22 dport 443":                                 And(ssh, web),
		"sport 22 & dport 443":                               And(ssh, web),
		"sport 22 && dport 443":                              And(ssh, web),
		"sport 22&&dport 443":                                And(ssh, web),
		"sport 22 | dport 443":                               Or(ssh, web),
		"sport 22 || dport 443 or src 10/8":                  Or(ssh, web, ten),
		"sport 22 or dport 443 and src 10/8":                 And(Or(ssh, web), ten), // from left to right
		"sport 22 and dport 443 or src 10/8":                 Or(And(ssh, web), ten),
		"sport 22 or ( dport 443 and src 10/8 )":             Or(ssh, And(web, ten)),
		"(sport=22)or(dport=443)":                            Or(ssh, web),
		"not sport 22 and dport 443":                         And(Not(ssh), web),
		"not ( sport 22 and dport 443 )":                     Not(And(ssh, web)),
		"sport 22 and ( dport 443 and src 10/8 )":            And(ssh, web, ten),
		"state established ( dport = :ssh or sport = :ssh )": And(InState(States(Established)), Or(RemotePort(Equal, 22), ssh)),
	} {
		got, err := fixedNames.ParseFilter(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if again, err := fixedNames.ParseFilter(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q and read as %q: %v", text, got, again, err)
		}
	}
}

func TestParseFilterErrors(t *testing.T) {
	for text, want := range map[string]FilterError{
		"sport":                      {6, "", "the filter ends too early", ":443", nil},
		"sport =":                    {8, "", "ends too early", ":443", nil},
		"sport = and":                {9, "and", "a port is missing", ":443", nil},
		"sport = 65536":              {9, "65536", "no port", "65535", fs.ErrNotExist},
		"sport = :nothing":           {9, ":nothing", "no port", "service", fs.ErrNotExist},
		"sport < *":                  {9, "*", "any port", "", nil},
		"dst 10.0.0.0/33":            {5, "10.0.0.0/33", "length", "0 to 32", nil},
		"dst 10.0.0.0/255.0.255.0":   {5, "10.0.0.0/255.0.255.0", "length", "", nil},
		"dst ::1":                    {5, "::1", "brackets", "[2001:db8::1]:443", nil},
		"dst fe80::1:80":             {5, "fe80::1:80", "brackets", "", nil},
		"dst [::1":                   {5, "[::1", "brackets", "", nil},
		"dst [fe80::1%eth0]":         {5, "[fe80::1%eth0]", "dev", "", nil},
		"dst example.org":            {5, "example.org", "no address", "10.0.0.0/8", nil},
		"dst unix:/run/x":            {5, "unix:/run/x", "no address", "", nil},
		"dst < 10.0.0.1":             {5, "<", "only ports", "=, !=", nil},
		"dst":                        {4, "", "ends too early", "", nil},
		"dev none":                   {5, "none", "no interface", "index", fs.ErrNotExist},
		"fwmark 1/2/3":               {8, "1/2/3", "no number of 32 bits", "0x0a", nil},
		"fwmark 0b1":                 {8, "0b1", "no number", "", nil},
		"uid -1":                     {5, "-1", "no number", "", nil},
		"uid 1_0":                    {5, "1_0", "no number", "", nil},
		"cookie 0x1ffffffffffffffff": {8, "0x1ffffffffffffffff", "64 bits", "", nil},
		"cgroup":                     {7, "", "ends too early", "path", nil},
		"cgroup = /none":             {10, "/none", "no cgroup", "id:", fs.ErrNotExist},
		"cgroup id:x":                {8, "id:x", "no number", "", nil},
		"state":                      {6, "", "ends too early", "connected", nil},
		"state open":                 {7, "open", "no state", "syn-sent", nil},
		"frob 1":                     {1, "frob", "no condition", "sport", nil},
		`\sport 1`:                   {1, "sport", "no condition", "sport", nil},
		"sport 1 2":                  {9, "2", "no condition", "", nil},
		"( sport 1":                  {10, "", "ends too early", ")", nil},
		"sport 1 )":                  {9, ")", "no condition begins here", "", nil},
		"()":                         {2, ")", "no condition", "", nil},
		"and sport 1":                {1, "and", "no condition", "", nil},
		"sport 1 or":                 {11, "", "ends too early", "not", nil},
		"sport 1 or or":              {12, "or", "no condition", "", nil},
		"not":                        {4, "", "ends too early", "", nil},
		strings.Repeat("sport 1 or uid 2 and ", 501) + "uid 1": {1, "", "nested", "", nil},
		strings.Repeat("(", 2000):                              {1001, "(", "nested", "", nil},
	} {
		f, err := fixedNames.ParseFilter(text)
		var got *FilterError
		if !errors.As(err, &got) {
			t.Errorf("%.40q: %v, %v; want a *FilterError", text, f, err)
			continue
		}
		if f != (Filter{}) || got.Column != want.Column || got.Token != want.Token || !errors.Is(err, want.Err) && want.Err != nil ||
			!strings.Contains(got.Problem, want.Problem) || !strings.Contains(got.Accepted, want.Accepted) {
			t.Errorf("%.40q: %+v, want %+v", text, *got, want)
		}
		if s := err.Error(); !strings.HasPrefix(s, "sockdiag: filter: column ") || !strings.Contains(s, want.Problem) {
			t.Errorf("%.40q: %s", text, s)
		}
	}
}

// TestFilterDeep: what nests as deep as can be read is written so that it is read
// again.
func TestFilterDeep(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("sport 1 or uid 2 and ", 499) + "uid 1",
		strings.Repeat("not ( uid 1 and ", 499) + "uid 2" + strings.Repeat(")", 499),
		strings.Repeat("(", 999) + "uid 2" + strings.Repeat(")", 999),
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseFilter(f.String()); err != nil || back != f {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// TestFilterString writes what ss takes.
func TestFilterString(t *testing.T) {
	for want, f := range map[string]Filter{
		"":            {},
		"exclude all": Or(),
		"state established sport = :22 and dport > :1": And(InState(States(Established)), LocalPort(Equal, 22), RemotePort(Greater, 1)),
		"state closed state listening":                 InState(States(Listen, Close)),
		"exclude time-wait exclude listening":          InState(allStates &^ States(Listen, TimeWait)),
		"state closing and state closed and uid = 1":   And(InState(States(Closing)), InState(States(Close)), OfUser(1)),
		"not ( src 10.0.0.0/8 or dst [::1] )":          Not(Or(Local(prefix("10.0.0.0/8")), Remote(prefix("::1/128")))),
		"fwmark = 0x1/0xff and dev = 2":                And(HasMark(1, 255), OnInterface(2)),
		"cgroup = id:5 or cookie = 0x1f":               Or(InCgroup(5), HasCookie(31)),
		"src inet:* and inode = 3":                     And(OfFamily(IPv4), HasInode(3)),
	} {
		if f.String() != want {
			t.Errorf("%q, want %q", f, want)
		}
		var back Filter
		if text, err := f.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != f {
			t.Errorf("%q: read as %q, %v", text, back, err)
		}
	}
	f := OfUser(1)
	if err := f.UnmarshalText([]byte("frob")); err == nil || f != OfUser(1) {
		t.Errorf("%v, %v: want an error and the old filter", f, err)
	}
}

// TestFilterIdentities: filters are equal when they are written the same.
func TestFilterIdentities(t *testing.T) {
	a, b, c := OfUser(1), OfUser(2), OfUser(3)
	q, same := Query{Filter: And(a, b)}, Query{Filter: And(OfUser(1), OfUser(2))}
	for name, ok := range map[string]bool{
		"and is flat":        And(And(a, b), c) == And(a, And(b, c)) && And(a, b, c) == And(a, And(b, c)),
		"or is flat":         Or(Or(a, b), c) == Or(a, Or(b, c)),
		"order counts":       And(a, b) != And(b, a),
		"one":                And(a) == a && Or(a) == a,
		"everything":         And() == Filter{} && And(Filter{}, a) == a && Or(Filter{}, a) == Filter{},
		"nothing":            Or() == Not(Filter{}) && Not(Not(a)) == a,
		"host bits":          Local(prefix("10.1.2.3/8")) == Local(prefix("10.0.0.0/8")),
		"invalid":            Local(netip.Prefix{}) == Or() && LocalPort(6, 1) == Or() && OfFamily(1) == Or(),
		"queries compare":    q == same,
		"comparison strings": GreaterOrEqual.String() == ">=" && Comparison(6).String() == "Comparison(6)",
	} {
		if !ok {
			t.Error(name)
		}
	}
}

func TestFilterMatch(t *testing.T) {
	v4, v6 := numbered(IPv4, 443), numbered(IPv6, 443)
	v4.UID, v4.Mark, v4.CgroupID, v4.Fields, v4.Interface = 7, 0x1f, 9, FieldMark|FieldCgroup, 2
	mapped := v4
	mapped.Family = IPv6
	timeWait := v4
	timeWait.State, timeWait.Inode, timeWait.UID, timeWait.Mark, timeWait.CgroupID, timeWait.Fields = TimeWait, 0, 0, 0, 0, 0
	high := v4
	high.Local = netip.AddrPortFrom(v4.Local.Addr(), 40000)
	rows := []Socket{v4, v6, mapped, timeWait, high}
	for text, want := range map[string]string{
		"":                               "11111",
		"sport = 80":                     "11110",
		"sport < 80 or sport > 40000":    "00000",
		"sport <= 80":                    "11110",
		"sport >= 81":                    "00001",
		"dport = 443 and not sport = 80": "00001",
		"src 192.0.2.0/24":               "10111",
		"src 0.0.0.0/0":                  "10111",
		"src [::]/0":                     "01100",
		"src [::ffff:0:0]/96":            "00100",
		"src [::ffff:192.0.2.0]/120":     "00100",
		"dst [2001:db8::2]":              "01000",
		"not dst [2001:db8::2]":          "10111",
		"src inet:*":                     "10011",
		"dev = 2":                        "10111",
		"dev = 0":                        "01000",
		"fwmark = 0xf/0xf":               "10101",
		"not fwmark = 0xf/0xf":           "00000", // not known of the others
		"fwmark = 0 or not fwmark = 0":   "10101",
		"cgroup id:9":                    "10101",
		"cgroup != id:9":                 "00000",
		"uid = 7":                        "10101",
		"uid = 0":                        "01000", // TimeWait has no user
		"not uid = 7":                    "01000",
		"inode = 0":                      "00010",
		"cookie = 443":                   "11111",
		"autobound":                      "00001",
		"not autobound":                  "11110",
		"state time-wait":                "00010",
		"exclude time-wait":              "11101",
		"not ( uid = 7 or sport = 80 )":  "00000",
		"not ( uid = 7 and sport = 80 )": "01001",
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for i := range rows {
			got.WriteString(map[bool]string{true: "1", false: "0"}[f.Match(&rows[i])])
		}
		if got.String() != want {
			t.Errorf("%q: %s, want %s", text, got.String(), want)
		}
	}
	inactive := InState(States(BoundInactive))
	if s := (Socket{State: Close}); !inactive.Match(&s) || inactive.Match(&v4) {
		t.Error("BoundInactive is shown as Close")
	}
}

const everyCondition = "state connected ( sport < 1024 or dst 10/8 or dst [2001:db8::]/32 ) and not ( uid = 7 and fwmark = 1 ) " +
	"and ! dev = 9 and cookie != 1 and not autobound and not cgroup id:7"

// TestFilterAllocations: to match allocates nothing.
func TestFilterAllocations(t *testing.T) {
	f, err := ParseFilter(everyCondition)
	if err != nil {
		t.Fatal(err)
	}
	s := withInfo(established, numberedInfo())
	s.Local = netip.AddrPortFrom(s.Local.Addr(), 80)
	s.Fields, s.Mark, s.CgroupID, s.Inode = s.Fields|FieldMark|FieldCgroup, 2, 3, 4
	if !f.Match(&s) {
		t.Errorf("%v: want a match of %+v", f, s)
	}
	if n := testing.AllocsPerRun(100, func() { f.Match(&s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParseFilter asserts that no text makes the parser panic, that an error is
// typed and points into the text, and that what was read is written as a text
// that is read as the same.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		everyCondition, "", "sport", "not", "(((", "a or b and c", `cgroup \eq\ \\`, "cgroup id:5", "src inet6:[::ffff:1.2.3.4]/99:ssh",
		"exclude all state bound-inactive state closed", "dst 10/255.0.0.0:0x50", "src 2001:db8::/32:*", "fwmark 07/0xf", "dev none",
		"sport\\", "! ! ! autobound", "state time-wait and state time-wait", "sport = :1 or ( sport = :2 and ( sport = :3 or sport = :4 ) )",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := fixedNames.ParseFilter(s)
		if err != nil {
			var e *FilterError
			if !errors.As(err, &e) || got != (Filter{}) || e.Column < 1 || e.Column > len(s)+1 || e.Problem == "" {
				t.Errorf("%q: %v, %#v", s, got, err)
			}
			return
		}
		text := got.String()
		back, err := fixedNames.ParseFilter(text)
		if err != nil || back != got {
			t.Errorf("%q: written as %q, read as %q: %v", s, text, back, err)
		}
	})
}

// FuzzFilterString writes filters built in Go.
func FuzzFilterString(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte{16, 0, 3, 17, 0, 2, 0, 0, 255, 3, 10, 0, 1, 10, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &maker{b}
		filter := m.filter(6)
		back, err := Names{Cgroup: func(string) (uint64, error) { return 1, nil }}.ParseFilter(filter.String())
		if err != nil || back.String() != filter.String() {
			t.Errorf("%q is read as %q: %v", filter, back, err)
		}
	})
}

func BenchmarkFilterMatch(b *testing.B) {
	for name, text := range map[string]string{"port": "sport = 81", "many": everyCondition} {
		f, err := ParseFilter(text)
		if err != nil {
			b.Fatal(err)
		}
		s := established
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink.V6Only = f.Match(&s)
			}
		})
	}
}
