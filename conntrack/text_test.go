package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestReadFlows reads the lines of testdata/lines.txt, writes each back as it
// was, and reads what it wrote to the same flow.
func TestReadFlows(t *testing.T) {
	inUTC(t)
	lines := textLines(t, "lines.txt")
	n := 0
	for f, err := range ReadFlows(strings.NewReader(strings.Join(lines, "\n"))) {
		if err != nil {
			t.Error(err)
			continue
		}
		got := string(f.Append(nil, layoutOf(lines[n])))
		if want := written(lines[n]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if again, err := ParseFlow(got); again != f || err != nil {
			t.Errorf("%s\nread again: %+v, %v\nwant %+v", got, plain(again), err, plain(f))
		}
		n++
	}
	if n != len(lines) {
		t.Errorf("%d flows of %d lines", n, len(lines))
	}
}

// TestReadEvents does the same with testdata/events.txt.
func TestReadEvents(t *testing.T) {
	inUTC(t)
	lines := textLines(t, "events.txt")
	n := 0
	for e, err := range ReadEvents(strings.NewReader(strings.Join(lines, "\n"))) {
		if err != nil {
			t.Error(err)
			continue
		}
		got := string(e.Append(nil, layoutOf(lines[n])))
		if want := written(lines[n]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if again, err := ParseEvent(got); again != e || err != nil {
			t.Errorf("%s\nread again: %+v, %v\nwant %+v", got, again, err, e)
		}
		n++
	}
	if n != len(lines) {
		t.Errorf("%d events of %d lines", n, len(lines))
	}
}

// textLines are the lines of a file of testdata, without its comments.
func textLines(t testing.TB, name string) []string {
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"),
		func(line string) bool { return strings.HasPrefix(line, "#") })
}

// inUTC makes UTC the local time zone, in which the lines were printed.
func inUTC(t testing.TB) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

const everyLayout = LayoutFamily | LayoutID | LayoutLabels | LayoutTimes | LayoutAt | LayoutPort

// layoutOf is the layout that writes the line: what is absent is left out.
func layoutOf(line string) Layout {
	if strings.Contains(line, "ipv4     2 ") || strings.Contains(line, "ipv6     10 ") {
		return everyLayout
	}
	return everyLayout &^ LayoutFamily
}

var (
	notKept = regexp.MustCompile(` (delta-time|timeout|stream_timeout|progname)=\S+`)
	spaced  = regexp.MustCompile(`^(\w+ +)(\d+) +`) // of old kernels
	address = regexp.MustCompile(`[\da-f:]{39}`)
)

// written is the line as it is written when it was read: without the keys that
// are not kept, addresses in their short form, in the usual spacing.
func written(line string) string {
	line = notKept.ReplaceAllString(line, "")
	line = address.ReplaceAllStringFunc(line, func(s string) string {
		return string(appendAddr(nil, netip.MustParseAddr(s)))
	})
	if m := spaced.FindStringSubmatch(line); m != nil && !strings.HasPrefix(line, "ip") {
		line = fmt.Sprintf("%-8s %s %s", strings.TrimSpace(m[1]), m[2], line[len(m[0]):])
		line = strings.ReplaceAll(line, "  dport", " dport")
	}
	return line
}

// TestParseGhost is the line the ghost incident was found by.
func TestParseGhost(t *testing.T) {
	const line = "ipv4     2 tcp      6 431965 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 mark=0 secmark=0 use=2"
	f, err := ParseFlow(line)
	orig := Tuple{Src: netip.MustParseAddr("10.1.32.70"), Dst: netip.MustParseAddr("10.1.41.192"),
		SrcPort: 9102, DstPort: 51522, Proto: ProtoTCP}
	want := Flow{Original: orig, Reply: orig.Invert(), TCP: TCPInfo{State: TCPEstablished},
		Timeout: 431965 * time.Second, Use: 2,
		Fields: FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldSecmark | FieldUse}
	if f != want || err != nil {
		t.Errorf("got %+v, %v\nwant %+v", plain(f), err, plain(want))
	}
	if !f.Unreplied() || f.Assured() || f.Translated() {
		t.Error("want unreplied, not assured, not translated")
	}
	if got := string(f.Append(nil, LayoutFamily)); got != line {
		t.Errorf("got  %s\nwant %s", got, line)
	}
}

func TestParseErrors(t *testing.T) {
	const tuple = "src=1.2.3.4 dst=1.2.3.5 sport=1 dport=2"
	tests := []struct{ line, want string }{
		{"tcp", `conntrack: column 4: want a number of 8 bits`},
		{"tcp 300 " + tuple, `conntrack: column 5: "300": want a number of 8 bits`},
		{"tcp 17 9 " + tuple, `conntrack: column 5: "17": is udp, but the protocol was named "tcp"`},
		{"tcp 6 9 OPEN " + tuple, `conntrack: column 9: "OPEN": not a TCP state of conntrack`},
		{"tcp 6 9 CLOSE src=1.2.3", `conntrack: column 15: "src=1.2.3": want an IP address`},
		{"tcp 6 9 CLOSE src=1.2.3.4 src=1.2.3.5", `conntrack: column 38: the original tuple is not whole, or has keys of another protocol`},
		{"tcp 6 9 CLOSE src=1.2.3.4 dst=1.2.3.5 sport=1 sport=2", `conntrack: column 47: "sport=2": comes twice in one tuple`},
		{"tcp 6 9 CLOSE src=1.2.3.4 dst=1.2.3.5 sport=65536", `conntrack: column 39: "sport=65536": want a number of 16 bits`},
		{"tcp 6 9 CLOSE " + tuple, `conntrack: column 54: the reply tuple is not whole, or has keys of another protocol`},
		{"tcp 6 9 CLOSE " + tuple + " " + tuple + " word", `conntrack: column 95: "word": want key=value or a word in brackets`},
		{"tcp 6 9 CLOSE src=1.2.3.4 dst=::1 sport=1 dport=2 " + tuple, `conntrack: column 90: the addresses are of different families`},
		{"ipv6 10 tcp 6 9 CLOSE " + tuple + " " + tuple, `conntrack: column 102: the addresses are not ipv6`},
		{"icmp 1 9 src=1.2.3.4 dst=1.2.3.5 type=8 code=0 src=1.2.3.5 dst=1.2.3.4 type=0 code=0 id=1", `conntrack: column 90: the original tuple is not whole, or has keys of another protocol`},
		{"tcp 6 9 CLOSE " + tuple + " " + tuple + " mark=-1", `conntrack: column 95: "mark=-1": want a number of 32 bits`},
	}
	for _, tt := range tests {
		f, err := ParseFlow(tt.line)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.line, err, tt.want)
		}
		if f != (Flow{}) {
			t.Errorf("%s: not the zero Flow", tt.line)
		}
	}
}

