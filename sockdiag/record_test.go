package sockdiag

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// replay reads a recording to its end or first error.
func replay(r io.Reader) (info RecordInfo, sockets []Socket, err error) {
	info, all, err := Replay(r)
	if err != nil {
		return info, nil, err
	}
	for s, err := range all {
		if err != nil {
			return info, sockets, err
		}
		sockets = append(sockets, s)
	}
	return info, sockets, nil
}

func sockets(rows []Socket, last error) func(func(Socket, error) bool) {
	return func(yield func(Socket, error) bool) {
		for _, s := range rows {
			if !yield(s, nil) {
				return
			}
		}
		if last != nil {
			yield(Socket{}, last)
		}
	}
}

// recorded is a recording of some sockets, compressed and plain.
func recorded(t testing.TB) (rows []Socket, packed, text []byte) {
	t.Helper()
	rows = samples(t)[:6]
	var b bytes.Buffer
	err := Record(&b, RecordInfo{Host: "gw1", Kernel: "6.1.0"}, sockets(rows, nil))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b.Bytes()))
	if err == nil {
		text, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rows, b.Bytes(), text
}

func isReplay(err error) bool {
	op, ok := errors.AsType[*OpError](err)
	return ok && op.Op == "replay"
}

func TestReplay(t *testing.T) {
	want, packed, text := recorded(t)
	for name, b := range map[string][]byte{"compressed": packed, "plain": text} {
		info, got, err := replay(iotest.OneByteReader(bytes.NewReader(b)))
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: %d sockets of %d, %v", name, len(got), len(want), err)
		}
		if info.Host != "gw1" || info.Kernel != "6.1.0" || time.Since(info.Time) > time.Minute {
			t.Errorf("%s: %+v", name, info)
		}
	}
	_, all, _ := Replay(bytes.NewReader(packed))
	for range all {
		break
	}
}

// TestRecordSnapshot keeps what a snapshot says of itself.
func TestRecordSnapshot(t *testing.T) {
	s := &Snapshot{Sockets: samples(t), Duplicates: 3, Duration: 5, Start: time.Unix(1795252311, 7).UTC()}
	var b bytes.Buffer
	if err := s.Record(&b); err != nil {
		t.Fatal(err)
	}
	info, got, err := replay(&b)
	want := RecordInfo{Time: s.Start, Duration: 5, Duplicates: 3, Host: info.Host, Kernel: info.Kernel}
	if info != want || !slices.Equal(got, s.Sockets) || err != nil {
		t.Errorf("%+v, %d sockets, %v", info, len(got), err)
	}
}

// TestReplayCut cuts a recording at every byte, and spoils every byte: none
// passes for a whole one.
func TestReplayCut(t *testing.T) {
	want, packed, text := recorded(t)
	for name, b := range map[string][]byte{"compressed": packed, "plain": text[:len(text)-1]} {
		step := 1
		if testing.Short() {
			step = 13
		}
		for n := 0; n < len(b); n += step {
			_, got, err := replay(bytes.NewReader(b[:n]))
			if !errors.Is(err, io.ErrUnexpectedEOF) || !isReplay(err) || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("%s, %d bytes of %d: %d sockets, %v", name, n, len(b), len(got), err)
			}
		}
	}
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
		head = `{"format":"connsleuth-sockets","version":1}` + "\n"
		row  = `{"protocol":"tcp","family":"IPv4","state":"LISTEN"}` + "\n"
		end  = `{"end":{"sockets":1}}` + "\n"
	)
	for text, want := range map[string]struct {
		err error
		msg string
	}{
		"":                                   {io.ErrUnexpectedEOF, "line 1: unexpected EOF"},
		`{"format":"connsleuth-flows"}`:      {nil, `line 1: no recording of sockets: its format is "connsleuth-flows", not "connsleuth-sockets"`},
		strings.Replace(head, "1", "2", 1):   {errors.ErrUnsupported, "line 1: version 2 of the format, not 1: unsupported operation"},
		head + end:                           {io.ErrUnexpectedEOF, "line 2: 0 sockets, but 1 were recorded: unexpected EOF"},
		head + row + row + end:               {io.ErrUnexpectedEOF, "line 4: 2 sockets, but 1 were recorded: unexpected EOF"},
		head + row + end + row:               {nil, "line 4: goes on after its end"},
		head + row + `{"end":{"error":"x"}}`: {nil, "line 3: recorded in part: x"},
		head + row + `{"end":{}}`:            {io.ErrUnexpectedEOF, "line 3: 1 sockets, but <nil> were recorded: unexpected EOF"},
		head + `{"protocol":1}`:              {nil, "line 2: sockdiag: JSON: protocol: number is no string"},
		head + strings.Repeat("x", 1<<17):    {nil, "line 2: bufio.Scanner: token too long"},
		"\x1f\x8b?":                          {nil, "unexpected EOF"},
	} {
		_, _, err := replay(strings.NewReader(text))
		if err == nil || err.Error() != "sockdiag: replay: "+want.msg || !isReplay(err) || want.err != nil && !errors.Is(err, want.err) {
			t.Errorf("%.80s\ngot  %v\nwant %s", text, err, want.msg)
		}
	}
}

func TestRecordErrors(t *testing.T) {
	var b bytes.Buffer
	broken := errors.New("dump broke")
	if err := Record(&b, RecordInfo{}, sockets(samples(t)[:2], broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, got, err := replay(&b); len(got) != 2 || err == nil || !strings.Contains(err.Error(), "recorded in part: dump broke") {
		t.Errorf("%d sockets, %v", len(got), err)
	}
	full := Record(failingWriter{}, RecordInfo{}, sockets(nil, nil))
	if op, ok := errors.AsType[*OpError](full); !ok || op.Op != "record" || !errors.Is(full, io.ErrShortWrite) {
		t.Errorf("got %v", full)
	}
	long := samples(t)[0].WithDetails(Details{ULP: strings.Repeat("x", 1<<17)})
	if err := Record(&b, RecordInfo{}, sockets([]Socket{long}, nil)); err == nil || !strings.Contains(err.Error(), "want 65536 at most") {
		t.Errorf("got %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
