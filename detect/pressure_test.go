package detect

import (
	"fmt"
	"strings"
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
		{"half, and soon full", usage(500, 1000), Earlier{At: now.Add(-10 * time.Second), Usage: usage(400, 1000)}, Warning, 50 * time.Second},
		{"half, in an hour", usage(500, 1000), Earlier{At: now.Add(-time.Hour), Usage: usage(1, 1000)}, 0, 0},
		{"emptying", usage(900, 1000), Earlier{At: now.Add(-10 * time.Second), Usage: usage(950, 1000)}, Warning, 0},
		{"the clock went back", usage(900, 1000), Earlier{At: now.Add(time.Second), Usage: usage(800, 1000)}, Warning, 0},
	} {
		found := Find(Host{Now: now, Usage: tt.now, Earlier: tt.earlier}, Pressure{})
		switch {
		case tt.want == 0 && len(found) == 0:
		case len(found) != 1 || found[0].Severity != tt.want || found[0].Count != tt.now.Count || found[0].Limit != 1000:
			t.Errorf("%s: %+v", tt.name, found)
		case mentions(found[0].Cause, "is full in") != (tt.until != 0) || tt.until != 0 && !mentions(found[0].Cause, "is full in "+seconds(tt.until)):
			t.Errorf("%s: %s", tt.name, found[0].Cause)
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
	if len(found) != 1 || !mentions(found[0].Cause, "900 of 1000 entries (90 %)", "TIME_WAIT 67 %, ESTABLISHED 33 %", "tcp/443 100 %", client+"/32 100 %", "300 (33 %) that are not assured") {
		t.Fatalf("%+v", found)
	}
	shorter := "`sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=30`"
	if fix := strings.Join(found[0].Fix, "\n"); !mentions(fix, shorter, "`sysctl -w net.netfilter.nf_conntrack_max=2000`", "`conntrack -D -f ipv4 -s "+client+"`") {
		t.Errorf("%s", fix)
	}
	h.Settings = settings(t, map[string]string{"tcp_timeout_time_wait": "30"})
	if fix := strings.Join(Find(h, Pressure{})[0].Fix, "\n"); mentions(fix, shorter) {
		t.Errorf("with a short timeout: %s", fix)
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
		{"clashes are among the drops", stats(0, 0, 0, 0), stats(400, 0, 400, 0), map[string]uint64{"insert_failed": 400}, Warning},
		{"a clash now and then", stats(0, 0, 0, 0), stats(4, 0, 4, 0), nil, 0},
		{"a counter wrapped", stats(1<<32-2, 0, 0, 0), stats(3, 0, 0, 0), map[string]uint64{"drop": 5}, Critical},
		{"long chains", stats(0, 0, 0, 1), stats(0, 0, 0, 3), map[string]uint64{"chaintoolong": 2}, Critical},
		{"long ago", nil, stats(0, 3, 0, 0), map[string]uint64{"early_drop": 3}, Info},
	} {
		h := Host{Now: now, Stats: tt.now, Earlier: Earlier{At: now.Add(-time.Minute), Stats: tt.before}}
		found := Find(h, Pressure{})
		if len(found) != len(tt.want) {
			t.Errorf("%s: %+v", tt.name, found)
			continue
		}
		for _, f := range found {
			word := f.Subject[len("conntrack counter "):]
			if f.Count != tt.want[word] || f.Severity != tt.severity || (f.Severity == Info) != (len(f.Evidence.Missing) > 0) {
				t.Errorf("%s: %+v", tt.name, f)
			}
		}
	}
}
