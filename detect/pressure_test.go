package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

func usage(count, limit uint64) conntrack.Usage {
	return conntrack.Usage{Count: count, Max: limit, Fields: conntrack.UsageMax}
}

// TestPressureFill tells from which share on, and how long until it is full.
func TestPressureFill(t *testing.T) {
	for _, tt := range []struct {
		name    string
		now     conntrack.Usage
		earlier Earlier
		want    Severity
		until   time.Duration
	}{
		{"almost empty", usage(10, 1000), Earlier{}, 0, 0},
		{"below", usage(799, 1000), Earlier{}, 0, 0},
		{"at the limit", usage(800, 1000), Earlier{}, Warning, 0},
		{"nearly full", usage(950, 1000), Earlier{}, Critical, 0},
		{"over", usage(1001, 1000), Earlier{At: now.Add(-time.Second), Usage: usage(1, 1000)}, Critical, 0},
		{"no limit", usage(1e6, 0), Earlier{}, 0, 0},
		{"not known", conntrack.Usage{}, Earlier{}, 0, 0},
		{"filling", usage(900, 1000), Earlier{At: now.Add(-10 * time.Second), Usage: usage(800, 1000)}, Warning, 10 * time.Second},
		{"emptying", usage(900, 1000), Earlier{At: now.Add(-10 * time.Second), Usage: usage(950, 1000)}, Warning, 0},
		{"the clock went back", usage(900, 1000), Earlier{At: now.Add(time.Second), Usage: usage(800, 1000)}, Warning, 0},
	} {
		found := Find(Host{Now: now, Usage: tt.now, Earlier: tt.earlier}, Pressure{})
		switch {
		case tt.want == 0 && len(found) == 0:
		case len(found) != 1 || found[0].Severity != tt.want || found[0].Count != tt.now.Count || found[0].Limit != 1000:
			t.Errorf("%s: %+v", tt.name, found)
		case tt.until == 0 && !found[0].Until.IsZero() || tt.until != 0 && !found[0].Until.Equal(now.Add(tt.until)):
			t.Errorf("%s: until %v", tt.name, found[0].Until)
		}
	}
}

// TestPressureContents: what the table is full of decides the advice.
func TestPressureContents(t *testing.T) {
	h := rows(t, func(s string) string { return s }, nil, nil)
	for i := range 900 {
		state, flag := "TIME_WAIT", "[ASSURED] "
		if i%3 == 0 {
			state, flag = "ESTABLISHED", ""
		}
		h.Flows = append(h.Flows, flow(t, fmt.Sprintf("tcp 6 100 %s src=%s dst=%s sport=%d dport=443 src=%s dst=%s sport=443 dport=%d %smark=0 use=1",
			state, client, server, 1024+i, server, client, 1024+i, flag)))
	}
	h.Usage = usage(900, 1000)
	h.Settings = settings(t, map[string]string{"tcp_timeout_time_wait": "120"})
	found := Find(h, Pressure{})
	if len(found) != 1 || !mentions(found[0].Cause, "900 of 1000 entries (90.0 %)", "600 are TIME_WAIT, 300 are ESTABLISHED", "900 are tcp port 443", "300 are not assured") {
		t.Fatalf("%+v", found)
	}
	if fix := found[0].Fix; len(fix) != 3 || !mentions(fix[0], "`sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=30`") ||
		!mentions(fix[2], "`sysctl -w net.netfilter.nf_conntrack_max=2000`") {
		t.Errorf("%q", fix)
	}
	h.Settings = settings(t, map[string]string{"tcp_timeout_time_wait": "30"})
	if fix := Find(h, Pressure{})[0].Fix; len(fix) != 2 {
		t.Errorf("with a short timeout: %q", fix)
	}
}

// TestPressureDrops reads the counters of two processors, between two looks and
// alone.
func TestPressureDrops(t *testing.T) {
	all := conntrack.StatDrop | conntrack.StatEarlyDrop | conntrack.StatInsertFailed | conntrack.StatChainTooLong
	stats := func(drop, early, failed, long uint64) []conntrack.Stats {
		return []conntrack.Stats{
			{CPU: 0, Fields: all, Drop: drop, EarlyDrop: early},
			{CPU: 1, Fields: all, InsertFailed: failed, ChainTooLong: long},
		}
	}
	for _, tt := range []struct {
		name        string
		before, now []conntrack.Stats
		want        map[string]uint64
		severity    Severity
	}{
		{"quiet", stats(7, 8, 9, 1), stats(7, 8, 9, 1), nil, 0},
		{"none", nil, stats(0, 0, 0, 0), nil, 0},
		{"early drop", stats(7, 8, 9, 1), stats(7, 58, 9, 1), map[string]uint64{"early_drop": 50}, Critical},
		{"clashes are among the drops", stats(0, 0, 0, 0), stats(4, 0, 4, 0), map[string]uint64{"insert_failed": 4}, Warning},
		{"a counter wrapped", stats(1<<32-2, 0, 0, 0), stats(3, 0, 0, 0), map[string]uint64{"drop": 5}, Critical},
		{"long chains", stats(0, 0, 0, 1), stats(0, 0, 0, 3), map[string]uint64{"chaintoolong": 2}, Warning},
		{"long ago", nil, stats(0, 3, 0, 0), map[string]uint64{"early_drop": 3}, Info},
	} {
		h := Host{Now: now, Stats: tt.now, Earlier: Earlier{At: now.Add(-time.Minute), Stats: tt.before}}
		found := Find(h, Pressure{})
		if len(found) != len(tt.want) {
			t.Errorf("%s: %+v", tt.name, found)
			continue
		}
		for _, f := range found {
			word := f.Subject[len("the tracker's counter "):]
			if f.Count != tt.want[word] || f.Severity != tt.severity || (f.Severity == Info) != (len(f.Evidence.Missing) > 0) {
				t.Errorf("%s: %+v", tt.name, f)
			}
		}
	}
}
