package ban

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// system is a host with one address, gateway and name server of each family.
func system() (proc, etc fstest.MapFS) {
	return fstest.MapFS{
			"net/fib_trie": {Data: []byte(fibTrie)},
			"net/if_inet6": {Data: []byte("20010db8000100000000000000000010 02 40 00 80     eth0\n" +
				"fe800000000000000000000000000001 02 40 20 80     eth0\n")},
			"net/route": {Data: []byte("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
				"eth0\t00000000\t" + native4("192.0.2.1") + "\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
				"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")},
			"net/ipv6_route": {Data: []byte("00000000000000000000000000000000 00 00000000000000000000000000000000 00 " +
				"20010db8000100000000000000000001 00000400 00000003 00000000 00000003     eth0\n")},
		}, fstest.MapFS{"resolv.conf": {Data: []byte("# made by hand\nsearch example.org\nnameserver 198.51.100.53\n" +
			"nameserver 2001:db8:53::53\nnameserver fe80::1%eth0\nnameserver nonsense\n")}}
}

// As /proc/net/fib_trie of a host with 192.0.2.10/24 has it.
const fibTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.10
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
`

// native4 is an address as /proc/net/route has it on this processor.
func native4(s string) string {
	b := netip.MustParseAddr(s).As4()
	if nativeLittle() {
		b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	}
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

func TestGuardRefuses(t *testing.T) {
	proc, etc := system()
	g := Guard{
		Allow:  []netip.Prefix{prefix("203.0.113.43/32"), prefix("2001:db8:db::/56"), prefix("::ffff:203.0.113.99/128")},
		System: SystemOf(proc, etc, "198.51.100.77 50022 192.0.2.10 22"),
	}
	for _, test := range []struct{ prefix, why string }{
		{"203.0.113.42/32", ""},
		{"203.0.113.43/32", "allowed"},
		{"203.0.113.0/24", "contains 203.0.113."},
		{"203.0.113.99/32", "allowed"},
		{"2001:db8:db:55::/64", "is within 2001:db8:db::/56"},
		{"2001:db8:db::/48", "contains 2001:db8:db::/56"},
		{"2001:db8:dc::/48", ""},
		{"192.0.2.10/32", "own address"},
		{"192.0.2.1/32", "gateway, by eth0"},
		{"192.0.2.128/25", ""},
		{"192.0.2.0/24", "contains"},
		{"2001:db8:1::/64", "contains 2001:db8:1::"},
		{"2001:db8:1::1/128", "gateway, by eth0"},
		{"2001:db8:1::10/128", "own address"},
		{"198.51.100.53/32", "name server"},
		{"2001:db8:53::53/128", "name server"},
		{"198.51.100.77/32", "this SSH session"},
		{"198.51.100.78/32", ""},
		{"127.0.0.2/32", "loopback"},
		{"169.254.1.1/32", "link-local"},
		{"224.0.0.251/32", "multicast"},
		{"255.255.255.255/32", "broadcast"},
		{"0.0.0.0/32", "this network"},
		{"::1/128", "loopback"},
		{"fe80::1/128", "own address"},
		{"fe80::2/128", "link-local"},
		{"ff02::1/128", "multicast"},
		{"::/64", "contains ::"},
		{"100.64.0.0/23", "wider than a /24"},
		{"2001:db8:8000::/47", "wider than a /48"},
	} {
		err := g.Refuse(t.Context(), prefix(test.prefix))
		switch {
		case test.why == "" && err != nil:
			t.Errorf("%s: %v; want it to pass", test.prefix, err)
		case test.why != "" && (!errors.Is(err, ErrGuarded) || !strings.Contains(err.Error(), test.why)):
			t.Errorf("%s: %v; want ErrGuarded, %q", test.prefix, err, test.why)
		}
	}
}

// TestOverlapping compares with the obvious.
func TestOverlapping(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Prefix {
		if r.IntN(2) == 0 {
			p, _ := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(256))}).Prefix(r.IntN(33))
			return p
		}
		p, _ := netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(4)), 7: byte(r.IntN(4))}).Prefix(r.IntN(129))
		return p
	}
	for range 3000 {
		var all []Protected
		for range r.IntN(6) {
			all = append(all, Protected{Prefix: random()})
		}
		s, p := protect(all), random()
		want := false
		for _, q := range all {
			want = want || q.Prefix.Overlaps(p)
		}
		if got, ok := s.overlapping(p); ok != want || ok && !got.Prefix.Overlaps(p) {
			t.Fatalf("%v in %v: %v, %v; want %v", p, all, got, ok, want)
		}
	}
}

// TestGuardNotKnown: nobody is banned while it is not known who must not be.
func TestGuardNotKnown(t *testing.T) {
	proc, etc := system()
	proc["net/ipv6_route"] = &fstest.MapFile{Data: []byte("x x x x nonsense x x x x eth0\n")}
	for name, system := range map[string]System{
		"one of two":  Systems(SystemOf(fstest.MapFS{}, fstest.MapFS{}, ""), SystemOf(proc, etc, "")),
		"an error":    func(context.Context) ([]Protected, error) { return nil, fs.ErrPermission },
		"a bad file":  SystemOf(proc, etc, ""),
		"bad session": SystemOf(fstest.MapFS{}, fstest.MapFS{}, "nonsense 1 2 3"),
	} {
		memory := new(Memory)
		b := Guard{System: system}.Protect(memory)
		err := b.Ban(t.Context(), Entry{Prefix: prefix("203.0.113.42/32"), Until: Forever})
		if err == nil || !strings.Contains(err.Error(), "nobody is banned") {
			t.Errorf("%s: %v", name, err)
		}
		for e := range memory.List(t.Context()) {
			t.Errorf("%s: %v is banned", name, e)
		}
	}
}

// TestGuardAsksEachTime: an address that comes up later is protected from then
// on.
func TestGuardAsksEachTime(t *testing.T) {
	var now []Protected
	g := Guard{System: func(context.Context) ([]Protected, error) { return now, nil }}
	b := g.Protect(new(Memory))
	e := Entry{Prefix: prefix("203.0.113.42/32"), Until: Forever}
	if err := b.Ban(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	now = []Protected{{e.Prefix, "new gateway"}}
	if err := b.Ban(t.Context(), e); !errors.Is(err, ErrGuarded) {
		t.Errorf("Ban of what is now the gateway: %v", err)
	}
	if err := b.Unban(t.Context(), e.Prefix); err != nil {
		t.Errorf("Unban of it: %v", err)
	}
}

// TestGuardLimits: new bans are limited by the minute and in total, renewals are
// not, and the good of a call are banned.
func TestGuardLimits(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	memory := &Memory{Now: clock}
	host := func(i byte) netip.Prefix { return Host(netip.AddrFrom4([4]byte{203, 0, 113, i})) }
	if err := memory.Ban(t.Context(), Entry{Prefix: host(200), Until: For(now, time.Hour)}); err != nil {
		t.Fatal(err)
	}
	g := Guard{PerMinute: 3, Total: 5, System: func(context.Context) ([]Protected, error) { return nil, nil }}
	b := g.Protect(memory)
	b.now = clock
	call := func(want int, hosts ...byte) {
		t.Helper()
		var entries []Entry
		for _, i := range hosts {
			entries = append(entries, Entry{Prefix: host(i), Until: For(now, 2*time.Minute)})
		}
		err := b.Ban(t.Context(), entries...)
		failed, only := Failed(err)
		if len(failed) != want || !only || want > 0 && !errors.Is(err, ErrLimit) {
			t.Errorf("at %v: Ban of %v: %v; want %d refused", now, hosts, err, want)
		}
	}
	call(1, 1, 2, 3, 4)   // three a minute
	call(0, 1, 2, 3, 200) // renewed
	call(1, 5)            // still the same minute
	if err := b.Check(t.Context(), Entry{Prefix: host(6), Until: Forever}); !errors.Is(err, ErrLimit) {
		t.Errorf("Check: %v; want ErrLimit", err)
	}
	now = now.Add(time.Minute)
	call(1, 4, 5) // five in total
	if err := b.Unban(t.Context(), host(1)); err != nil {
		t.Fatal(err)
	}
	call(0, 5)
	now = now.Add(90 * time.Second) // 2, 3 and 4 are over
	call(0, 6, 7)
	now = now.Add(-time.Hour) // the clock goes back
	call(1, 8, 9)
	var have int
	for range memory.List(t.Context()) {
		have++
	}
	if have != 5 {
		t.Errorf("%d are in force, want 5", have)
	}
}

func BenchmarkGuard(b *testing.B) {
	proc, etc := system()
	g := Guard{PerMinute: -1, Total: -1, System: SystemOf(proc, etc, "")}.withDefaults()
	all, err := g.protected(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p := prefix("203.0.113.42/32")
	b.ReportAllocs()
	for b.Loop() {
		if err := g.refuse(p, all); err != nil {
			b.Fatal(err)
		}
	}
}
