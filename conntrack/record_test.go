package conntrack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func seq(flows []Flow, last error) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		for _, f := range flows {
			if !yield(f, nil) {
				return
			}
		}
		if last != nil {
			yield(Flow{}, last)
		}
	}
}

// replay reads a recording to its end or first error.
func replay(r io.Reader) (info RecordInfo, flows []Flow, err error) {
	info, all, err := Replay(r)
	if err != nil {
		return info, nil, err
	}
	for f, err := range all {
		if err != nil {
			return info, flows, err
		}
		flows = append(flows, f)
	}
	return info, flows, nil
}

// recorded is a recording of some flows, compressed and plain.
func recorded(t testing.TB) (flows []Flow, packed, text []byte) {
	t.Helper()
	flows = []Flow{rich(t)}
	for _, b := range decodeInputs(t)[:3] {
		var f Flow
		must(t, decodeFlow(b, &f))
		flows = append(flows, f)
	}
	var b bytes.Buffer
	must(t, Record(&b, RecordInfo{Host: "gw1", Kernel: "6.1.0"}, seq(flows, nil)))
	z, err := gzip.NewReader(bytes.NewReader(b.Bytes()))
	must(t, err)
	text, err = io.ReadAll(z)
	must(t, err)
	return flows, b.Bytes(), text
}

func TestReplay(t *testing.T) {
	want, packed, text := recorded(t)
	for name, b := range map[string][]byte{"compressed": packed, "plain": text} {
		info, got, err := replay(bytes.NewReader(b))
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: %d flows of %d, %v", name, len(got), len(want), err)
		}
		if info.Host != "gw1" || info.Kernel != "6.1.0" || time.Since(info.Time) > patience {
			t.Errorf("%s: %+v", name, info)
		}
		if _, got, err := replay(iotest.OneByteReader(bytes.NewReader(b))); len(got) != len(want) || err != nil {
			t.Errorf("%s, byte by byte: %d flows, %v", name, len(got), err)
		}
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	for i, line := range lines {
		if !json.Valid(line) || i > 0 && i < len(lines)-1 && json.Unmarshal(line, new(Flow)) != nil {
			t.Errorf("line %d is no flow's: %s", i+1, line)
		}
	}
}

// TestRecordSnapshot keeps what a snapshot says of itself.
func TestRecordSnapshot(t *testing.T) {
	s := &Snapshot{Flows: flows(100), Duplicates: 3, Duration: 5, Start: time.Unix(1795252311, 7).UTC()}
	for i := range s.Flows {
		s.Flows[i].Fields = FieldTimeout | FieldTCP | FieldStatus
	}
	var b bytes.Buffer
	must(t, s.Record(&b))
	info, got, err := replay(&b)
	want := RecordInfo{Time: s.Start, Duration: 5, Duplicates: 3, Host: info.Host, Kernel: info.Kernel}
	if diff := cmp.Diff(want, info); diff != "" || !slices.Equal(got, s.Flows) || err != nil {
		t.Errorf("%d flows, %v\n%s", len(got), err, diff)
	}
	if runtime.GOOS == "linux" && info.Kernel == "" {
		t.Error("no kernel release")
	}
}

// TestReplayCut cuts a recording at every byte: none passes for a whole one.
func TestReplayCut(t *testing.T) {
	want, packed, text := recorded(t)
	step := 1
	if testing.Short() {
		step = 7
	}
	for name, b := range map[string][]byte{"compressed": packed, "plain": text[:len(text)-1]} {
		for n := 0; n < len(b); n += step {
			_, got, err := replay(bytes.NewReader(b[:n]))
			if !errors.Is(err, io.ErrUnexpectedEOF) || !isOp(err, "replay") || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("%s, %d bytes of %d: %d flows, %v", name, n, len(b), len(got), err)
			}
		}
	}
}

// TestReplaySpoiled changes every byte of a compressed recording: what comes
// out of one that is read without an error is what was recorded.
func TestReplaySpoiled(t *testing.T) {
	want, packed, _ := recorded(t)
	const header = 10 // of RFC 1952: its time, flags and system are not checked
	for i := header; i < len(packed); i++ {
		packed[i] ^= 0x41
		if _, got, err := replay(bytes.NewReader(packed)); err == nil && !slices.Equal(got, want) {
			t.Fatalf("byte %d: no error", i)
		}
		packed[i] ^= 0x41
	}
}

