package conntrack

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestReadFlows reads the lines of testdata/lines.txt, writes each back as it
// was, save its spacing, and reads what it wrote to the same flow.
func TestReadFlows(t *testing.T) {
	text, err := os.ReadFile("testdata/lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	n := 0
	for f, err := range ReadFlows(strings.NewReader(strings.Join(lines, ""))) {
		if err != nil {
			t.Error(err)
			continue
		}
		layout := LayoutID
		if strings.HasPrefix(lines[n], "ip") {
			layout |= LayoutFamily
		}
		got := string(f.Append(nil, layout))
		if want := strings.Fields(lines[n]); !slices.Equal(strings.Fields(got), want) {
			t.Errorf("got  %s\nwant %s", got, strings.Join(want, " "))
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

// FuzzParse checks that no line panics, that an error comes with the zero Flow,
// and that what was read is written and read again the same.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/lines.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f.Add(strings.TrimSuffix(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		flow, err := ParseFlow(line)
		if err != nil {
			perr, ok := errors.AsType[*ParseError](err)
			if !ok || flow != (Flow{}) || perr.Column < 1 || perr.Column > len(line)+1 {
				t.Fatalf("%v with %+v", err, plain(flow))
			}
			return
		}
		again, err := ParseFlow(flow.String())
		if again != flow || err != nil {
			t.Fatalf("got  %+v, %v\nwant %+v\nas   %s", plain(again), err, plain(flow), flow)
		}
	})
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
