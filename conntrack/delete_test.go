package conntrack

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// identified are n flows as if from the kernel.
func identified(n int) []Flow {
	list := flows(n)
	for i := range list {
		list[i].ID, list[i].Fields = uint32(i+1), FieldID
	}
	return list
}

// terse answers as kernels do: refusals, and success where it is asked for.
func terse(r nfnltest.Request, errno syscall.Errno) [][]byte {
	if errno != 0 || r.Flags&nfnl.Ack != 0 {
		return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
	}
	return nil
}

// TestDeleteAllBroken loses the answers to the second batch: what became of it is
// unknown, and no third one is sent.
func TestDeleteAllBroken(t *testing.T) {
	requests := 0
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if requests++; requests == chunkSize+1 {
			return [][]byte{nil}
		}
		if requests > chunkSize {
			return nil
		}
		return terse(r, 0)
	})
	report, err := c.DeleteAll(t.Context(), slices.Values(identified(1000)), nil)
	want := DeleteReport{Deleted: chunkSize, Unknown: chunkSize, Duration: report.Duration}
	if report != want || !errors.Is(err, ErrOverrun) || !isOp(err, "delete") || requests != 2*chunkSize {
		t.Errorf("%v, %v after %d requests; want %v", report, err, requests, want)
	}
}

// TestDeleteAllLookUpBroken loses the answers that would tell gone entries from
// changed ones: either way they are gone.
func TestDeleteAllLookUpBroken(t *testing.T) {
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Type == subsystem<<8|opDelete {
			return terse(r, syscall.ENOENT)
		}
		return [][]byte{nil}
	})
	report, err := c.DeleteAll(t.Context(), slices.Values(identified(3)), nil)
	if want := (DeleteReport{Gone: 3, Duration: report.Duration}); report != want || !errors.Is(err, ErrOverrun) {
		t.Errorf("%v, %v; want %v", report, err, want)
	}
}

// TestDeleteAllRefused tells refusals from what is gone, and goes on.
func TestDeleteAllRefused(t *testing.T) {
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		var f Flow
		must(t, decodeFlow(r.Data, &f))
		if r.Type == subsystem<<8|opDelete && f.ID%10 == 0 {
			return terse(r, syscall.EBUSY)
		}
		return terse(r, 0)
	})
	list := identified(300)
	var refused []uint32
	report, err := c.DeleteAll(t.Context(), slices.Values(list), &DeleteOptions{Outcome: func(f Flow, o DeleteOutcome, err error) {
		if o == Refused && errors.Is(err, syscall.EBUSY) {
			refused = append(refused, f.ID)
		}
	}})
	if want := (DeleteReport{Deleted: 270, Refused: 30, Duration: report.Duration}); report != want || err != nil || len(refused) != 30 || refused[0] != 10 {
		t.Errorf("%v, %v, %v; want %v", report, err, refused, want)
	}
}

// TestDeleteAllNothing asks nothing of the kernel for an empty sequence, nor for
// flows that are no entries.
func TestDeleteAllNothing(t *testing.T) {
	c, _ := fake(t, func(nfnltest.Request) [][]byte { t.Error("asked the kernel"); return nil })
	for _, given := range [][]Flow{nil, make([]Flow, 200)} {
		report, err := c.DeleteAll(t.Context(), slices.Values(given), nil)
		if want := (DeleteReport{Refused: len(given), Duration: report.Duration}); report != want || err != nil {
			t.Errorf("%v, %v; want %v", report, err, want)
		}
	}
}

// TestDeleteMatchingWhereFiltersAreIgnored has a kernel that dumps everything,
// whatever it is asked, and notes what it is to delete.
func TestDeleteMatchingWhereFiltersAreIgnored(t *testing.T) {
	tcp, udp, udp6 := parse(t, lineTCP), parse(t, lineUDP), parse(t, lineUDP6)
	for _, last := range []syscall.Errno{0, syscall.EINTR} {
		var deleted []uint32
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if r.Type == subsystem<<8|opGet {
				return [][]byte{row(r, tcp), row(r, udp), row(r, udp6), nfnltest.Done(r.Seq, last)}
			}
			var f Flow
			must(t, decodeFlow(r.Data, &f))
			deleted = append(deleted, f.ID)
			return terse(r, 0)
		})
		report, err := c.DeleteMatching(t.Context(), &Filter{IPv4Only: true, StatusUnset: SeenReply}, nil)
		if !slices.Equal(deleted, []uint32{udp.ID}) || report.Deleted != 1 || report.Total() != 1 {
			t.Errorf("deleted %v: %v", deleted, report)
		}
		if (last == 0) != (err == nil) || last != 0 && (!errors.Is(err, last) || !isOp(err, "dump")) {
			t.Errorf("the dump ended with %v: %v", last, err)
		}
	}
}

// TestFlushOfOldKernels has a kernel that wants a family.
func TestFlushOfOldKernels(t *testing.T) {
	var families []byte
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Type != subsystem<<8|opDelete || len(r.Data) != nfgenmsgLen {
			t.Errorf("type %#x, %v", r.Type, r.Data)
		}
		families = append(families, r.Data[0])
		if r.Data[0] == familyUnspec {
			return terse(r, syscall.EINVAL)
		}
		return terse(r, 0)
	})
	if err := c.Flush(t.Context()); err != nil || !slices.Equal(families, []byte{familyUnspec, familyIPv4, familyIPv6}) {
		t.Errorf("%v, of families %v", err, families)
	}
}

func TestDeleteReportString(t *testing.T) {
	for want, r := range map[string]DeleteReport{
		"nothing to delete, in 0s":                          {},
		"deleted 3, gone 1, in 1.235ms":                     {Deleted: 3, Gone: 1, Duration: 1234567},
		"would delete 2, stopped at the limit, in 1s":       {WouldDelete: 2, Limited: true, Duration: time.Second},
		"changed 1, refused 2, unknown 3, skipped 4, in 0s": {Changed: 1, Refused: 2, Unknown: 3, Skipped: 4},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := DeleteOutcome(99).String() + ", " + DeleteOutcome(0).String(); got != "outcome 99, outcome 0" {
		t.Errorf("got %s", got)
	}
}
