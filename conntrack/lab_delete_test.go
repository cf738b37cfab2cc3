package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// outcome is what DeleteOptions.Outcome was told.
type outcome struct {
	flow    Flow
	outcome DeleteOutcome
	err     error
}

// TestDeleteAllOutcomes gives flows of each fate, first to a dry run, which
// foretells them.
func TestDeleteAllOutcomes(t *testing.T) {
	c, _ := emptyTable(t)
	table := innocents(t, c)
	gone := create(t, c, entry(tuple(ProtoUDP, "10.0.0.9:1", "10.0.0.2:53")))[0]
	must(t, c.Delete(within(t), gone))
	changed, noID, twoZones := table[0], table[2], table[1]
	changed.ID++
	noID.Fields &^= FieldID
	twoZones.OriginalZone = 5
	given := []Flow{table[3], gone, changed, noID, twoZones, table[1]}
	want := []DeleteOutcome{Deleted, Gone, Changed, Refused, Refused, Deleted}
	for _, dry := range []bool{true, false} {
		if !dry {
			given, want = append(given, table[3]), append(want, Gone) // the second time
		}
		var told []outcome
		report, err := c.DeleteAll(within(t), slices.Values(given), &DeleteOptions{DryRun: dry, Outcome: func(f Flow, o DeleteOutcome, err error) {
			told = append(told, outcome{f, o, err})
		}})
		deleted, foretold := 2, 0
		if dry {
			deleted, foretold = 0, 2
			holds(t, c, table)
		}
		sum := DeleteReport{Deleted: deleted, WouldDelete: foretold, Gone: len(given) - 5, Changed: 1, Refused: 2, Duration: report.Duration}
		if err != nil || report != sum || report.Total() != len(given) || report.Duration <= 0 {
			t.Errorf("dry %v: %v, %v; want %v", dry, report, err, sum)
		}
		for i, o := range told {
			if dry && o.outcome == WouldDelete {
				o.outcome = Deleted
			}
			if o.flow != given[i] || o.outcome != want[i] || (o.err != nil) != (o.outcome == Refused) || o.err != nil && !isOp(o.err, "delete") {
				t.Errorf("dry %v: %v: %v, %v; want %v", dry, o.flow, o.outcome, o.err, want[i])
			}
		}
		if len(told) != len(given) {
			t.Errorf("dry %v: told of %d", dry, len(told))
		}
	}
	holds(t, c, []Flow{table[0], table[2]})
}

// TestDeleteAllOfADump deletes half of a table while it is dumped, in many
// batches.
func TestDeleteAllOfADump(t *testing.T) {
	c, _ := emptyTable(t)
	const n = 2000
	fill(t, c, flows(n))
	var chunks []int
	half := func(yield func(Flow) bool) {
		for f, err := range c.All(within(t), nil) {
			if must(t, err); f.Original.SrcPort%2 == 0 && !yield(f) {
				return
			}
		}
	}
	report, err := c.DeleteAll(within(t), half, &DeleteOptions{Progress: func(r DeleteReport) { chunks = append(chunks, r.Deleted) }})
	if err != nil || report.Deleted != n/2 || report.Total() != n/2 {
		t.Errorf("%v, %v", report, err)
	}
	if len(chunks) != n/2/chunkSize+2 || chunks[0] != chunkSize || chunks[len(chunks)-1] != n/2 {
		t.Errorf("progress %v", chunks)
	}
	for f, err := range c.All(within(t), nil) {
		if must(t, err); f.Original.SrcPort%2 == 0 {
			t.Errorf("%v is left", f)
		}
	}
	if left := count(t, c, nil); left != n/2 {
		t.Errorf("%d are left", left)
	}
}

// TestDeleteAllLimit removes as many as the limit says, however many of the
// flows are gone.
func TestDeleteAllLimit(t *testing.T) {
	c, _ := emptyTable(t)
	const n = 400
	fill(t, c, flows(n))
	s, err := c.Snapshot(within(t), nil)
	must(t, err)
	must(t, c.Delete(within(t), s.Flows[0]), c.Delete(within(t), s.Flows[7]))
	left := n - 2
	for _, tt := range []struct {
		limit, deleted int
		limited        bool
	}{{1, 1, true}, {127, 127, true}, {130, 130, true}, {n, n - 258 - 2, false}, {1, 0, false}} {
		dry, err := c.DeleteAll(within(t), slices.Values(s.Flows), &DeleteOptions{Limit: tt.limit, DryRun: true})
		if err != nil || dry.WouldDelete != tt.deleted || dry.Limited != tt.limited {
			t.Errorf("limit %d, dry run: %v, %v", tt.limit, dry, err)
		}
		report, err := c.DeleteAll(within(t), slices.Values(s.Flows), &DeleteOptions{Limit: tt.limit})
		if err != nil || report.Deleted != tt.deleted || report.Limited != tt.limited {
			t.Errorf("limit %d: %v, %v", tt.limit, report, err)
		}
		if left -= tt.deleted; count(t, c, nil) != left {
			t.Errorf("limit %d: %d are left, want %d", tt.limit, count(t, c, nil), left)
		}
	}
	if report, err := c.DeleteAll(within(t), slices.Values(s.Flows), &DeleteOptions{Limit: -1}); !isOp(err, "delete") || report.Total() != 0 {
		t.Errorf("negative limit: %v, %v", report, err)
	}
}

