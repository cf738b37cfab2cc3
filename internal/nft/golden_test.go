package nft_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// captured are the fixtures of a directory, by name. They are for machines with
// the byte order of the one that they were captured on: netlink has the host's.
func captured(tb testing.TB, dir string) (names []string, payloads map[string][]byte) {
	tb.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		tb.Skip("captured on a little-endian machine")
	}
	dir = filepath.Join("testdata", dir)
	names, payloads = fixture.Names(tb, dir), make(map[string][]byte)
	for _, name := range names {
		payloads[name] = fixture.Read(tb, filepath.Join(dir, name+".hex"))
	}
	return names, payloads
}

// way is what the captured packet, a SYN to port 7, met.
var way = []string{
	"01: rule tracing c 2: continue  mark 0, state 0",
	"02: rule tracing c 0: continue  mark 0, state 0",
	"03: policy tracing c 0: accept  mark 0, state 0",
	"04: rule f c 6: continue  mark 7, state 0",
	"05: rule f c 7: jump x mark 7, state 0",
	"06: rule f x 4: return  mark 7, state 0",
	"07: rule f c 8: return  mark 7, state 0",
	"08: policy f c 0: accept  mark 7, state 0",
	"09: rule f d 0: continue  mark 7, state 0",
	"10: policy f d 0: drop  mark 7, state 0",
}

func TestDecodeTrace(t *testing.T) {
	names, payloads := captured(t, "trace")
	if len(names) != len(way) {
		t.Fatalf("%d messages, want %d", len(names), len(way))
	}
	d := nft.NewTraceDecoder()
	var first nft.Trace
	for i, name := range names {
		var got nft.Trace
		if err := d.Decode(payloads[name], &got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		line := fmt.Sprintf("%s: %v %s %s %d: %v %s mark %d, state %d", name, got.Type, got.Table, got.Chain, got.Handle, got.Verdict, got.Target, got.Mark, got.CT.State)
		if line != way[i] {
			t.Errorf("got  %s\nwant %s", line, way[i])
		}
		if i == 0 {
			first = got
		}
		if got.ID != first.ID || got.Headers != first.Headers || got.NFProto != nft.IPv4 || got.Family != nft.INet || got.InIndex != first.InIndex {
			t.Errorf("%s: %+v, want the packet of %+v", name, got, first)
		}
		if got.Refused() != (name == "10") {
			t.Errorf("%s: refused %v", name, got.Refused())
		}
	}
	if n := first.Headers.Network(); len(n) != 20 || len(first.Headers.Transport()) != 20 || n[9] != nft.TCP {
		t.Errorf("headers % x, % x", n, first.Headers.Transport())
	}
}

// rules are captured rules, what they are called, and facts.
var rules = []struct {
	name, text string
	facts      nft.Facts
}{
	{"port", "tcp dport 22 accept", nft.Facts{Verdict: nft.CodeAccept, Proto: nft.TCP}},
	{"prefix", "ip saddr 10.1.128.0/17 drop", nft.Facts{Verdict: nft.CodeDrop}},
	{"dynset", "update @seen { ip saddr limit rate 10/second }", nft.Facts{Verdict: nft.CodeContinue}},
	{"resets", "tcp flags & rst == rst drop", nft.Facts{Verdict: nft.CodeDrop, Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}}},
	{"reject", "reject with icmp host-prohibited", nft.Facts{Verdict: nft.CodeDrop, Reject: nft.Reject{Kind: nft.RejectICMP, Code: 10}}},
	{"jump", "jump other", nft.Facts{Verdict: nft.CodeJump, Target: "other"}},
	{"concat", "ip saddr . tcp dport @pairs accept", nft.Facts{Verdict: nft.CodeAccept, Proto: nft.TCP}},
	{"dnat", "tcp dport 80 dnat ip to 10.0.0.1:80-90", nft.Facts{Verdict: nft.CodeContinue, Proto: nft.TCP, NAT: nft.DNAT}},
	{"log", `log prefix "x" group 5 snaplen 128 queue-threshold 2`, nft.Facts{Verdict: nft.CodeContinue, Logs: true, LogGroup: 5}},
	{"helper", `ct helper set "ftp"`, nft.Facts{Verdict: nft.CodeContinue, Helper: "ftp"}},
	{"notrack", "notrack", nft.Facts{Verdict: nft.CodeContinue, NoTrack: true}},
	{"zone", "ct zone set 5", nft.Facts{Verdict: nft.CodeContinue, SetsZone: true, Zone: 5}},
	{"xt-conntrack", "ct state invalid counter packets 0 bytes 0 drop", nft.Facts{Verdict: nft.CodeDrop, State: nft.Invalid}},
	{"xt-masquerade", `counter packets 0 bytes 0 xt target "MASQUERADE"`, nft.Facts{Verdict: nft.CodeContinue, NAT: nft.Masquerade}},
	{"xt-notrack", "tcp dport 5001 counter packets 0 bytes 0 notrack", nft.Facts{Verdict: nft.CodeContinue, Proto: nft.TCP, NoTrack: true}},
	{
		"xt-reject", "tcp dport 5001 counter packets 0 bytes 0 reject with icmp host-prohibited",
		nft.Facts{Verdict: nft.CodeDrop, Proto: nft.TCP, Reject: nft.Reject{Kind: nft.RejectICMP, Code: 10}},
	},
	{"xt-zone", "tcp dport 5002 counter packets 0 bytes 0 ct zone set 7", nft.Facts{Verdict: nft.CodeContinue, Proto: nft.TCP, SetsZone: true, Zone: 7}},
}