// TestReadFlowsGoesOn checks that a bad line costs that line only, and that
// what ends the input is told.
func TestReadFlowsGoesOn(t *testing.T) {
	good := "udp 17 20 src=1.2.3.4 dst=1.2.3.5 sport=1 dport=2 src=1.2.3.5 dst=1.2.3.4 sport=2 dport=1\n"
	broken := errors.New("broken pipe")
	in := strings.NewReader(good + "\nnonsense\n" + good)
	var got []string
	for f, err := range ReadFlows(iotest.TimeoutReader(in)) {
		switch {
		case errors.Is(err, iotest.ErrTimeout):
			got = append(got, "end")
		case err != nil:
			got = append(got, err.Error())
		default:
			got = append(got, f.Original.Proto.String())
		}
	}
	want := []string{"udp", "conntrack: line 3, column 9: want a number of 8 bits", "udp", "end"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, err := range ReadFlows(iotest.ErrReader(broken)) {
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
	for _, err := range ReadFlows(strings.NewReader(strings.Repeat("x", maxLine+1))) {
		if err == nil || !strings.Contains(err.Error(), "line 1: bufio.Scanner: token too long") {
			t.Errorf("got %v", err)
		}
	}
}

// TestParseNames checks what cannot be written back as it was.
func TestParseNames(t *testing.T) {
	const line = "unknown 33 9 src=1.2.3.4 dst=1.2.3.5 src=1.2.3.5 dst=1.2.3.4 labels=eth0-in,5 id=3"
	f, err := ParseFlow(line) // by a kernel that does not track DCCP
	if err != nil || f.Original.Proto != ProtoDCCP || f.Has(FieldLabels) || f.ID != 3 {
		t.Errorf("got %+v, %v", plain(f), err)
	}
	f, err = ParseFlow(strings.Replace(line, "labels=eth0-in,5", "labels", 1))
	if err != nil || f.Has(FieldLabels) || f.ID != 3 {
		t.Errorf("got %+v, %v", plain(f), err)
	}
	const dccp = "dccp 33 9 COOKIE_WAIT src=1.2.3.4 dst=1.2.3.5 sport=1 dport=2 src=1.2.3.5 dst=1.2.3.4 sport=2 dport=1"
	f, err = ParseFlow(dccp) // conntrack(8) has the word from SCTP's list
	if err != nil || !f.Has(FieldDCCP) || f.Details().DCCP.State != DCCPRespond {
		t.Errorf("got %+v, %v", plain(f), err)
	}
}

// TestParseEventTime reads the instants of old versions of the tool, and what
// a program's name may do.
func TestParseEventTime(t *testing.T) {
	const flow = "udp 17 src=1.2.3.4 dst=1.2.3.5 sport=1 dport=2 src=1.2.3.5 dst=1.2.3.4 sport=2 dport=1"
	e, err := ParseEvent("[1285060200.1234  ]\t [UPDATE] " + flow + " [USERSPACE] portid=7 progname=tmux: server [a b=c")
	want := Timestamp(1285060200_001234_000)
	if err != nil || e.At != want || e.Port != 7 || e.Type != EventUpdate {
		t.Errorf("got %+v, %v", e, err)
	}
	if got := e.String(); !strings.HasPrefix(got, "[1285060200.001234]\t [UPDATE] ipv4     2 udp      17 src=") || !strings.HasSuffix(got, " [USERSPACE] portid=7") {
		t.Errorf("got %s", got)
	}
	for line, want := range map[string]string{
		flow:                             `conntrack: column 1: "udp": want [NEW], [UPDATE] or [DESTROY]`,
		"[1.1]":                          `conntrack: column 6: want [NEW], [UPDATE] or [DESTROY]`,
		"[1.1000000] [NEW] " + flow:      `conntrack: column 1: "[1.1000000]": want microseconds below 1000000`,
		"[99999999999.1] [NEW] " + flow:  `conntrack: column 1: "[99999999999.1]": want a number of 33 bits`,
		"[NEW] " + flow + " [start=Sat]": `conntrack: column 94: "[start=Sat]": want a time such as Mon Jan  2 15:04:05 2006`,
		"[NEW] " + flow + " portid=x":    `conntrack: column 94: "portid=x": want a number of 32 bits`,
		"[NEW] " + flow + " helper=\xff": `conntrack: column 94: "helper=\xff": not UTF-8`,
		"[NEW] " + flow + " [stop=Mon Jan  2 15:04:05 9999]": `conntrack: column 94: "[stop=Mon Jan  2 15:04:05 9999]": want a time such as Mon Jan  2 15:04:05 2006`,
	} {
		e, err := ParseEvent(line)
		if err == nil || err.Error() != want || e != (Event{}) {
			t.Errorf("%s\ngot  %v\nwant %s", line, err, want)
		}
	}
	if f, err := ParseFlow("[NEW] " + flow); err == nil || f != (Flow{}) || !strings.Contains(err.Error(), "ReadEvents") {
		t.Errorf("an event is no entry: %v", err)
	}
}

// TestAge writes delta-time= of a flow that has ended, and of one that lives.
func TestAge(t *testing.T) {
	f := parse(t, lineUDP)
	f.Fields |= FieldStart | FieldStop
	f.Start, f.Stop = 10_999_999_999, 12_000_000_000
	if got := string(f.Append(nil, LayoutAge)); !strings.Contains(got, " delta-time=2 ") {
		t.Errorf("got %s", got)
	}
	f.Stop, f.Start = 0, Timestamp(time.Now().Add(-time.Hour).UnixNano())
	got := string(f.Append(nil, LayoutAge))
	if !strings.Contains(got, " delta-time=3600 ") && !strings.Contains(got, " delta-time=3601 ") {
		t.Errorf("got %s", got)
	}
}

// FuzzParse checks that no line panics, that an error comes with the zero
// value and lies inside the line, and that what was read is written and read
// again the same.
func FuzzParse(f *testing.F) {
	inUTC(f)
	for _, line := range slices.Concat(textLines(f, "lines.txt"), textLines(f, "events.txt")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		flow, err := ParseFlow(line)
		fuzzParsed(t, line, flow, err, ParseFlow)
		event, err := ParseEvent(line)
		fuzzParsed(t, line, event, err, ParseEvent)
	})
}

func fuzzParsed[T interface {
	comparable
	Append([]byte, Layout) []byte
}](t *testing.T, line string, v T, err error, parse func(string) (T, error)) {
	t.Helper()
	if err != nil {
		var none T
		perr, ok := errors.AsType[*ParseError](err)
		if !ok || v != none || perr.Column < 1 || perr.Column > len(line)+1 {
			t.Fatalf("%v with %+v", err, v)
		}
		return
	}
	text := string(v.Append(nil, everyLayout))
	again, err := parse(text)
	if again != v || err != nil {
		t.Fatalf("got  %+v, %v\nwant %+v\nas   %s", again, err, v, text)
	}
}

func BenchmarkParse(b *testing.B) {
	lines := textLines(b, "lines.txt")
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFlow(lines[i%len(lines)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkReadFlows(b *testing.B) {
	text := strings.Join(textLines(b, "lines.txt"), "\n")
	lines := 0
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range ReadFlows(strings.NewReader(text)) {
			if err != nil {
				b.Fatal(err)
			}
			lines++
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(lines), "ns/line")
}

func BenchmarkAppend(b *testing.B) {
	f, err := ParseFlow("ipv4 2 tcp 6 431999 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=42158 dport=81 packets=2 bytes=112 src=127.0.0.1 dst=127.0.0.1 sport=8080 dport=42158 packets=1 bytes=60 [ASSURED] mark=0 use=1 id=544573214")
	if err != nil {
		b.Fatal(err)
	}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line, _ = f.AppendText(line[:0])
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	f, err := ParseFlow("ipv6 10 udp 17 20 src=fd00::1 dst=fd00::2 sport=1 dport=2 src=fd00::2 dst=fd00::1 sport=2 dport=1 mark=1 use=1 id=4")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { b, _ = f.AppendText(b[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
