package fail2ban

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// TestRequest has the bytes of pickle.dumps(["get", "x"], 2) without its memo.
func TestRequest(t *testing.T) {
	got := hex.EncodeToString(appendRequest(nil, []string{"get", "x"}))
	if want := "80025d28" + "5803000000676574" + "580100000078" + "652e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Answers of fail2ban-server 1.0.2, captured 2026-11-21 from its socket.
var answers = map[string]string{
	"\x80\x05\x95\x08\x00\x00\x00\x00\x00\x00\x00K\x00MX\x02\x86\x94.":            "600",
	"\x80\x05\x95\x06\x00\x00\x00\x00\x00\x00\x00K\x00\x88\x86\x94.":              "true",
	"\x80\x05\x95\x0c\x00\x00\x00\x00\x00\x00\x00K\x00\x8c\x04pong\x94\x86\x94.":  "pong",
	"\x80\x05\x95\x0a\x00\x00\x00\x00\x00\x00\x00K\x00J\xff\xff\xff\xff\x86\x94.": "-1",
	"\x80\x05\x95Y\x00\x00\x00\x00\x00\x00\x00K\x00]\x94(\x8c\x08builtins\x94\x8c\x03str\x94\x93\x94\x8c\n10.0.0.0/8\x94\x85\x94R\x94h\x03\x8c\x0f2001:db8:5::/64\x94\x85\x94R\x94h\x03\x8c\x0b203.0.113.5\x94\x85\x94R\x94e\x86\x94.": "[10.0.0.0/8 2001:db8:5::/64 203.0.113.5]",
	"\x80\x05\x95?\x00\x00\x00\x00\x00\x00\x00K\x01\x8c\x13fail2ban.exceptions\x94\x8c\x14UnknownJailException\x94\x93\x94\x8c\x04nope\x94\x85\x94R\x94\x86\x94.":                                                                      "the server says UnknownJailException: nope",
	"\x80\x05\x95=\x00\x00\x00\x00\x00\x00\x00K\x01\x8c\x08builtins\x94\x8c\nValueError\x94\x93\x94\x8c\x17not banned: ['1.2.3.4']\x94\x85\x94R\x94\x86\x94.":                                                                          "the server says ValueError: not banned: [?1.2.3.4?]",
	"\x80\x05\x95\x0e\x00\x00\x00\x00\x00\x00\x00K\x00]\x94(\x8c\x06Filter\x94]\x94\x86\x94}\x94(\x8c\x01a\x94K\x01ue\x86\x94.":                                                                                                        "[? ?]",
}

func TestAnswers(t *testing.T) {
	for answer, want := range answers {
		v, err := decode([]byte(answer))
		if err == nil {
			v, err = result(v)
		}
		got := fmt.Sprint(v)
		if l, ok := v.(*list); ok {
			var items []string
			for _, item := range l.items {
				s, ok := text(item)
				if !ok {
					s = "?"
				}
				items = append(items, s)
			}
			got = fmt.Sprint(items)
		}
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", answer, got, want)
		}
	}
}

func TestLong(t *testing.T) {
	for in, want := range map[string]int64{
		"\x8a\x00.": 0, "\x8a\x01\xff.": -1, "\x8a\x02\x00\x80.": -32768, "\x8a\x05\x00\x00\x00\x00\x01.": 1 << 32,
		"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.": 1<<63 - 1,
	} {
		if v, err := decode([]byte(in)); v != want || err != nil {
			t.Errorf("%q: %v, %v; want %d", in, v, err, want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range []string{
		"", ".", "K", "e.", "(.", "]K\x01", "K\x01a.", "K\x01R.", "h\x07.", "(0.", "t.", "\x94.", "\x85.", "(\x86.",
		"X\xff\xff\xff\xffx.", "\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.", "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00.", "cos\nsystem\n(S'id'\ntR.", "K\x01K\x02\x93.",
	} {
		if v, err := decode([]byte(in)); !errors.Is(err, errPickle) || v != nil {
			t.Errorf("%q: %v, %v", in, v, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for answer := range answers {
		f.Add([]byte(answer))
	}
	f.Add(appendRequest(nil, []string{"get", "x", "banip", "--with-time"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil {
			if v != nil {
				t.Errorf("%v with %v", v, err)
			}
			return
		}
		if v, err = result(v); err != nil && (v != nil || len(err.Error()) > maxReason+len(b)+100) {
			t.Errorf("%v with %v", v, err)
		}
		_, _ = text(v)
	})
}

func FuzzParseBan(f *testing.F) {
	f.Add("198.51.100.9 \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17")
	f.Add("2001:db8::/64 \t2026-11-21 13:10:17 + -1 = 9999-12-31 23:59:59")
	f.Fuzz(func(t *testing.T, line string) {
		p, until, ok, err := parseBan(line)
		if ok && (err != nil || (ban.Entry{Prefix: p, Until: until}).Check() != nil) || !ok && (p.IsValid() || !until.IsZero()) {
			t.Errorf("%q: %v, %v, %v, %v", line, p, until, ok, err)
		}
	})
}

func TestParseBan(t *testing.T) {
	at := ban.At(time.Date(2026, 11, 21, 13, 20, 17, 0, time.Local))
	for _, tt := range []struct {
		line, prefix string
		until        ban.Until
		bad          bool
	}{
		{"198.51.100.9 \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17", "198.51.100.9/32", at, false},
		{"::ffff:198.51.100.9 \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17", "198.51.100.9/32", at, false},
		{"2001:db8::1/64 \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17", "2001:db8::/64", at, false},
		{"2001:db8::1 \t2026-11-21 13:10:17 + -1 = 9999-12-31 23:59:59", "2001:db8::1/128", ban.Forever, false},
		{"a-user \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17", "invalid Prefix", ban.Until{}, false},
		{"0.0.0.0/0 \t2026-11-21 13:10:17 + 600 = 2026-11-21 13:20:17", "invalid Prefix", ban.Until{}, false},
		{"198.51.100.9", "invalid Prefix", ban.Until{}, true},
		{"198.51.100.9 \t2026-11-21 13:10:17 + 600 = soon", "invalid Prefix", ban.Until{}, true},
		{"198.51.100.9 \tx + many = 2026-11-21 13:20:17", "invalid Prefix", ban.Until{}, true},
	} {
		p, until, _, err := parseBan(tt.line)
		if p.String() != tt.prefix || until != tt.until || (err != nil) != tt.bad {
			t.Errorf("%q: %v, %v, %v", tt.line, p, until, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"Conn Cnt: 684 is greater than limit:60": "Conn Cnt: 684 is greater than limit:60",
		"a\nb\x00<F2B_END_COMMAND>`$(id)`;'\"":   "a?b??F2B_END_COMMAND????id?????",
		" é ":                                    "?",
		strings.Repeat("x", 300):                 strings.Repeat("x", 200),
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	at := time.Date(2026, 12, 2, 20, 30, 1, 0, time.UTC)
	if got := string(AppendHit(nil, at, netip.MustParseAddr("fe80::1%eth0"))) + string(AppendHit(nil, at, netip.Addr{})); got != "Dec 02 20:30:01[fe80::1]\n" {
		t.Errorf("%q", got)
	}
	b, err := AppendBan([]byte("x"), at, ban.Entry{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Until: ban.Forever})
	if failed, _ := ban.Failed(err); string(b) != "x" || len(failed) != 1 {
		t.Errorf("%q, %v", b, err)
	}
}