// TestDeleteAllCancelled breaks off after a while: the report tells what was
// removed.
func TestDeleteAllCancelled(t *testing.T) {
	c, _ := emptyTable(t)
	const n = 1000
	fill(t, c, flows(n))
	s, err := c.Snapshot(within(t), nil)
	must(t, err)
	cause := errors.New("the operator's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	report, err := c.DeleteAll(ctx, slices.Values(s.Flows), &DeleteOptions{Progress: func(r DeleteReport) {
		if r.Deleted == 2*chunkSize {
			cancel(cause)
		}
	}})
	want := DeleteReport{Deleted: 2 * chunkSize, Skipped: chunkSize, Duration: report.Duration}
	if report != want || !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || !isOp(err, "delete") {
		t.Errorf("%v, %v; want %v", report, err, want)
	}
	if left := count(t, c, nil); left != n-report.Deleted {
		t.Errorf("%d are left, want %d", left, n-report.Deleted)
	}
}

// TestDeleteAllCancelledAnywhere breaks off at any moment. The kernel has answered
// what was sent, so that nothing of it is unknown.
func TestDeleteAllCancelledAnywhere(t *testing.T) {
	c, _ := emptyTable(t)
	const n = 600
	for i := range 10 {
		fill(t, c, flows(n))
		s, err := c.Snapshot(within(t), nil)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		report, err := c.DeleteAll(ctx, slices.Values(s.Flows), nil)
		cancel()
		left := count(t, c, nil)
		if report.Deleted != n-left || report.Unknown != 0 || report.Deleted+report.Skipped != report.Total() {
			t.Errorf("%v, %v, and %d of %d are left", report, err, left, n)
		}
		if (err != nil) != errors.Is(err, context.DeadlineExceeded) || err == nil && left > 0 {
			t.Errorf("%v, and %d are left", err, left)
		}
		must(t, c.Flush(within(t)))
	}
}

// TestDeleteAllAllocatesNothingPerFlow counts allocations: those of a batch of
// 128, and those of the call.
func TestDeleteAllAllocatesNothingPerFlow(t *testing.T) {
	c, _ := emptyTable(t)
	allocations := func(n int) float64 {
		fill(t, c, flows(n))
		s, err := c.Snapshot(t.Context(), nil)
		must(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		report, err := c.DeleteAll(t.Context(), slices.Values(s.Flows), nil)
		runtime.ReadMemStats(&after)
		if err != nil || report.Deleted != n {
			t.Errorf("%v, %v", report, err)
		}
		return float64(after.Mallocs - before.Mallocs)
	}
	few, many := allocations(1000), allocations(5000)
	if perFlow := (many - few) / 4000; perFlow > 0.15 {
		t.Errorf("%v allocations per flow: %v for 1000 flows, %v for 5000", perFlow, few, many)
	}
}

// TestDeleteMatching removes a family, then a protocol, after a dry run of each.
func TestDeleteMatching(t *testing.T) {
	c, _ := emptyTable(t)
	table := innocents(t, c) // TCP in two zones, UDP over IPv6, ICMP
	for _, tt := range []struct {
		filter Filter
		match  []int
		left   []Flow
	}{
		{Filter{IPv6Only: true}, []int{2}, []Flow{table[0], table[1], table[3]}},
		{Filter{IPv6Only: true}, nil, []Flow{table[0], table[1], table[3]}},
		{Filter{Proto: ProtoTCP, Src: netip.MustParsePrefix("10.0.0.0/8")}, []int{0, 1}, []Flow{table[3]}},
	} {
		dry, err := c.DeleteMatching(within(t), &tt.filter, &DeleteOptions{DryRun: true})
		if err != nil || dry.WouldDelete != len(tt.match) || dry.Deleted != 0 {
			t.Errorf("%+v, dry run: %v, %v", tt.filter, dry, err)
		}
		report, err := c.DeleteMatching(within(t), &tt.filter, nil)
		if err != nil || report.Deleted != len(tt.match) || report.Total() != len(tt.match) {
			t.Errorf("%+v: %v, %v", tt.filter, report, err)
		}
		holds(t, c, tt.left)
	}
	if _, err := c.DeleteMatching(within(t), &Filter{}, nil); err == nil || !strings.Contains(err.Error(), "Flush") {
		t.Errorf("zero filter: %v", err)
	}
}

// TestDeleteAllReplaced lets another entry take the tuple between dump and
// deletion, as port reuse does: it stays.
func TestDeleteAllReplaced(t *testing.T) {
	c, _ := emptyTable(t)
	old := create(t, c, entry(tupleTCP))[0]
	var report DeleteReport
	replaced := iter.Seq[Flow](func(yield func(Flow) bool) {
		must(t, c.Delete(within(t), old))
		later := create(t, c, entry(tuple(ProtoTCP, "10.0.1.1:1", "10.0.0.2:443")), entry(tupleTCP))[1]
		old.ID = later.ID + 1 // whatever memory it was given
		yield(old)
	})
	report, err := c.DeleteAll(within(t), replaced, nil)
	if err != nil || report.Changed != 1 || report.Total() != 1 {
		t.Errorf("%v, %v", report, err)
	}
	if _, err := c.Get(within(t), tupleTCP, 0); errors.Is(err, fs.ErrNotExist) {
		t.Error("the later entry was removed")
	}
}
