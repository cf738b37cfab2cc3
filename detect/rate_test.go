package detect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// opened is the event of a new connection.
func opened(src string, port uint16) *conntrack.Event {
	s := netip.MustParseAddr(src)
	dst := netip.MustParseAddr("192.0.2.10")
	if s.Is6() {
		dst = netip.MustParseAddr("2001:db8::10")
	}
	t := conntrack.Tuple{Src: s, Dst: dst, SrcPort: 40000, DstPort: port, Proto: conntrack.ProtoTCP}
	return &conntrack.Event{Type: conntrack.EventNew, Flow: conntrack.Flow{Original: t, Reply: t.Invert()}}
}

func TestRate(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	for _, tt := range []struct {
		name  string
		rate  Rate
		n     int
		every time.Duration
		want  []int // the connections with which a limit is reached, from 1
	}{
		{"200 in 30 s", Rate{Limits: []RateLimit{{200, 30 * s}}}, 1000, 150 * ms, []int{200}},
		{"one burst", Rate{Limits: []RateLimit{{200, 30 * s}}}, 200, 0, []int{200}},
		{"one less", Rate{Limits: []RateLimit{{200, 30 * s}}}, 199, 0, nil},
		{"slower", Rate{Limits: []RateLimit{{200, 30 * s}}}, 5000, 151 * ms, nil},
		{"128 in 600 s", Rate{}, 128, 4600 * ms, []int{128}},
		{"slower than that", Rate{}, 2000, 4800 * ms, nil},
		{"both", Rate{}, 1000, 0, []int{128, 200}},
		{"another limit", Rate{Limits: []RateLimit{{5, s}}}, 20, 100 * ms, []int{5}},
		{"allowed", Rate{Sources: Sources{Allow: prefixes("198.51.100.0/24", "2001:db8::/32")}}, 1000, 0, nil},
		{"another port", Rate{Sources: Sources{Ports: []uint16{80}}}, 1000, 0, nil},
		{"its port", Rate{Sources: Sources{Ports: []uint16{443}}}, 130, 0, []int{128}},
	} {
		for _, src := range []string{"198.51.100.7", "2001:db8:7::7"} {
			t.Run(tt.name+" "+src, func(t *testing.T) {
				r, e := tt.rate.Start(), opened(src, 443)
				var got []int
				for i := range tt.n {
					if f, ok := r.Add(now.Add(time.Duration(i)*tt.every), e); ok {
						got = append(got, i+1)
						checkRate(t, f, src)
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("found at %v, want %v", got, tt.want)
				}
			})
		}
	}
}

func checkRate(t *testing.T, f Finding, src string) {
	t.Helper()
	if f.Detector != "Rate" || len(f.Sources) != 1 || !f.Sources[0].Contains(netip.MustParseAddr(src)) || f.Count != f.Limit+1 ||
		!mentions(f.Cause, fmt.Sprint(f.Count), "port 443") || len(f.Evidence.Flows) != 1 || !mentions(strings.Join(f.Fix, " "), bare(f.Sources[0])) {
		t.Errorf("got %+v", f)
	}
}

// What does not count: other events, other protocols, the host's own.
func TestRateOthers(t *testing.T) {
	r := Rate{Limits: []RateLimit{{1, time.Second}}}.Start(netip.MustParseAddr("192.0.2.10"))
	udp, destroyed := opened("198.51.100.7", 53), opened("198.51.100.7", 443)
	udp.Flow.Original.Proto, destroyed.Type = conntrack.ProtoUDP, conntrack.EventDestroy
	for _, e := range []*conntrack.Event{udp, destroyed, opened("192.0.2.10", 443), opened("127.0.0.1", 443), {Type: conntrack.EventNew}} {
		if f, ok := r.Add(now, e); ok {
			t.Errorf("got %v", f)
		}
	}
	if _, ok := r.Add(now, opened("198.51.100.7", 443)); !ok {
		t.Error("a limit of one connection is not reached by one")
	}
}

// Ports count apart, addresses of one /64 together.
func TestRateApart(t *testing.T) {
	limit := Rate{Limits: []RateLimit{{100, time.Minute}}}
	r := limit.Start()
	for i := range 99 {
		for _, port := range []uint16{80, 443} {
			if f, ok := r.Add(now, opened("198.51.100.7", port)); ok {
				t.Fatalf("at %d: %v", i, f)
			}
		}
	}
	r = limit.Start()
	var found []string
	for i := range 100 {
		if f, ok := r.Add(now, opened(fmt.Sprintf("2001:db8:7:1::%x", i+1), 443)); ok {
			found = append(found, f.Sources[0].String())
		}
	}
	if fmt.Sprint(found) != "[2001:db8:7:1::/64]" {
		t.Errorf("found %v", found)
	}
}

// Told again only after it was below the limit.
func TestRateAgain(t *testing.T) {
	r, at, told := Rate{Limits: []RateLimit{{10, 8 * time.Second}}}.Start(), now, 0
	for _, n := range []int{30, 0, 30} {
		for range 16 {
			at = at.Add(time.Second)
			for range n {
				if _, ok := r.Add(at, opened("198.51.100.7", 443)); ok {
					told++
				}
			}
		}
	}
	if told != 2 {
		t.Errorf("told %d times, want 2", told)
	}
}

// A clock that runs back forgets; it neither counts twice nor for ever.
func TestRateClock(t *testing.T) {
	limit := RateLimit{10, 8 * time.Second}
	for _, tt := range []struct {
		step time.Duration // of the clock, after 9 connections
		want bool          // the tenth is found
	}{
		{0, true}, {7 * time.Second, true}, {8 * time.Second, false}, {time.Hour, false}, {-time.Millisecond, true},
		{-999 * time.Millisecond, true}, {-time.Second, false}, {-time.Hour, false}, {-1 << 62, false}, {1 << 62, false},
	} {
		r := Rate{Limits: []RateLimit{limit}}.Start()
		for range 9 {
			r.Add(now, opened("198.51.100.7", 443))
		}
		if _, got := r.Add(now.Add(tt.step), opened("198.51.100.7", 443)); got != tt.want {
			t.Errorf("after a step of %v: found %v", tt.step, got)
		}
	}
}

// Many sources of one network are named together, once, and then no more by
// themselves.
func TestRateNetwork(t *testing.T) {
	limit := []RateLimit{{10, time.Minute}}
	for _, tt := range []struct {
		name    string
		o       Sources
		n       int // connections of each source
		remotes []string
		want    []string
	}{
		{"half of the limit", Sources{}, 4, addresses(200, "198.51.100.%d"), nil},
		{"more than half", Sources{}, 5, addresses(20, "198.51.100.%d"), []string{"198.51.100.0/24"}},
		{"too few", Sources{}, 5, addresses(7, "198.51.100.%d"), nil},
		{"of several networks", Sources{}, 5, addresses(20, "198.51.%d.1"), nil},
		{"the limit", Sources{}, 12, addresses(9, "198.51.100.%d"),
			append(addresses(7, "198.51.100.%d"), "198.51.100.0/24")},
		{"fewer suffice", Sources{Many: 2}, 5, addresses(2, "198.51.100.%d"), []string{"198.51.100.0/24"}},
		{"never one", Sources{Many: 1}, 10, addresses(1, "198.51.100.%d"), []string{"198.51.100.1"}},
		{"never", Sources{Many: -1}, 10, addresses(9, "198.51.100.%d"), addresses(9, "198.51.100.%d")},
		{"an allowed one in it", Sources{Allow: prefixes("198.51.100.77/32")}, 9, addresses(9, "198.51.100.%d"), nil},
		{"IPv6", Sources{}, 5, addresses(8, "2001:db8:7:%d::1"), []string{"2001:db8:7::/48"}},
		{"IPv6, one source", Sources{}, 1, addresses(9, "2001:db8:7:1::%d"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Rate{Sources: tt.o, Limits: limit}.Start()
			var got []string
			for _, src := range tt.remotes {
				for range tt.n {
					if f, ok := r.Add(now, opened(src, 443)); ok {
						got = append(got, bare(f.Sources[0]))
						checkRate(t, f, src)
					}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("found %v, want %v", got, tt.want)
			}
		})
	}
}

// A source that is about half of the limit all the time is one, however often
// it crosses that.
func TestRateNetworkOnce(t *testing.T) {
	r, random := Rate{Sources: Sources{Many: 2}, Limits: []RateLimit{{16, 8 * time.Second}}}.Start(), rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		for range random.IntN(3) {
			if f, ok := r.Add(now.Add(time.Duration(i)*time.Second), opened("198.51.100.7", 443)); ok {
				t.Fatalf("after %d s: %v", i, f)
			}
		}
	}
}

// In a crowd of networks whose sources are all fast no network is named that is
// not so, and memory stays what it was.
func TestRateNetworkCrowd(t *testing.T) {
	r := Rate{Keys: 1024, Limits: []RateLimit{{4, time.Minute}}}.Start()
	e, i := opened("11.0.0.1", 443), 0
	if n := testing.AllocsPerRun(1, func() {
		for range 20_000 {
			i++
			e.Flow.Original.Src = netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), byte(i%7 + 1)})
			for range 2 {
				if f, ok := r.Add(now, e); ok {
					t.Fatalf("%v has one fast source", f)
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNetmask(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "255.255.255.0", "192.0.2.1/32": "255.255.255.255", "0.0.0.0/1": "128.0.0.0",
		"2001:db8::/64": "ffff:ffff:ffff:ffff::", "2001:db8::/33": "ffff:ffff:8000::", "::1/128": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got := netmask(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

// Among a crowd of sources with a connection each, many times the Keys, the one that matters is
// found, no other is, and memory stays what it was.
func TestRateCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	r := Rate{Keys: 1024}.Start()
	crowd, heavy := opened("11.0.0.1", 443), opened("198.51.100.7", 443)
	i, found := 0, 0
	if n := testing.AllocsPerRun(1, func() {
		for range 50_000 {
			i++
			at := now.Add(time.Duration(i) * 100 * time.Microsecond)
			crowd.Flow.Original.Src = netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
			if f, ok := r.Add(at, crowd); ok {
				t.Fatalf("%v has one connection", f)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for ; i < 200_000; i++ {
		at := now.Add(time.Duration(i) * 100 * time.Microsecond)
		crowd.Flow.Original.Src = netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		if f, ok := r.Add(at, crowd); ok {
			t.Fatalf("%v has one connection", f)
		}
		if i%100 == 0 { // 3000 in 30 s
			if f, ok := r.Add(at, heavy); ok {
				found++
				checkRate(t, f, "198.51.100.7")
			}
		}
	}
	if found == 0 {
		t.Error("the source that opens 100 connections a second is not found")
	}
}

func TestRateMemory(t *testing.T) {
	before := heapInUse()
	r := Rate{}.Start()
	mb := float64(heapInUse()-before) / 1e6
	t.Logf("%.1f MB", mb)
	if mb > 13 {
		t.Errorf("two limits take %.1f MB", mb)
	}
	r.Add(now, opened("198.51.100.7", 443))
}

func BenchmarkRate(b *testing.B) {
	for _, sources := range []int{1, 1000, 1 << 20} {
		b.Run(fmt.Sprint(sources), func(b *testing.B) {
			r, e, i := Rate{}.Start(), opened("11.0.0.1", 443), 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				n := i % sources
				e.Flow.Original.Src = netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
				r.Add(now.Add(time.Duration(i)*10*time.Microsecond), e)
			}
		})
	}
}
