package conntrack

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// rich is a flow that has everything.
func rich(t testing.TB) Flow {
	t.Helper()
	f, err := ParseFlow(lineTCP)
	if err != nil {
		t.Fatal(err)
	}
	f.Status |= Confirmed | 1<<20
	f.Zone, f.OriginalZone, f.ReplyZone = 1, 2, 3
	f.TCP = TCPInfo{State: 12, OriginalFlags: 1, ReplyFlags: 2, OriginalScale: 3, ReplyScale: 4}
	f.Mark, f.Secmark, f.Use, f.ID = 0, math.MaxUint32, 1, 2
	f.Timeout = math.MaxUint32 * time.Second
	f.OriginalCounter, f.ReplyCounter = Counter{math.MaxUint64, math.MaxUint64 - 1}, Counter{1, 0}
	f.Start, f.Stop = math.MinInt64, math.MaxInt64
	f = f.WithDetails(Details{
		Labels: LabelSet(0, 3, 127), Helper: "ftp", Master: tupleEcho, MasterZone: 9,
		OriginalSeq: SeqAdj{1, -2, 3}, ReplySeq: SeqAdj{math.MaxUint32, math.MinInt32, math.MaxInt32},
		Synproxy: Synproxy{1, 2, 3}, SecurityContext: "system_u:object_r:client_packet_t:s0",
		SCTP: SCTPInfo{SCTPEstablished, 1, math.MaxUint32}, DCCP: DCCPInfo{DCCPOpen, 1, math.MaxUint64},
	})
	f.Fields = FieldDCCP<<1 - 1
	return f
}

func TestJSONRoundTrip(t *testing.T) {
	zeros := Flow{Original: tupleTCP, Reply: tupleTCP.Invert(), Fields: FieldDCCP<<1 - 1}
	flows := map[string]Flow{"rich": rich(t), "bare": {}, "zeros": zeros, "tuples": {Original: tupleEcho, Reply: tupleUDP6}}
	flows["odd"] = Flow{Original: Tuple{ICMPID: 1}, Reply: Tuple{Proto: 112, DstPort: 1}}
	for _, name := range fixture.Names(t, "testdata") {
		var f Flow
		if err := decodeFlow(fixture.Netlink(t, "testdata/"+name+".hex", nfgenmsgLen), &f); err != nil {
			t.Fatal(name, err)
		}
		flows[name] = f
	}
	for name, b := range rareInputs(t) {
		var f Flow
		must(t, decodeFlow(b, &f))
		flows[name] = f
	}
	for name, f := range flows {
		checkJSON(t, name, f)
		checkJSON(t, name, Event{Type: EventUpdate, Flow: f})
		checkJSON(t, name, Event{Type: EventDestroy, Flow: f, At: 1, Port: 2})
	}
}

func checkJSON[T comparable](t *testing.T, name string, v T) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(name, err)
	}
	var again T
	if err := json.Unmarshal(text, &again); err != nil || again != v {
		t.Errorf("%s: %s\ngot  %+v, %v\nwant %+v", name, text, again, err, v)
	}
}

