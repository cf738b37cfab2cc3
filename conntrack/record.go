package conntrack

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"
)

const (
	recordFormat  = "connsleuth-flows"
	recordVersion = 1
)

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

type recordHeader struct {
	Format     string        `json:"format"`
	Version    int           `json:"version"`
	Time       time.Time     `json:"time"`
	Host       string        `json:"host"`
	Kernel     string        `json:"kernel"`
	Duration   time.Duration `json:"duration_ns"`
	Duplicates int           `json:"duplicates"`
}

// recordEnd is the last line of a recording.
type recordEnd struct {
	Flows int64 `json:"flows"`
	// Error is what ended the flows before their end.
	Error string `json:"error,omitempty"`
}

// recordLine is any line after the first.
type recordLine struct {
	flowJSON
	End *recordEnd `json:"end"`
}

// Record writes flows as they come, in constant memory, so that Replay reads
// them back the same. A recording is gzip over lines of JSON, for zcat, grep and
// jq: the info, with now, this host and its kernel for what is zero in it; the
// flows, as Flow.MarshalJSON writes them; how many they are.
//
// An error among the flows ends the recording, which says so, and is returned.
// That of a write is an *OpError, and what was written then is no recording.
func Record(w io.Writer, info RecordInfo, flows iter.Seq2[Flow, error]) error {
	z := gzip.NewWriter(w)
	lines := newLineWriter(z)
	var end recordEnd
	var broken error
	err := lines.write(info.header())
	for f, ferr := range flows {
		if err != nil || ferr != nil {
			broken = ferr
			break
		}
		end.Flows++
		err = lines.flow(&f)
	}
	if broken != nil {
		end.Error = broken.Error()
	}
	if err == nil {
		err = lines.write(struct {
			End recordEnd `json:"end"`
		}{end})
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return &OpError{Op: "record", Err: err}
	}
	return broken
}

// Record writes the snapshot: see the function Record.
func (s *Snapshot) Record(w io.Writer) error {
	info := RecordInfo{Time: s.Start, Duration: s.Duration, Duplicates: s.Duplicates}
	return Record(w, info, func(yield func(Flow, error) bool) {
		for _, f := range s.Flows {
			if !yield(f, nil) {
				return
			}
		}
	})
}

func (i RecordInfo) header() recordHeader {
	h := recordHeader{recordFormat, recordVersion, i.Time, i.Host, i.Kernel, i.Duration, i.Duplicates}
	if h.Time.IsZero() {
		h.Time = time.Now()
	}
	h.Time = h.Time.UTC()
	if h.Host == "" {
		h.Host, _ = os.Hostname() // empty where it has none
	}
	if h.Kernel == "" {
		release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // not on other systems
		h.Kernel = strings.TrimSpace(string(release))
	}
	return h
}

// lineWriter writes values as lines that Replay takes.
type lineWriter struct {
	w    io.Writer
	line bytes.Buffer
	json *json.Encoder
}

func newLineWriter(w io.Writer) *lineWriter {
	l := &lineWriter{w: w}
	l.json = json.NewEncoder(&l.line)
	l.json.SetEscapeHTML(false) // it is read by people, too
	return l
}

func (l *lineWriter) flow(f *Flow) error {
	j, err := newFlowJSON(f)
	if err != nil {
		return err
	}
	return l.write(j)
}

func (l *lineWriter) write(v any) error {
	l.line.Reset()
	if err := l.json.Encode(v); err != nil {
		return err
	}
	if l.line.Len() > maxLine {
		return fmt.Errorf("a line of %d bytes, want %d at most", l.line.Len(), maxLine)
	}
	_, err := l.w.Write(l.line.Bytes())
	return err
}
