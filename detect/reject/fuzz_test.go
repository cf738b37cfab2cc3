package reject

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// bytesOf hands out the bytes of a fuzzed input, then zeros.
type bytesOf []byte

func (b *bytesOf) next() byte {
	if len(*b) == 0 {
		return 0
	}
	v := (*b)[0]
	*b = (*b)[1:]
	return v
}

// pick is a Lookup of v, with any result; v stays in it.
func pick[T any](b *bytesOf, v T) Lookup[T] { return Lookup[T]{v, Result(b.next() % 4)} }

// fuzzedFlow is an entry of the packet's connection, more or less.
func fuzzedFlow(b *bytesOf, t conntrack.Tuple) conntrack.Flow {
	f := conntrack.Flow{
		Original: t, Reply: t.Invert(),
		TCP: conntrack.TCPInfo{State: conntrack.TCPState(b.next() % 12)}, Status: conntrack.Status(b.next()),
		Fields: conntrack.Fields(b.next()), Timeout: time.Duration(b.next()) * time.Second, ID: uint32(b.next()),
	}
	if how := b.next(); how&1 != 0 {
		f.Original, f.Reply = f.Reply, f.Original
	} else if how&2 != 0 {
		f.Original.SrcPort++
	}
	return f
}

func fuzzedSocket(b *bytesOf) sockdiag.Socket {
	idle := time.Duration(b.next()) * time.Second
	return sockdiag.Socket{
		State: sockdiag.State(b.next() % 16), Inode: uint32(b.next() % 2), Fields: sockdiag.Fields(b.next()),
		Info: sockdiag.TCPInfo{LastDataSent: idle, LastDataRecv: idle, LastAckRecv: idle},
	}
}

// fuzzedEvidence is evidence about the packet, or about none.
func fuzzedEvidence(p packet.Packet, facts []byte, reason string, s conntrack.Settings) Evidence {
	b := (*bytesOf)(&facts)
	h, icmp := p.Header, packet.Header{}
	if p.HasQuoted {
		h, icmp = p.Quoted, p.Header
	}
	t := PacketTuple(h)
	e := Evidence{
		Packet: pick(b, h), Refusal: Refusal(b.next() % 9), ICMP: pick(b, icmp), State: State(b.next() % 7), Reason: reason,
		Entry:  pick(b, fuzzedFlow(b, t)),
		Ended:  pick(b, Ended{conntrack.Event{Type: conntrack.EventType(b.next() % 4), Flow: fuzzedFlow(b, t)}, now}),
		Socket: pick(b, fuzzedSocket(b)), Owner: pick(b, uint32(b.next())), Listener: pick(b, fuzzedSocket(b)),
		Settings: pick(b, s),
	}
	fuzzedContext(b, t, &e)
	return e
}

// fuzzedContext is what comes after the bytes of the seeds: nothing, of them.
func fuzzedContext(b *bytesOf, t conntrack.Tuple, e *Evidence) {
	text := []string{"", "ip saddr @bans drop", "ct count over 9 drop", "notrack\n", "`", "\xff%d"}
	words := func() string { return text[int(b.next())%len(text)] }
	n := func() uint64 { return uint64(b.next()) }
	zoned := func() conntrack.Flow {
		f := fuzzedFlow(b, t)
		f.Zone = uint16(b.next() % 3)
		return f
	}
	e.Hook, e.Local = pick(b, nflog.Hook(b.next()%7)), pick(b, b.next()&1 != 0)
	e.Elsewhere, e.Control = pick(b, zoned()), pick(b, zoned())
	e.Rule = pick(b, Rule{Family: "inet", Table: words(), Chain: "c", Handle: n(), Text: words()})
	e.Rules = pick(b, Rules{Notrack: words(), Zone: words(), Helper: words(), Legacy: b.next()&1 != 0})
	e.Usage = pick(b, conntrack.Usage{Count: n(), Max: n(), Buckets: n(), Fields: conntrack.UsageFields(b.next())})
	e.Counters = pick(b, Counters{Refused: n(), Errors: n(), RateLimited: n(), ReversePath: n(), Overflows: n(), Conntrack: conntrack.Stats{
		Drop: n(), EarlyDrop: n(), InsertFailed: n(), ChainTooLong: n(), ClashResolve: n(),
	}})
	e.Load = pick(b, Load{State: sockdiag.State(b.next() % 16), Count: n(), Limit: n(), Idle: b.next()&1 != 0, Descriptors: n(), Allowed: n()})
	if b.next()&1 != 0 {
		e.At, e.Listening = now, now.Add(-time.Duration(b.next())*time.Second)
	}
	e.Answer = []string{"", reasonNew, reasonHalf}[b.next()%3]
	e.Kernel = []string{"", "5.10.0", "6.1.0", "6.18", "x"}[b.next()%5]
}

// What was looked for and not found, by how many bytes it takes.
var (
	absent5 = []byte{4: 1}
	absent7 = []byte{6: 1}
	absent8 = []byte{7: 1}
)

