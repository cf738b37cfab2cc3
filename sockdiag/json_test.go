package sockdiag

import (
	"encoding/json"
	"math"
	"math/bits"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// jsonAgain writes s and reads it back.
func jsonAgain(t testing.TB, s Socket) (back Socket, text string) {
	t.Helper()
	b, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil {
		t.Fatalf("%s\n%v", b, err)
	}
	return back, string(b)
}

// samples are the captured rows, one with everything, and rows of text.
func samples(t testing.TB) []Socket {
	t.Helper()
	rows := []Socket{fullSocket(), {}, {Protocol: 7, State: 14, Family: 3, Timer: 9}}
	for _, name := range []string{"ss.txt", "ss-oneline.txt", "proc.txt", "netstat.txt"} {
		for _, l := range readText(t, name) {
			rows = append(rows, l.Socket)
		}
	}
	for _, name := range fixture.Names(t, "testdata") {
		if s, err := decodeSocket(capture(t, name)); err == nil {
			rows = append(rows, s)
		}
	}
	return rows
}

func TestJSON(t *testing.T) {
	for _, s := range samples(t) {
		if back, text := jsonAgain(t, s); back != s {
			t.Errorf("%s\ngot  %+v %+v\nwant %+v %+v", text, back, back.Fields, s, s.Fields)
		}
	}
}

// TestJSONForm holds the form still.
func TestJSONForm(t *testing.T) {
	s := Socket{
		Protocol: TCP, Family: IPv6, State: CloseWait, Timer: TimerKeepalive, Expires: 1500 * time.Millisecond, Retransmits: 2,
		Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: netip.MustParseAddrPort("198.51.100.7:40000"),
		Interface: 2, RecvQueue: 5, UID: 33, Inode: 41, Cookie: 26, Shutdown: ShutdownReceive | 16, Mark: 0,
		Options: OptionIsICSK | 1<<15, Fields: FieldShutdown | FieldMark | FieldOptions | FieldInfo | FieldMemory,
		Info: TCPInfo{Fields: InfoPacing, PacingRate: math.MaxUint64, MaxPacingRate: 1},
	}
	s = s.WithDetails(Details{Congestion: "cubic", TLS: TLSInfo{Version: 0x304}})
	const want = `{"protocol":"tcp","family":"IPv6","state":"CLOSE_WAIT",` +
		`"local":"192.0.2.1:443","remote":"198.51.100.7:40000","interface":2,` +
		`"timer":"keepalive","expires_ms":1500,"retransmits":2,"recv_queue":5,"send_queue":0,` +
		`"uid":33,"inode":41,"cookie":26,"shutdown":["receive","0x10"],"mark":0,"options":["is_icsk","0x8000"],` +
		`"memory":{"rcv_alloc":0,"rcv_buf":0,"snd_alloc":0,"snd_buf":0,"fwd_alloc":0,"snd_queued":0,"opt_mem":0,"rcv_backlog":0,"drops":0},` +
		`"congestion":"cubic","tls":{"version":772,"cipher":0,"send_mode":0,"receive_mode":0},` +
		`"info":{"pacing_rate":18446744073709551615,"max_pacing_rate":1}}`
	if back, text := jsonAgain(t, s); text != want || back != s {
		t.Errorf("got  %s\nwant %s\nback %+v", text, want, back)
	}
	s = Socket{Protocol: TCP, Family: IPv4, State: Listen, Fields: UnknownOwner | UnknownTimer | UnknownBacklog, AcceptQueue: 3}
	const text = `{"protocol":"tcp","family":"IPv4","state":"LISTEN","accept_queue":3}`
	if back, got := jsonAgain(t, s); got != text || back != s {
		t.Errorf("got %s, back %+v", got, back)
	}
	var words struct{ Options []string }
	if b, err := json.Marshal(TCPInfo{Fields: InfoBase, Options: OptSACK | OptECN | 64}); err != nil ||
		json.Unmarshal(b, &words) != nil || strings.Join(words.Options, " ") != "sack ecn 0x40" {
		t.Errorf("%s, %v", b, err)
	}
}

// TestInfoKeys has each field of TCPInfo once, and each part.
func TestInfoKeys(t *testing.T) {
	seen := make(map[any]string)
	var info TCPInfo
	var parts InfoFields
	for _, k := range infoKeys {
		p := k.ptr(&info)
		if other, ok := seen[p]; ok || k.json == "" {
			t.Errorf("%s and %s are one field", k.json, other)
		}
		if _, isTime := p.(*time.Duration); isTime != (k.unit != 0) || bits.OnesCount16(uint16(k.part)) != 1 {
			t.Errorf("%s: unit %v, part %b", k.json, k.unit, k.part)
		}
		seen[p], parts = k.json, parts|k.part
	}
	if n := infoFieldCount(); len(infoKeys) != n || parts != InfoTimeouts<<1-1 {
		t.Errorf("%d keys of %d fields, parts %b", len(infoKeys), n, parts)
	}
}

func TestJSONErrors(t *testing.T) {
	const head = `{"protocol":"tcp","family":"IPv4","state":"LISTEN",`
	for text, want := range map[string]string{
		`{`:                                  "unexpected end of JSON input",
		`[]`:                                 "socket: array is no sockdiag.socketJSON",
		`{}`:                                 `protocol: "" is no protocol`,
		`{"protocol":"tcp","family":"IPv5"}`: `family: "IPv5" is no family`,
		`{"protocol":"Protocol(70000)"}`:     `protocol: "Protocol(70000)" is no protocol`,
		`{"protocol":"tcp","family":"IPv4","state":"State(1)"}`:  `state: "State(1)" is no state`,
		head + `"local":"1.2.3.4"}`:                              `local: "1.2.3.4" is no address and port`,
		head + `"uid":-1}`:                                       `uid: number -1 is no uint32`,
		head + `"timer":"soon"}`:                                 `timer: "soon" is no timer`,
		head + `"options":["what"]}`:                             `options: "what" is no bit`,
		head + `"expires_ms":9223372036855}`:                     `expires_ms: 9223372036855 is too long a time`,
		head + `"info":{"pacing_rate":1}}`:                       `info.max_pacing_rate: is missing`,
		head + `"info":{"pacing_rate":"1","max_pacing_rate":1}}`: `info.pacing_rate: "1" is of another type, or out of range`,
	} {
		s := Socket{Cookie: 7}
		err := json.Unmarshal([]byte(text), &s)
		if text == "{" {
			err = s.UnmarshalJSON([]byte(text))
		}
		if err == nil || err.Error() != "sockdiag: JSON: "+want || s != (Socket{Cookie: 7}) {
			t.Errorf("%s\ngot  %v\nwant %s, %+v", text, err, want, s)
		}
	}
	s := Socket{Cookie: 7}
	if err := json.Unmarshal([]byte("null"), &s); err != nil || s.Cookie != 7 {
		t.Errorf("null: %v, %+v", err, s)
	}
	if err := json.Unmarshal([]byte(head+`"later":{}}`), &s); err != nil || s.State != Listen {
		t.Errorf("later: %v, %+v", err, s)
	}
}

// FuzzJSON asserts that every row of the kernel survives JSON.
func FuzzJSON(f *testing.F) {
	f.Add(encodeSocket(fullSocket()), uint16(TCP))
	f.Add(encodeSocket(Socket{Family: IPv4}), uint16(Raw))
	f.Fuzz(func(t *testing.T, b []byte, protocol uint16) {
		s := Socket{Protocol: Protocol(protocol)}
		if s.decode(b) != nil {
			return
		}
		if strings.ToValidUTF8(s.Details().Congestion+s.Details().ULP, "") != s.Details().Congestion+s.Details().ULP {
			return // JSON has only text
		}
		if back, text := jsonAgain(t, s); back != s {
			t.Errorf("%s\ngot  %+v %+v\nwant %+v %+v", text, back, back.Info, s, s.Info)
		}
	})
}

func infoFieldCount() int { return reflect.TypeFor[TCPInfo]().NumField() - 1 } // but Fields
