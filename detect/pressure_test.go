package detect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

func usage(count, limit uint64) conntrack.Usage {
	return conntrack.Usage{Count: count, Max: limit, Buckets: limit, Fields: conntrack.UsageMax | conntrack.UsageBuckets}
}

func TestPressureFullness(t *testing.T) {
	const full = 262144
	for _, tt := range []struct {
		name        string
		now, before conntrack.Usage
		ago         time.Duration
		want        Severity // 0 is nothing
		says        string
	}{
		{"unknown", conntrack.Usage{}, conntrack.Usage{}, 0, 0, ""},
		{"no limit", usage(1e6, 0), conntrack.Usage{}, 0, 0, ""},
		{"limit unknown", conntrack.Usage{Count: 1e6}, conntrack.Usage{}, 0, 0, ""},
		{"quiet", usage(40_000, full), usage(39_000, full), time.Minute, 0, ""},
		{"just below", usage(209_715, full), conntrack.Usage{}, 0, 0, ""},
		{"80 %", usage(209_716, full), conntrack.Usage{}, 0, Warning, "209716 of 262144 entries (80 %)"},
		{"95 %", usage(249_037, full), conntrack.Usage{}, 0, Critical, "(95 %)"},
		{"full", usage(full, full), usage(full-10, full), time.Minute, Critical, "it is full"},
		{"over full", usage(full+3, full), usage(full-10, full), time.Minute, Critical, "it is full"},
		{"fills in time", usage(140_000, full), usage(128_000, full), time.Minute, Warning, "grows by 200 a second and is full in 610s"},
		{"fills slowly", usage(140_000, full), usage(139_000, full), time.Minute, 0, ""},
		{"fills, but from little", usage(100_000, full), usage(40_000, full), time.Minute, 0, ""},
		{"falls", usage(200_000, full), usage(209_000, full), time.Minute, 0, ""},
		{"the clock went back", usage(140_000, full), usage(20_000, full), -time.Minute, 0, ""},
		{"no time between", usage(140_000, full), usage(20_000, full), 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Host{Now: now, Usage: tt.now, Earlier: Earlier{At: now.Add(-tt.ago), Usage: tt.before}}
			found := pure(t, Pressure{Within: 611 * time.Second}, h)
			if tt.want == 0 {
				if len(found) != 0 {
					t.Errorf("got %v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Severity != tt.want || found[0].Count != tt.now.Count || found[0].Limit != full || !mentions(found[0].Cause, tt.says) {
				t.Fatalf("got %v, want %s", found, tt.says)
			}
		})
	}
}

// pure is find without another Now: what is compared over time changes with it.
func pure(t *testing.T, d Detector, h Host) []Finding {
	t.Helper()
	found := Find(h, d)
	if again := Find(h, d); fmt.Sprint(again) != fmt.Sprint(found) {
		t.Errorf("the same host gave %v, then %v", found, again)
	}
	return found
}

// What the settings say is enough.
func TestPressureSettings(t *testing.T) {
	proc := fstest.MapFS{}
	for name, value := range map[string]string{"count": "900", "max": "1000", "buckets": "256"} {
		proc["sys/net/netfilter/nf_conntrack_"+name] = &fstest.MapFile{Data: []byte(value)}
	}
	set, err := conntrack.ReadSettings(proc)
	if err != nil {
		t.Fatal(err)
	}
	found := pure(t, Pressure{Load: 7}, Host{Now: now, Settings: set})
	if len(found) != 2 || found[0].Count != 900 || found[0].Limit != 1000 || !mentions(found[1].Cause, "passes 7.0 links on average") {
		t.Errorf("got %v", found)
	}
	if f := found[0].Fix; !mentions(f[len(f)-1], "nf_conntrack_max=2000`", "nf_conntrack_buckets=1000`") {
		t.Errorf("fix %q", f)
	}
}

// What the table is full of, and what helps against each.
func TestPressureContents(t *testing.T) {
	eachFamily(t, func(t *testing.T, family func(string) string) {
		h := Host{Now: now, Usage: usage(100, 100), Settings: settings(t, nil)}
		for i := range 100 {
			row := "tcp 6 99 TIME_WAIT src=10.1.41.192 dst=10.1.32.70 sport=PORT dport=443 src=10.1.32.70 dst=10.1.41.192 sport=443 dport=PORT [ASSURED] use=1"
			switch {
			case i >= 90:
				row = "udp 17 20 src=10.1.99.5 dst=10.1.32.70 sport=PORT dport=53 [UNREPLIED] src=10.1.32.70 dst=10.1.99.5 sport=53 dport=PORT use=1"
			case i >= 60:
				row = strings.Replace(row, "TIME_WAIT", "ESTABLISHED", 1)
			case i >= 55:
				row = "tcp 6 src=10.1.41.192 dst=10.1.32.70 sport=PORT dport=443 src=10.1.32.70 dst=10.1.41.192 sport=443 dport=PORT [OFFLOAD] use=2"
			}
			h.Flows = append(h.Flows, flow(t, strings.ReplaceAll(family(row), "PORT", fmt.Sprint(2000+i))))
		}
		f := pure(t, Pressure{}, h)[0]
		source, rare := sourceOf(netip.MustParseAddr(family(client))).prefix(), sourceOf(netip.MustParseAddr(family(other))).prefix()
		if !mentions(f.Cause, "TIME_WAIT 55 %, ESTABLISHED 30 %, udp 10 %", "tcp/443 90 %, udp/53 10 %", fmt.Sprintf("%v 90 %%, %v 10 %%", source, rare),
			"the 15 (15 %) that are not assured", "the 55 that are assured and closing") {
			t.Error(f.Cause)
		}
		if !slices.Equal(f.Sources, []netip.Prefix{source, rare}) || len(f.Evidence.Flows) != 3 {
			t.Errorf("sources %v, rows %v", f.Sources, f.Evidence.Flows)
		}
		fixes := strings.Join(f.Fix, "\n")
		if !mentions(fixes, deleteFrom(source), "tcp_timeout_established=7200`", "tcp_timeout_time_wait=30`", "nf_conntrack_max=200`") {
			t.Error(fixes)
		}
		if bits := source.Bits(); bits != 32 && bits != 64 {
			t.Errorf("a source of /%d", bits)
		}
	})
}

// A timeout that is short already is not told to be shortened.
func TestPressureShortened(t *testing.T) {
	h := Host{Now: now, Usage: usage(100, 100), Settings: settings(t, map[string]string{"tcp_timeout_established": "7200"}), Flows: []conntrack.Flow{flow(t, queried)}}
	f := pure(t, Pressure{}, h)[0]
	if mentions(strings.Join(f.Fix, "\n"), "tcp_timeout_established") || !slices.Contains(f.Evidence.Settings, Setting{"net.netfilter.nf_conntrack_tcp_timeout_established", "7200"}) {
		t.Errorf("fix %q, settings %v", f.Fix, f.Evidence.Settings)
	}
}

func TestPressureChains(t *testing.T) {
	for count, want := range map[uint64]int{0: 0, 65536: 0, 262143: 0, 262144: 1} {
		u := conntrack.Usage{Count: count, Max: 10_000_000, Buckets: 65536, Fields: conntrack.UsageMax | conntrack.UsageBuckets}
		found := pure(t, Pressure{}, Host{Now: now, Usage: u})
		if len(found) != want {
			t.Errorf("%d entries in 65536 chains: %v", count, found)
		}
		for _, f := range found {
			if f.Count != 8 || !mentions(f.Fix[0], "nf_conntrack_buckets=10000000`") {
				t.Errorf("got %v", f)
			}
		}
	}
}

// The host's own connections fill its table: it is not told to ban itself.
func TestPressureOwn(t *testing.T) {
	eachFamily(t, func(t *testing.T, family func(string) string) {
		for name, change := range map[string]func(*Host){
			"by address": func(h *Host) { h.Addrs = []netip.Addr{netip.MustParseAddr(family(server))} },
			"by socket":  func(h *Host) { h.Sockets = append(h.Sockets, socket(t, family(query))) },
		} {
			h := Host{Now: now, Usage: usage(100, 100), Flows: []conntrack.Flow{flow(t, family(queried))}}
			if f := pure(t, Pressure{}, h); len(f) != 1 || len(f[0].Sources) != 1 {
				t.Errorf("of somebody: %v", f)
			}
			change(&h)
			if f := pure(t, Pressure{}, h); len(f) != 1 || len(f[0].Sources) != 0 || mentions(strings.Join(f[0].Fix, "\n"), "ban") {
				t.Errorf("%s: %v", name, f)
			}
		}
	})
	for _, a := range []string{"127.0.0.1", "::1", "fe80::1"} {
		f := flow(t, queried)
		f.Original.Src = netip.MustParseAddr(a)
		if f := pure(t, Pressure{}, Host{Now: now, Usage: usage(100, 100), Flows: []conntrack.Flow{f}}); len(f) != 1 || len(f[0].Sources) != 0 {
			t.Errorf("%s: %v", a, f)
		}
	}
}

// Rows cost nothing when nobody asks what the table is full of.
func TestPressureQuiet(t *testing.T) {
	full := conntrack.Usage{Count: 95, Max: 100, Fields: conntrack.UsageMax}
	roomy := conntrack.Usage{Count: 79, Max: 100, Fields: conntrack.UsageMax}
	for _, tt := range []struct {
		name  string
		usage conntrack.Usage
		looks bool
	}{{"full", full, true}, {"roomy", roomy, false}, {"not known", conntrack.Usage{}, false}} {
		look := Pressure{}.Look(&Host{Usage: tt.usage})
		if looks := look.Flow != nil && look.Socket != nil; looks != tt.looks || !looks && (look.Flow != nil || look.Socket != nil) {
			t.Errorf("%s: it looks at rows: %t, want %t", tt.name, looks, tt.looks)
		}
	}
}