func TestRules(t *testing.T) {
	names, payloads := captured(t, "rule")
	if len(names) != len(rules) {
		t.Errorf("%d fixtures, %d rules", len(names), len(rules))
	}
	for _, want := range rules {
		_, got, err := nft.DecodeListedRule(payloads[want.name])
		if err != nil || got.Handle == 0 || got.Text() != want.text {
			t.Errorf("%s: %v, handle %d\ngot  %s\nwant %s", want.name, err, got.Handle, got.Text(), want.text)
		}
		if got.Facts() != want.facts {
			t.Errorf("%s:\ngot  %+v\nwant %+v", want.name, got.Facts(), want.facts)
		}
		if got.Facts().DropsResets() != (want.name == "resets") {
			t.Errorf("%s: drops resets", want.name)
		}
	}
}

// FuzzTrace decodes anything twice: an error leaves nothing, and the same
// bytes are the same.
func FuzzTrace(f *testing.F) {
	names, payloads := captured(f, "trace")
	for _, name := range names {
		f.Add(payloads[name])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var one, two nft.Trace
		d := nft.NewTraceDecoder()
		err := d.Decode(b, &one)
		if err != nil && one != (nft.Trace{}) {
			t.Errorf("%+v with error %v", one, err)
		}
		if again := d.Decode(b, &two); (again == nil) != (err == nil) || one != two {
			t.Errorf("%+v, %v, and then %+v, %v", one, err, two, again)
		}
		packet, ok := one.Headers.AppendPacket(nil)
		if n := len(one.Headers.Network()) + len(one.Headers.Transport()); ok && len(packet) != n || !ok && packet != nil {
			t.Errorf("packet of %d bytes, %v, headers of %d", len(packet), ok, n)
		}
	})
}

// FuzzListedRule writes anything as text.
func FuzzListedRule(f *testing.F) {
	names, payloads := captured(f, "rule")
	for _, name := range names {
		f.Add(payloads[name])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, r, err := nft.DecodeListedRule(b)
		if err != nil && (r.Handle != 0 || r.Comment != "" || r.Text() != "") {
			t.Errorf("%+v with error %v", r, err)
		}
		if text := r.Text(); strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) && c != unicode.ReplacementChar }) {
			t.Errorf("text %q", text)
		}
		if f := r.Facts(); f.Reject != (nft.Reject{}) && r.Text() == "" {
			t.Errorf("%+v of a rule without text", f)
		}
		_, _ = nft.DecodeTable(b)
		_, _, _ = nft.DecodeChain(b)
	})
}

// asking is a rule that asks a set, __set0, for so many parts of a packet.
func asking(parts uint32) nft.ListedRule {
	b := nfnl.NewNetfilter(10, 6, 0, uint8(nft.IPv4))
	b.Nested(4, func() { // NFTA_RULE_EXPRESSIONS
		for i := range parts {
			b.Nested(1, func() {
				b.String(1, "payload")
				b.Nested(2, func() { b.U32(1, 8+i); b.U32(2, 1); b.U32(3, 12+4*i); b.U32(4, 4) })
			})
		}
		b.Nested(1, func() {
			b.String(1, "lookup")
			b.Nested(2, func() { b.String(1, "__set0"); b.U32(2, 8) })
		})
	})
	_, r, err := nft.DecodeListedRule(b.Message().Data)
	if err != nil {
		panic(err)
	}
	return r
}

// elementData is an NFT_MSG_NEWSETELEM with keys, of which a flagged one ends
// a range.
func elementData(keys []string, flags uint32) []byte {
	b := nfnl.NewNetfilter(10, 12, 0, uint8(nft.IPv4))
	b.Nested(3, func() {
		for _, k := range keys {
			b.Nested(1, func() {
				b.Nested(1, func() { b.Bytes(1, []byte(k)) })
				b.U32(3, flags)
			})
		}
	})
	return b.Message().Data
}

// FuzzElements writes rules with anything in their sets.
func FuzzElements(f *testing.F) {
	f.Add(elementData([]string{"\x0a\x00\x00\x01", "\x0a\x00\x00\x05"}, 0))
	f.Add(elementData([]string{"\x0a\x00\x00\x01", "\x0a\x00\x00"}, 1))
	f.Add(elementData([]string{"\x0a\x00\x00\x01\x00\x00\x00\x00", ""}, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		for parts := range uint32(3) {
			r, err := asking(parts).WithElements("__set0", b)
			if text := r.Text(); text == "" || err == nil && parts > 0 && !strings.Contains(text, "{ ") {
				t.Errorf("%d parts: %q, %v", parts, text, err)
			}
		}
	})
}

// TestDecodeTraceAllocs allows none once the names are known.
func TestDecodeTraceAllocs(t *testing.T) {
	names, payloads := captured(t, "trace")
	d := nft.NewTraceDecoder()
	n := testing.AllocsPerRun(100, func() {
		for _, name := range names {
			var got nft.Trace
			if err := d.Decode(payloads[name], &got); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d messages", n, len(names))
	}
}

func BenchmarkDecodeTrace(b *testing.B) {
	names, payloads := captured(b, "trace")
	d := nft.NewTraceDecoder()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var got nft.Trace
		if err := d.Decode(payloads[names[i%len(names)]], &got); err != nil {
			b.Fatal(err)
		}
	}
}
