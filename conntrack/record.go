package conntrack

import (
	"io"
	"iter"
	"time"

	"github.com/connsleuth/connsleuth/internal/record"
)

var recordFormat = record.Format{Name: "connsleuth-flows", Version: 1, Rows: "flows"}

// RecordInfo is what a recording says of itself in its first line.
type RecordInfo struct {
	// Time is when the flows were taken, or their dump was begun.
	Time time.Time
	// Host and Kernel are the name and the kernel release (uname -r) of the
	// machine they were taken on.
	Host, Kernel string
	// Duration and Duplicates are a Snapshot's: how approximate the dump is.
	Duration   time.Duration
	Duplicates int
}

// Record writes flows as they come, in constant memory, so that Replay reads
// them back the same. A recording is gzip over lines of JSON, for zcat, grep and
// jq: the info, with now, this host and its kernel for what is zero in it; the
// flows, as Flow.MarshalJSON writes them; how many they are.
//
// An error among the flows ends the recording, which says so, and is
// returned. That of a write is an *OpError, and what was written then is no
// recording.
func Record(w io.Writer, info RecordInfo, flows iter.Seq2[Flow, error]) error {
	broken, err := record.Write(w, recordFormat, record.Info(info), flows)
	if err != nil {
		return &OpError{Op: "record", Err: err}
	}
	return broken
}

// Record writes the snapshot: see the function Record.
func (s *Snapshot) Record(w io.Writer) error {
	info := RecordInfo{Time: s.Start, Duration: s.Duration, Duplicates: s.Duplicates}
	return Record(w, info, func(yield func(Flow, error) bool) {
		for _, row := range s.Flows {
			if !yield(row, nil) {
				return
			}
		}
	})
}

// Replay reads what Record wrote, compressed or not: the info at once, the
// flows as they are asked for, once, in constant memory. A nil error goes with
// a flow; a non-nil one is the last, and an *OpError. That of a recording that
// ends too early is io.ErrUnexpectedEOF; that of a version this package does
// not know is errors.ErrUnsupported. Whoever met no error has all that was
// recorded.
func Replay(r io.Reader) (RecordInfo, iter.Seq2[Flow, error], error) {
	info, rows, err := record.Read[Flow](r, recordFormat)
	if err != nil {
		return RecordInfo{}, nil, &OpError{Op: "replay", Err: err}
	}
	return RecordInfo(info), func(yield func(Flow, error) bool) {
		for s, err := range rows {
			if err != nil {
				err = &OpError{Op: "replay", Err: err}
			}
			if !yield(s, err) {
				return
			}
		}
	}, nil
}
