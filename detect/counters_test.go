package detect

import (
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

const counted32 = conntrack.StatInsertFailed | conntrack.StatDrop | conntrack.StatEarlyDrop | conntrack.StatSearchRestart |
	conntrack.StatClashResolve | conntrack.StatChainTooLong | conntrack.StatInvalid

// grown is a host on whose first processor the counters have grown in a minute.
func grown(by conntrack.Stats) Host {
	before := conntrack.Stats{Fields: counted32, Drop: 1 << 31, EarlyDrop: 7, InsertFailed: 1<<32 - 1, ClashResolve: 5, ChainTooLong: 3, SearchRestart: 9}
	after := before
	after.Drop += by.Drop
	after.EarlyDrop += by.EarlyDrop
	after.Invalid += by.Invalid
	after.InsertFailed = uint64(uint32(after.InsertFailed + by.InsertFailed)) // wraps
	after.ClashResolve += by.ClashResolve
	after.ChainTooLong += by.ChainTooLong
	after.SearchRestart += by.SearchRestart
	second := conntrack.Stats{CPU: 1, Fields: counted32, Drop: 50}
	return Host{Now: now, Stats: []conntrack.Stats{second, after}, Earlier: Earlier{At: now.Add(-time.Minute), Stats: []conntrack.Stats{before, second}}}
}

func TestPressureCounters(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   conntrack.Stats
		want map[string]uint64 // subject and count
	}{
		{"quiet", conntrack.Stats{}, nil},
		{"table full", conntrack.Stats{Drop: 3}, map[string]uint64{"drop": 3}},
		{"evicted", conntrack.Stats{EarlyDrop: 4}, map[string]uint64{"early_drop": 4}},
		{"a clash now and then", conntrack.Stats{InsertFailed: 59, Drop: 59}, nil},
		{"clashes", conntrack.Stats{InsertFailed: 60, Drop: 60}, map[string]uint64{"insert_failed": 60}},
		{"clashes in a full table", conntrack.Stats{InsertFailed: 60, Drop: 65}, map[string]uint64{"insert_failed": 60, "drop": 5}},
		{"chains", conntrack.Stats{InsertFailed: 80, ChainTooLong: 80}, map[string]uint64{"chaintoolong": 80}},
		{"a scan", conntrack.Stats{Invalid: 5999}, nil},
		{"many strangers", conntrack.Stats{Invalid: 6000}, map[string]uint64{"invalid": 6000}},
		{"races", conntrack.Stats{ClashResolve: 5999}, nil},
		{"many races", conntrack.Stats{ClashResolve: 6000}, map[string]uint64{"clash_resolve": 6000}},
		{"restarts", conntrack.Stats{SearchRestart: 599_999}, nil},
		{"many restarts", conntrack.Stats{SearchRestart: 600_000}, map[string]uint64{"search_restart": 600_000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := grown(tt.by)
			found := pure(t, Pressure{}, h)
			for _, f := range found {
				if n := tt.want[f.Subject[len("conntrack counter "):]]; n == 0 || f.Count != n || f.Confidence != Likely || !f.Since.Equal(h.Earlier.At) || !mentions(f.Cause, "in the last 60s") {
					t.Errorf("got %v", f)
				}
			}
			if len(found) != len(tt.want) {
				t.Errorf("%d findings: %v", len(found), found)
			}
		})
	}
}

// Since boot they are told with less weight, and only those of which none is
// normal.
func TestPressureSinceBoot(t *testing.T) {
	h := grown(conntrack.Stats{InsertFailed: 1000, ClashResolve: 1e6})
	for name, change := range map[string]func(){
		"no earlier reading":  func() { h.Earlier = Earlier{} },
		"the clock went back": func() { h.Earlier = Earlier{At: now.Add(time.Second), Stats: h.Stats} },
	} {
		change()
		found := pure(t, Pressure{}, h)
		if len(found) != 3 { // drop, early_drop, chaintoolong
			t.Errorf("%s: %v", name, found)
		}
		for _, f := range found {
			if f.Severity != Info || f.Confidence != Possible || len(f.Evidence.Missing) != 1 || !f.Since.IsZero() {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// The kernel's log makes a drop certain, and tells alone that there was one.
func TestPressureLog(t *testing.T) {
	line := "[12345.678901] nf_conntrack: nf_conntrack: table full, dropping packet"
	log := []string{"[1.0] eth0: link up", line, line, line, line}
	h := grown(conntrack.Stats{Drop: 3})
	h.Log = log
	if found := pure(t, Pressure{}, h); len(found) != 1 || found[0].Confidence != Certain || len(found[0].Evidence.Log) != 3 || found[0].Evidence.Log[0] != line {
		t.Errorf("with a counter: %v", found)
	}
	if found := pure(t, Pressure{}, Host{Now: now, Log: log}); len(found) != 1 || found[0].Severity != Warning || found[0].Subject != "kernel log" {
		t.Errorf("alone: %v", found)
	}
	if found := pure(t, Pressure{}, Host{Now: now, Log: []string{"ip_conntrack: table full, dropping packet."}}); len(found) != 1 {
		t.Errorf("of Linux 2.6: %v", found)
	}
	if found := pure(t, Pressure{}, Host{Now: now, Log: []string{"[24606.606879] nf_conntrack: nf_conntrack: table full in netns 4026536917, dropping packet"}}); len(found) != 1 {
		t.Errorf("of Linux 6.18: %v", found)
	}
	if found := pure(t, Pressure{}, Host{Now: now, Log: log[:1]}); len(found) != 0 {
		t.Errorf("another line: %v", found)
	}
}