func FuzzExplain(f *testing.F) {
	known := settings(f, nil)
	syn := []byte("\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\xc0\x00\x02\x02\xc0\x00\x02\x01" +
		"\xc8\x42\x01\xbb\x0f\xe9\xfc\x93\x00\x00\x00\x00\x50\x02\x00\x00\x00\x00\x00\x00")
	data := slices.Clone(syn)
	data[33] = byte(packet.PSH | packet.ACK)
	prohibited := slices.Concat([]byte("\x45\x00\x00\x44\x00\x00\x40\x00\x40\x01\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02"+
		"\x03\x0a\x00\x00\x00\x00\x00\x00"), syn)
	for _, seed := range []struct {
		raw, head, entry, ended, socket, listener []byte

		reason, rule string
	}{
		{prohibited, []byte{2, 3, 2, 0}, absent7, absent8, absent5, absent5, "", "C26"},
		{syn, []byte{2, 1, 0, 4}, []byte{3, 0, 7, 200, 1, 1, 2}, absent8, absent5, absent5, reasonGhost, "C05"},
		{syn, []byte{2, 1, 0, 4}, []byte{6, 2, 7, 20, 1, 1, 2}, absent8, absent5, absent5, reasonReuse, "C06"},
		{data, []byte{2, 1, 0, 1}, absent7, []byte{3, 3, 2, 7, 200, 1, 1, 2}, []byte{0, 1, 1, 0, 2}, absent5, "", "C02"},
		{data, []byte{2, 1, 0, 1}, absent7, []byte{3, 3, 2, 5, 0, 1, 1, 2}, []byte{0, 1, 1, 0, 2}, absent5, "", "C01"},
		{data, []byte{2, 1, 0, 4}, absent7, absent8, absent5, absent5, reasonNew, "C07"},
		{syn, []byte{2, 1, 0, 1}, absent7, absent8, absent5, []byte{0, 10, 1, 0, 2}, "", "C19"},
		{syn, []byte{2, 1, 0, 1}, absent7, absent8, absent5, absent5, "", "C20"},
		{nil, []byte{0, 0, 0, 0}, absent7, absent8, []byte{0, 8, 1, 0, 2}, absent5, "", "C08"},
		{nil, nil, nil, nil, nil, nil, "", ""},
	} {
		facts := slices.Concat(seed.head, seed.entry, seed.ended, seed.socket, []byte{0, 0}, seed.listener, []byte{2})
		p, _ := packet.Decode(seed.raw)
		if v := Explain(fuzzedEvidence(p, facts, seed.reason, known)); v.Rule != seed.rule {
			f.Errorf("the seed for %s gives %s %v", seed.rule, v.Rule, v)
		}
		f.Add(seed.raw, facts, seed.reason)
	}
	rules := make(map[string]Cause)
	for _, r := range table {
		rules[r.rule] = r.cause
	}
	f.Fuzz(func(t *testing.T, raw, facts []byte, reason string) {
		p, _ := packet.Decode(raw) // the zero Packet is one too
		e := fuzzedEvidence(p, facts, reason, known)
		v := Explain(e)
		switch {
		case v.Cause == "" || v.Summary == "" || v.String() == "":
			t.Errorf("no cause or no summary: %+v", v)
		case (v.Confidence == detect.Unknown) != (v.Cause == CauseUnknown):
			t.Errorf("%s is %v", v.Cause, v.Confidence)
		case (v.Rule == "") != (v.Cause == CauseUnknown) || v.Rule != "" && rules[v.Rule] != v.Cause:
			t.Errorf("%s by rule %q", v.Cause, v.Rule)
		case (v.Decide == "") != (len(v.Missing) == 0) || v.Cause == CauseUnknown && v.Decide == "":
			t.Errorf("%s: decide by %q, missing %q", v.Cause, v.Decide, v.Missing)
		case e.Packet.Result == Present && len(v.Facts) == 0 || len(v.Fix) == 0 && v.Rule != "":
			t.Errorf("%s: facts %q, fix %q", v.Cause, v.Facts, v.Fix)
		case strings.ContainsAny(v.String(), "\n\r\x1b") || strings.Count(v.Text(), "\n") != len(v.Facts)+len(v.Missing)+len(v.Fix)+min(len(v.Decide), 1):
			t.Errorf("lines are broken: %q", v.Text())
		case v.Evidence != e || v.Count != 0 || !v.First.IsZero() || !v.Last.IsZero():
			t.Errorf("%s: what only Watch knows, or other evidence: %+v", v.Cause, v)
		}
		if b, err := json.Marshal(v); err != nil || !json.Valid(b) {
			t.Errorf("%s: %v: %s", v.Cause, err, b)
		}
		certainOnlyWhen(t, v.Rule, e)
		if again := Explain(e); !reflect.DeepEqual(v, again) {
			t.Errorf("%v, then %v", v, again)
		}
	})
}

// FuzzParseReason: no text is misread as a bound or a state that it has not.
func FuzzParseReason(f *testing.F) {
	for _, s := range []string{reasonGhost, reasonOver, reasonUnder5, reasonHalf, reasonNew, "nf_ct_tcp: BUG ", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := ParseReason(text)
		if r.Exact && !strings.ContainsAny(text, "0123456789") || r.Index > 9 || (r.Kind == ReasonNone) != (r == Reason{}) {
			t.Errorf("%q: %+v", text, r)
		}
	})
}