func TestReplayErrors(t *testing.T) {
	const (
		head  = `{"format":"connsleuth-flows","version":1}` + "\n"
		tuple = `{"original":{"proto":"tcp"},"reply":{"proto":"tcp"}`
		flow  = tuple + "}\n"
		end   = `{"end":{"flows":1}}` + "\n"
	)
	tests := map[string]struct {
		text string
		err  error
		want string
		n    int
	}{
		"empty":          {"", io.ErrUnexpectedEOF, "line 1: unexpected EOF", 0},
		"another format": {`{"format":"flows"}`, nil, `line 1: no recording of flows: its format is "flows", not "connsleuth-flows"`, 0},
		"no recording":   {"tcp 6 9 CLOSE", nil, "line 1: invalid character 'c' in literal true (expecting 'r')", 0},
		"a new version":  {`{"format":"connsleuth-flows","version":2}`, errors.ErrUnsupported, "line 1: version 2 of the format, not 1: unsupported operation", 0},
		"no gzip":        {"\x1f\x8b\x00", io.ErrUnexpectedEOF, "unexpected EOF", 0},
		"no end":         {head + flow, io.ErrUnexpectedEOF, "line 3: unexpected EOF", 1},
		"too few":        {head + end, io.ErrUnexpectedEOF, "line 2: 0 flows, but 1 were recorded: unexpected EOF", 0},
		"too many":       {head + flow + flow + end, io.ErrUnexpectedEOF, "line 4: 2 flows, but 1 were recorded: unexpected EOF", 2},
		"goes on":        {head + flow + end + flow, nil, "line 4: goes on after its end", 1},
		"in part":        {head + flow + `{"end":{"flows":1,"error":"no more"}}`, nil, "line 3: recorded in part: no more", 1},
		"a wrong type":   {head + flow + tuple + `,"mark":"1"}`, nil, "line 3: conntrack: JSON: mark: string is no uint32", 1},
		"no flow":        {head + "{}", nil, "line 2: conntrack: JSON: original: is missing", 0},
		"an empty line":  {head + "\n" + flow + end, io.ErrUnexpectedEOF, "line 2: unexpected EOF: unexpected end of JSON input", 0},
		"a long line":    {head + flow + strings.Repeat(" ", maxLine+1), bufio.ErrTooLong, "line 3: bufio.Scanner: token too long", 1},
	}
	for name, tt := range tests {
		_, got, err := replay(strings.NewReader(tt.text))
		if err == nil || err.Error() != "conntrack: replay: "+tt.want || tt.err != nil && !errors.Is(err, tt.err) || len(got) != tt.n {
			t.Errorf("%s: %d flows, %v; want %d, %s", name, len(got), err, tt.n, tt.want)
		}
	}
}

// TestRecordBroken records what a dump that fails brought.
func TestRecordBroken(t *testing.T) {
	broken := errors.New("the dump failed")
	var b bytes.Buffer
	if err := Record(&b, RecordInfo{}, seq(flows(3), broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	_, got, err := replay(&b)
	if len(got) != 3 || err == nil || err.Error() != "conntrack: replay: line 5: recorded in part: the dump failed" {
		t.Errorf("%d flows, %v", len(got), err)
	}
}

// TestRecordErrors checks that no write that fails goes unseen.
func TestRecordErrors(t *testing.T) {
	full := errors.New("no space left")
	var whole bytes.Buffer
	must(t, Record(&whole, RecordInfo{}, seq(flows(1000), nil)))
	for n := 0; n < whole.Len()*9/10; n += whole.Len() / 10 { // the time in it takes more bytes or less
		if err := Record(&limited{n, full}, RecordInfo{}, seq(flows(1000), nil)); !errors.Is(err, full) || !isOp(err, "record") {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	long := rich(t).WithDetails(Details{Helper: strings.Repeat("x", maxLine)})
	if err := Record(io.Discard, RecordInfo{}, seq([]Flow{long}, nil)); !isOp(err, "record") {
		t.Errorf("a flow that Replay would refuse: %v", err)
	}
}

// limited takes so many bytes.
type limited struct {
	left int
	err  error
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		return 0, l.err
	}
	l.left -= len(b)
	return len(b), nil
}

// TestReplayBomb unpacks much more than it keeps: the memory is a line's.
func TestReplayBomb(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, `{"format":"connsleuth-flows","version":1}`+"\n")
	must(t, err)
	blank := bytes.Repeat([]byte(" "), 1<<20)
	for range 8 {
		_, err = z.Write(blank)
		must(t, err)
	}
	must(t, z.Close())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = replay(&b)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, bufio.ErrTooLong) || grown > 1<<20 {
		t.Errorf("%d bytes allocated, %v", grown, err)
	}
}

// FuzzReplay checks that no bytes panic, and that what is replayed whole is
// recorded and replayed the same.
func FuzzReplay(f *testing.F) {
	_, packed, text := recorded(f)
	f.Add(packed)
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		info, flows, err := replay(bytes.NewReader(b))
		if err != nil {
			if !isOp(err, "replay") {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		must(t, Record(&again, info, seq(flows, nil)))
		if _, got, err := replay(&again); !slices.Equal(got, flows) || err != nil {
			t.Fatalf("%d flows of %d, %v", len(got), len(flows), err)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	list := make([]Flow, 0, 10000)
	for _, f := range flows(cap(list)) {
		f.Fields = FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldID | FieldCounters | FieldStart
		f.ID, f.Start = uint32(f.Original.SrcPort)*2654435761, Timestamp(1795252311<<30+int64(f.Original.SrcPort)<<20)
		list = append(list, f)
	}
	var recording bytes.Buffer
	b.Run("record", func(b *testing.B) {
		for b.Loop() {
			recording.Reset()
			must(b, Record(&recording, RecordInfo{}, seq(list, nil)))
		}
		b.ReportMetric(float64(b.Elapsed())/float64(b.N*len(list)), "ns/flow")
		b.ReportMetric(float64(recording.Len())/float64(len(list)), "B/flow")
	})
	b.Run("replay", func(b *testing.B) {
		for b.Loop() {
			if _, got, err := replay(bytes.NewReader(recording.Bytes())); len(got) != len(list) {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed())/float64(b.N*len(list)), "ns/flow")
	})
}
