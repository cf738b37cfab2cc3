package detect

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/connsleuth/connsleuth/sockdiag"
)

func TestSource(t *testing.T) {
	for _, tt := range []struct {
		o          Sources
		addr       string
		want, wide string
	}{
		{Sources{}, "192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"},
		{Sources{}, "::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"},
		{Sources{}, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"},
		{Sources{}, "fe80::1%eth0", "fe80::/64", "fe80::/48"},
		{Sources{}, "0.0.0.1", "0.0.0.1/32", "0.0.0.0/24"},
		{Sources{IPv4: 28, WideIPv4: 8}, "10.1.2.255", "10.1.2.240/28", "10.0.0.0/8"},
		{Sources{IPv4: 16}, "10.1.2.255", "10.1.0.0/16", "10.1.0.0/16"},
		{Sources{IPv6: 128, WideIPv6: 100}, "2001:db8::ffff:ffff", "2001:db8::ffff:ffff/128", "2001:db8::f000:0/100"},
		{Sources{IPv6: 56, WideIPv6: 1}, "2001:db8:0:1ff::", "2001:db8:0:100::/56", "::/1"},
		{Sources{IPv4: 99, IPv6: 999, WideIPv4: -1, WideIPv6: -1}, "10.1.2.3", "10.1.2.3/32", "10.1.2.0/24"},
	} {
		s := tt.o.source(netip.MustParseAddr(tt.addr))
		if got := tt.o.prefix(s).String(); got != tt.want {
			t.Errorf("%s with %+v is of %s, want %s", tt.addr, tt.o, got, tt.want)
		}
		if got := tt.o.widePrefix(tt.o.wide(s)).String(); got != tt.wide {
			t.Errorf("%s with %+v is of the network %s, want %s", tt.addr, tt.o, got, tt.wide)
		}
		if p := tt.o.prefix(s); p != p.Masked() {
			t.Errorf("%v is not masked", p)
		}
	}
}

// held makes n connections of each of the sources with port 443.
func held(n int, state sockdiag.State, remotes ...string) (rows []sockdiag.Socket) {
	for _, r := range remotes {
		a := netip.MustParseAddr(r)
		local := netip.MustParseAddr("192.0.2.10")
		if a.Is6() {
			local = netip.MustParseAddr("2001:db8::10")
		}
		for i := range n {
			rows = append(rows, sockdiag.Socket{
				Family: sockdiag.IPv6, State: state, Inode: 1,
				Local: netip.AddrPortFrom(local, 443), Remote: netip.AddrPortFrom(a, uint16(10000+i)),
			})
		}
	}
	return rows
}

// listener443 is a listener on port 443.
func listener443() sockdiag.Socket {
	return sockdiag.Socket{
		Family: sockdiag.IPv6, State: sockdiag.Listen, Backlog: 128,
		Local: netip.MustParseAddrPort("[::]:443"), Remote: netip.MustParseAddrPort("[::]:0"),
	}
}

// addresses are n addresses of a network.
func addresses(n int, format string) (addrs []string) {
	for i := range n {
		addrs = append(addrs, fmt.Sprintf(format, i+1))
	}
	return addrs
}

// Many sources of one network are named together.
func TestEscalation(t *testing.T) {
	for _, tt := range []struct {
		name    string
		o       Sources
		n       int
		remotes []string
		want    []string
	}{
		{"each over the limit", Sources{}, 40, addresses(8, "198.51.100.%d"), []string{"198.51.100.0/24"}},
		{"each over half of it", Sources{}, 20, addresses(8, "198.51.100.%d"), []string{"198.51.100.0/24"}},
		{"each at half of it", Sources{}, 19, addresses(200, "198.51.100.%d"), nil},
		{"one too few", Sources{}, 39, addresses(7, "198.51.100.%d"), nil},
		{"too few, but over", Sources{}, 40, addresses(2, "198.51.100.%d"), []string{"198.51.100.1", "198.51.100.2"}},
		{"of several networks", Sources{}, 39, addresses(20, "198.51.%d.1"), nil},
		{"fewer suffice", Sources{Many: 2}, 40, addresses(2, "198.51.100.%d"), []string{"198.51.100.0/24"}},
		{"never", Sources{Many: -1}, 40, addresses(9, "198.51.100.%d")[7:], []string{"198.51.100.8", "198.51.100.9"}},
		{"an allowed one in it", Sources{Allow: []netip.Prefix{netip.MustParsePrefix("198.51.100.77/32")}, Many: 2}, 40,
			addresses(2, "198.51.100.%d"), []string{"198.51.100.1", "198.51.100.2"}},
		{"wider", Sources{WideIPv4: 16}, 40, addresses(8, "198.51.%d.1"), []string{"198.51.0.0/16"}},
		{"IPv6", Sources{}, 40, addresses(8, "2001:db8:7:%d::1"), []string{"2001:db8:7::/48"}},
		{"IPv6, one source", Sources{}, 5, addresses(9, "2001:db8:7:1::%d"), []string{"2001:db8:7:1::/64"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Host{Now: now, Sockets: append(held(tt.n, sockdiag.TimeWait, tt.remotes...), listener443())}
			checkSubjects(t, find(t, PerSource{Sources: tt.o}, h), tt.want...)
		})
	}
}

func checkSubjects(t *testing.T, found []Finding, want ...string) {
	t.Helper()
	var got []string
	for _, f := range found {
		got = append(got, f.Subject)
		if f.Count <= f.Limit || f.Limit == 0 || f.Cause == "" || len(f.Fix) == 0 {
			t.Errorf("incomplete: %+v", f)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("findings about %v, want %v", got, want)
	}
}

// A million sources take less than 64 MB, all that is let go as the table grows
// included.
func TestSourceMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("counts a million sources")
	}
	before, taken := heapInUse(), allocated()
	look := PerSource{}.Look(&Host{})
	s := held(1, sockdiag.Established, "198.51.100.1")[0]
	for i := range 1_000_000 {
		a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		if i%2 == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
		}
		s.Remote = netip.AddrPortFrom(a, 40000)
		look.Socket(&s)
	}
	all := float64(allocated()-taken) / 1e6
	mb := float64(heapInUse()-before) / 1e6
	t.Logf("%.1f MB, %.1f MB in all", mb, all)
	if mb > 48 || all > 64 {
		t.Errorf("a million sources take %.1f MB, %.1f MB in all", mb, all)
	}
	runtime.KeepAlive(look)
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A row of a known source costs no memory.
func TestRowAllocs(t *testing.T) {
	rows := held(3, sockdiag.Established, "198.51.100.1", "2001:db8:7::1")
	rows = append(rows, held(3, sockdiag.SynRecv, "198.51.100.1")...)
	rows = append(rows, held(3, sockdiag.SynSent, "198.51.100.1")...)
	for _, d := range []Detector{PerSource{}, IdleFlood{}, SynFlood{}, OutboundScan{}} {
		h := Host{}
		look := d.Look(&h)
		var f = flow(t, toRouter)
		pass := func() {
			for i := range rows {
				look.Socket(&rows[i])
			}
			if look.Flow != nil {
				look.Flow(&f)
			}
		}
		pass()
		if n := testing.AllocsPerRun(100, pass); n != 0 {
			t.Errorf("%s: %v allocations in a pass over known keys", d.Name(), n)
		}
	}
}

func BenchmarkPerSource(b *testing.B)    { benchmark(b, PerSource{}, 0) }
func BenchmarkIdleFlood(b *testing.B)    { benchmark(b, IdleFlood{Limit: 100}, 0) }
func BenchmarkSynFlood(b *testing.B)     { benchmark(b, SynFlood{}, 0) }
func BenchmarkOutboundScan(b *testing.B) { benchmark(b, OutboundScan{}, 0) }
