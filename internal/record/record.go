// Package record is the form of recordings: gzip over lines of JSON, for zcat,
// grep and jq. The first line says what it is, the last how many rows came
// between. Writing and reading take constant memory.
package record

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

// Format is a kind of recording.
type Format struct {
	Name    string // "connsleuth-sockets"
	Version int
	Rows    string // what the last line counts: "sockets"
}

// Info is what a recording says of itself in its first line.
type Info struct {
	Time         time.Time
	Host, Kernel string
	Duration     time.Duration
	Duplicates   int
}

type header struct {
	Format     string        `json:"format"`
	Version    int           `json:"version"`
	Time       time.Time     `json:"time"`
	Host       string        `json:"host"`
	Kernel     string        `json:"kernel"`
	Duration   time.Duration `json:"duration_ns"`
	Duplicates int           `json:"duplicates"`
}

// maxLine bytes are the most a line may have.
const maxLine = 64 << 10

// Write writes the info, with now, this host and its kernel for what is zero in
// it, the rows, and how many they are. An error among the rows ends the
// recording, which says so, and is returned as rowErr; err is that of a write,
// after which there is no recording.
func Write[T any](w io.Writer, f Format, info Info, rows iter.Seq2[T, error]) (rowErr, err error) {
	z := gzip.NewWriter(w)
	lines := newLineWriter(z)
	n := int64(0)
	err = lines.write(info.header(f))
	for row, broken := range rows {
		if err != nil || broken != nil {
			rowErr = broken
			break
		}
		n++
		err = lines.write(row)
	}
	if err == nil {
		err = lines.write(f.end(n, rowErr))
	}
	if err == nil {
		err = z.Close()
	}
	return rowErr, err
}

// end is the last line: {"end":{"sockets":7}}.
func (f Format) end(n int64, broken error) any {
	end := map[string]any{f.Rows: n}
	if broken != nil {
		end["error"] = broken.Error()
	}
	return map[string]any{"end": end}
}

func (i Info) header(f Format) header {
	h := header{f.Name, f.Version, i.Time, i.Host, i.Kernel, i.Duration, i.Duplicates}
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

// lineWriter writes values as lines that Read takes.
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
