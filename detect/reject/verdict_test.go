package reject

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func TestVerdictString(t *testing.T) {
	v := Verdict{Cause: CauseGhost, Confidence: detect.Certain, Summary: "this", Count: 1}
	if got := v.String(); got != "ghost, certain: this" {
		t.Errorf("got %q", got)
	}
	v.Count, v.Ports = 3, 2
	if got := v.String(); got != "ghost (3 times, 2 ports), certain: this" {
		t.Errorf("got %q", got)
	}
	v.Fix = []string{"do\n", "or not"}
	if got := v.Line(); got != "ghost (3 times, 2 ports), certain: this; to do: do " {
		t.Errorf("got %q", got)
	}
	v.Ports, v.Summary = 0, "th\nis\x1b[2J"
	if got := v.String(); got != "ghost (3 times), certain: th is [2J" {
		t.Errorf("got %q", got)
	}
}

// Whether < and > are escaped is for the caller's encoder to say.
func TestVerdictJSONPlain(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	v := Verdict{Summary: "1 > 0", Flow: conntrack.Tuple{}}
	if err := enc.Encode(v); err != nil || !strings.Contains(b.String(), `"1 > 0"`) {
		t.Errorf("%v: %s", err, b.String())
	}
	if escaped, err := json.Marshal(v); err != nil || !strings.Contains(string(escaped), `"1 \u003e 0"`) {
		t.Errorf("%v: %s", err, escaped)
	}
}

func TestVerdictText(t *testing.T) {
	v := Verdict{
		Cause: CauseGhost, Confidence: detect.Likely, Summary: "this", Facts: []string{"one", "t\two"},
		Missing: []string{"three"}, Decide: "ask", Fix: []string{"do", "or not"},
	}
	const want = `ghost, likely: this
  fact     one
  fact     t wo
  missing  three
  decide   ask
  fix      do
  fix      or not`
	if got := v.Text(); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := (Verdict{Cause: CauseUnknown}).Text(); got != "unknown, unknown: " {
		t.Errorf("got %q", got)
	}
}

func TestVerdictJSON(t *testing.T) {
	tcp := conntrack.Tuple{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), Proto: conntrack.ProtoTCP, SrcPort: 40000, DstPort: 443}
	ping := conntrack.Tuple{Src: tcp.Src, Dst: tcp.Dst, Proto: conntrack.ProtoICMP, ICMPType: 8}
	gre := conntrack.Tuple{Src: tcp.Src, Dst: tcp.Dst, Proto: 47}
	first := time.Date(2026, 11, 21, 10, 11, 51, 123456789, time.FixedZone("", 3600))
	for _, tt := range []struct {
		v    Verdict
		want string
	}{
		{Verdict{Cause: CauseGhost, Rule: "C05", Confidence: detect.Certain, Summary: "s", Facts: []string{"f"}, Missing: []string{"m"}, Decide: "d",
			Fix: []string{"x"}, Flow: tcp, Count: 3, First: first, Last: first.Add(time.Second)},
			`{"cause":"ghost","rule":"C05","confidence":"certain","summary":"s","facts":["f"],"missing":["m"],"decide":"d","fix":["x"],` +
				`"flow":{"src":"192.0.2.1","dst":"192.0.2.2","proto":"tcp","sport":40000,"dport":443},"count":3,"ports":0,` +
				`"first":"2026-11-21T09:11:51.123456789Z","last":"2026-11-21T09:11:52.123456789Z"}`},
		{Verdict{Cause: CauseUnknown},
			`{"cause":"unknown","rule":"","confidence":"unknown","summary":"","facts":[],"missing":[],"decide":"","fix":[],"flow":null,"count":0,"ports":0,"first":null,"last":null}`},
		{Verdict{Flow: ping}, `"flow":{"src":"192.0.2.1","dst":"192.0.2.2","proto":"icmp","type":8,"code":0,"id":0}`},
		{Verdict{Flow: gre}, `"flow":{"src":"192.0.2.1","dst":"192.0.2.2","proto":"gre"}`},
		{Verdict{Flow: conntrack.Tuple{Src: tcp.Src}, Count: 9, Ports: 7}, `"flow":{"src":"192.0.2.1"},"count":9,"ports":7,`},
		{Verdict{First: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}, `"first":null`},
	} {
		b, err := json.Marshal(tt.v)
		if err != nil || !strings.Contains(string(b), tt.want) {
			t.Errorf("%v: got\n%s, want\n%s", err, b, tt.want)
		}
	}
}

func TestRelease(t *testing.T) {
	for text, want := range map[string][2]int{
		"6.12.0-1-amd64": {6, 12}, "5.10": {5, 10}, "6.1.0-18-cloud-amd64": {6, 1}, "": {}, "unknown": {}, "6": {}, "6.x": {}, "-6.1": {}, "0.9": {},
	} {
		major, minor, ok := release(text)
		if ok != (want != [2]int{}) || ok && [2]int{major, minor} != want {
			t.Errorf("%q: %d, %d, %t", text, major, minor, ok)
		}
	}
}