// TestJSONForm holds the form: others read it.
func TestJSONForm(t *testing.T) {
	const want = `{"type":"NEW","at":"2026-11-21T09:11:51.00000007Z","port":5,"flow":{` +
		`"original":{"src":"192.0.2.1","dst":"192.0.2.2","proto":"tcp","sport":0,"dport":443},` +
		`"reply":{"src":"192.0.2.2","dst":"192.0.2.1","proto":"tcp","sport":443,"dport":0,"zone":3},` +
		`"status":["SEEN_REPLY","ASSURED"],"timeout":0,` +
		`"tcp":{"state":"ESTABLISHED","original_flags":0,"reply_flags":0,"original_scale":0,"reply_scale":0},` +
		`"mark":0,"counters":{"original":{"packets":18446744073709551615,"bytes":0},"reply":{"packets":0,"bytes":0}},` +
		`"labels":[3,17]}}`
	e := Event{Type: EventNew, Port: 5, At: Timestamp(time.Date(2026, 11, 21, 9, 11, 51, 70, time.UTC).UnixNano())}
	f := &e.Flow
	f.Original = tuple(ProtoTCP, "192.0.2.1:0", "192.0.2.2:443")
	f.Reply, f.ReplyZone = f.Original.Invert(), 3
	f.Status, f.TCP.State = SeenReply|Assured, TCPEstablished
	f.OriginalCounter.Packets = math.MaxUint64
	f.Fields = FieldStatus | FieldTimeout | FieldTCP | FieldMark | FieldCounters
	*f = f.WithDetails(Details{Labels: LabelSet(17, 3)})
	got, err := json.Marshal(e)
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestJSONErrors(t *testing.T) {
	const tuples = `"original":{"proto":"tcp"},"reply":{"proto":"6"}`
	for text, want := range map[string]string{
		`{"original":{"proto":"tcp"}}`:                             `reply: is missing`,
		`{"original":{"proto":"tcp","sport":"1"},"reply":{}}`:      `original.sport: string is no uint16`,
		`{"original":{"proto":"tcp","sport":65536},"reply":{}}`:    `original.sport: number 65536 is no uint16`,
		`{"original":{"proto":"tcp","src":"1.2.3"},"reply":{}}`:    `original.src: "1.2.3" is no IP address`,
		`{"original":{"proto":"tcp"},"reply":{}}`:                  `reply.proto: "" is no protocol`,
		`{"original":{"proto":"unknown"},"reply":{}}`:              `original.proto: "unknown" is no protocol`,
		`{` + tuples + `,"mark":-1}`:                               `mark: number -1 is no uint32`,
		`{` + tuples + `,"status":["DEAD"]}`:                       `status: "DEAD" is no status bit`,
		`{` + tuples + `,"status":"DYING"}`:                        `status: string is no []string`,
		`{` + tuples + `,"tcp":{"state":"OPEN"}}`:                  `tcp.state: "OPEN" is no state`,
		`{` + tuples + `,"sctp":{}}`:                               `sctp.state: "" is no state`,
		`{` + tuples + `,"start":"yesterday"}`:                     `start: "yesterday" is no RFC 3339 time of the years 1678 to 2261`,
		`{` + tuples + `,"stop":"9999-01-01T00:00:00Z"}`:           `stop: "9999-01-01T00:00:00Z" is no RFC 3339 time of the years 1678 to 2261`,
		`{` + tuples + `,"labels":[128]}`:                          `labels: 128 is no label`,
		`{` + tuples + `,"counters":{"reply":{"bytes":1.5}}}`:      `counters.reply.bytes: number 1.5 is no uint64`,
		`{` + tuples + `,"master":{"proto":"tcp","dst":"::g"}}`:    `master.dst: "::g" is no IP address`,
		`{"type":"NEW","flow":{` + tuples + `,"mark":"1"}}`:        `flow.mark: string is no uint32`,
		`{"type":"NEW","flow":{` + tuples + `,"stop":"x"}}`:        `flow.stop: "x" is no RFC 3339 time of the years 1678 to 2261`,
		`{"type":"OLD","flow":{` + tuples + `}}`:                   `type: "OLD" is no event`,
		`{"type":"NEW"}`:                                           `flow: is missing`,
		`{"type":"NEW","at":"x","flow":{` + tuples + `}}`:          `at: "x" is no RFC 3339 time of the years 1678 to 2261`,
		`{"type":"NEW","port":4294967296,"flow":{` + tuples + `}}`: `port: number 4294967296 is no uint32`,
	} {
		f, e := Flow{Mark: 1}, Event{Port: 1}
		var err error
		if strings.Contains(text, `"type":`) {
			err = json.Unmarshal([]byte(text), &e)
		} else {
			err = json.Unmarshal([]byte(text), &f)
		}
		if err == nil || err.Error() != "conntrack: JSON: "+want {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
		if f != (Flow{Mark: 1}) || e != (Event{Port: 1}) {
			t.Errorf("%s: changed what was there", text)
		}
	}
	if _, err := json.Marshal(Flow{Timeout: -time.Second}); err == nil {
		t.Error("a negative timeout is written")
	}
}

// TestJSONSkipsUnknown reads what a later version may write.
func TestJSONSkipsUnknown(t *testing.T) {
	var f Flow
	text := `{"original":{"proto":"tcp","vlan":1},"reply":{"proto":"tcp"},"mark":1,"later":{"x":[1]}}`
	if err := json.Unmarshal([]byte(text), &f); err != nil || f.Mark != 1 {
		t.Errorf("got %+v, %v", plain(f), err)
	}
}

// FuzzJSON checks that whatever a message decodes to comes back from JSON.
func FuzzJSON(f *testing.F) {
	for _, b := range decodeInputs(f) {
		f.Add(b)
	}
	for _, b := range rareInputs(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var flow Flow
		if decodeFlow(b, &flow) == nil {
			checkJSON(t, "flow", flow)
		}
	})
}

// FuzzUnmarshalJSON checks that what can be read is written and read again the
// same.
func FuzzUnmarshalJSON(f *testing.F) {
	text, err := json.Marshal(rich(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"original":{"proto":"tcp"},"reply":{"proto":"6"},"status":["0x3"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var flow Flow
		if json.Unmarshal(b, &flow) == nil {
			checkJSON(t, "flow", flow)
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	f, err := ParseFlow(lineTCP)
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(f)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(text, &f); err != nil {
				b.Fatal(err)
			}
		}
	})
}