// What a kernel's release changes is advice, and nothing else.
func TestKernelAdvice(t *testing.T) {
	for _, tt := range []struct {
		seen        seen
		kernel      string
		has, hasNot string
	}{
		{seen: seen{packet: "in PSH|ACK", how: Logged, state: Invalid, reason: reasonUnder5, entry: alive}, kernel: "5.10.0", has: "Linux 6.1 and later let it through"},
		{seen: seen{packet: "in PSH|ACK", how: Logged, state: Invalid, reason: reasonUnder5, entry: alive}, kernel: "", has: "Linux 6.1 and later let it through"},
		{seen: seen{packet: "in PSH|ACK", how: Logged, state: Invalid, reason: reasonUnder5, entry: alive}, kernel: "6.12.1", hasNot: "Linux 6.1 and later"},
		{seen: seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonReset, entry: alive}, kernel: "5.10.0", has: "before it, only"},
		{seen: seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonReset, entry: alive}, kernel: "5.14.0", has: "tcp_ignore_invalid_rst=1"},
		{seen: seen{packet: "in RST", how: Logged, state: Invalid, reason: reasonReset, entry: alive}, kernel: "", has: "tcp_ignore_invalid_rst=1"},
		{seen: seen{packet: "in SYN|ACK", how: Logged, state: Invalid, entry: "-", socket: "SYN_SENT"}, kernel: "6.1.0", has: "Linux before 6.7 gives none"},
		{seen: seen{packet: "in SYN|ACK", how: Logged, state: Invalid, entry: "-", socket: "SYN_SENT"}, kernel: "6.18.0", hasNot: "6.7"},
		{seen: seen{packet: "in SYN", how: Logged, state: New, entry: "-", control: ftp}, kernel: "5.15.0", has: "nf_conntrack_helper=1"},
		{seen: seen{packet: "in SYN", how: Logged, state: New, entry: "-", control: ftp}, kernel: "6.1.0", hasNot: "nf_conntrack_helper=1"},
		{seen: seen{usage: full(1000)}, kernel: "5.10.0", has: "to a quarter of it"},
		{seen: seen{usage: full(1000)}, kernel: "", has: "to the same number"},
		{seen: seen{packet: "in SYN", how: Logged, state: Invalid, entry: "tcp 6 431000 ESTABLISHED " + fromHost + "[UNREPLIED] " + fromPeer}, has: "kernel before about 3.10"},
		{seen: seen{packet: "in SYN", how: Logged, state: Invalid, entry: ghost}, hasNot: "3.10"},
		{seen: seen{packet: "in SYN", how: Logged, state: Invalid, entry: ghost, settings: map[string]string{"tcp_timeout_unacknowledged": "432000"}},
			has: "tcp_timeout_unacknowledged=300"},
	} {
		e := tt.seen.evidence(t, same)
		without := Explain(e)
		e.Kernel = tt.kernel
		v := Explain(e)
		if v.Cause != without.Cause || v.Confidence != without.Confidence || v.Cause == CauseUnknown {
			t.Errorf("Linux %s makes %v of %v", tt.kernel, v, without)
		}
		if text := v.Text(); !strings.Contains(text, tt.has) || tt.hasNot != "" && strings.Contains(text, tt.hasNot) {
			t.Errorf("Linux %q: wants %q, not %q:\n%s", tt.kernel, tt.has, tt.hasNot, text)
		}
	}
}

// The settings that limit ICMP errors are those of the family they were of.
func TestRateLimits(t *testing.T) {
	for want, c := range map[string]Counters{
		"`net.ipv4.icmp_ratelimit`":                               {RateLimited: 3},
		"`net.ipv6.icmp.ratelimit`":                               {RateLimited: 3, RateLimited6: 3},
		"`net.ipv4.icmp_ratelimit` and `net.ipv6.icmp.ratelimit`": {RateLimited: 3, RateLimited6: 2},
	} {
		if got := c.limits(); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

// A RST that no socket sent is a rule's while a process has the connection, and
// the kernel's own once none has.
func TestDisprovedReset(t *testing.T) {
	for socket, rule := range map[string]string{"ESTABLISHED": "C22", "-": ""} {
		e := seen{packet: "in PSH|ACK", how: ResetSent, entry: closedEntry, socket: socket}.evidence(t, same)
		r := &refused{seen: sighting{packet: e.Packet.Value, refusal: ResetSent, doubtful: true},
			found: findings{entry: found(&e.Entry.Value), socket: finding[sockdiag.Socket]{&e.Socket.Value, e.Socket.Result}}}
		if r.disproved() != (rule == "") {
			t.Errorf("socket %s: disproved %t", socket, r.disproved())
		}
		if v := r.verdict(); rule != "" && (v.Rule != rule || v.Confidence != possible) {
			t.Errorf("got %s %v", v.Rule, v)
		}
	}
}

const closedEntry = "tcp 6 9 CLOSE " + fromPeer + fromHost + "[ASSURED] use=1"
