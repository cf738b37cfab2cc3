package packet

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	t0     = time.Date(2015, 3, 1, 12, 0, 0, 0, time.UTC)
	sender = netip.AddrPortFrom(client4, 40000)
	server = netip.AddrPortFrom(host4, 80)
)

// segmentOf is a header from the client to the host; reply turns it.
func segmentOf(flags TCPFlags, seq, ack uint32, n int) Header {
	return Header{Src: client4, Dst: host4, SrcPort: 40000, DstPort: 80, Proto: ProtoTCP, TTL: 51,
		Flags: flags, Seq: seq, Ack: ack, DataLen: n, Have: haveTCP}
}

func reply(flags TCPFlags, seq, ack uint32) Header {
	h := segmentOf(flags, seq, ack, 0)
	h.Src, h.Dst, h.SrcPort, h.DstPort, h.TTL = h.Dst, h.Src, h.DstPort, h.SrcPort, 64
	return h
}

func TestArrived(t *testing.T) {
	sent := segmentOf(PSH|RST|ACK, 1000, 5000, 804)
	other := reply(RST|ACK, 5000, 1000)
	other.DstPort++
	noFlags := reply(RST|ACK, 5000, 1000)
	noFlags.Have &^= HaveFlags
	for _, tt := range []struct {
		name   string
		sent   Header
		answer Header
		n      int
		ok     bool
	}{
		{"nothing", sent, reply(RST|ACK, 5000, 1000), 0, true},
		{"nothing, by an ACK", sent, reply(ACK, 5000, 1000), 0, true},
		{"a part", sent, reply(RST|ACK, 5000, 1100), 100, true},
		{"all", sent, reply(ACK, 5000, 1804), 804, true},
		{"more", sent, reply(ACK, 5000, 2000), 804, true},
		{"an old answer", sent, reply(ACK, 5000, 900), 0, true},
		{"over the end of the numbers", segmentOf(ACK, 1<<32-4, 0, 8), reply(ACK, 5000, 2), 6, true},
		{"of another connection in time", sent, reply(ACK, 5000, 1000+1<<31), 0, false},
		{"no ACK flag", sent, reply(RST, 5000, 1000), 0, false},
		{"of a TCP that knows nothing", sent, reply(RST|ACK, 0, 1804), 0, false},
		{"same direction", sent, segmentOf(ACK, 5000, 1000, 0), 0, false},
		{"other connection", sent, other, 0, false},
		{"no flags", sent, noFlags, 0, false},
		{"length unknown", segmentOf(ACK, 1000, 0, -1), reply(ACK, 5000, 1000), 0, false},
	} {
		if n, ok := tt.sent.Arrived(tt.answer); n != tt.n || ok != tt.ok {
			t.Errorf("%s: %d, %t", tt.name, n, ok)
		}
	}
}

func TestHops(t *testing.T) {
	for ttl, want := range map[uint8]int{64: 0, 63: 1, 51: 13, 128: 0, 117: 11, 65: 63, 255: 0, 254: 1, 129: 126, 0: 64} {
		if got := (Header{TTL: ttl}).Hops(); got != want {
			t.Errorf("TTL %d: %d, want %d", ttl, got, want)
		}
	}
}

// at is a packet and when it is seen.
type at struct {
	after time.Duration
	h     Header
}

// feedResets returns what a tracker of n connections tells of packets.
func feedResets(n int, packets []at) (told []PushedReset) {
	track := NewResetTracker(n)
	for _, p := range packets {
		if r, ok := track.Packet(t0.Add(p.after), p.h); ok {
			told = append(told, r)
		}
	}
	return told
}

// The incident: handshake, a request of 804 bytes with PSH|RST, and 72 s later
// the RST of the server that gives up.
var (
	handshake = []at{
		{0, segmentOf(SYN, 999, 0, 0)},
		{time.Millisecond, reply(SYN|ACK, 4999, 1000)},
		{2 * time.Millisecond, segmentOf(ACK, 1000, 5000, 0)},
	}
	request  = at{3 * time.Millisecond, segmentOf(PSH|RST|ACK, 1000, 5000, 804)}
	late     = at{72*time.Second + 3*time.Millisecond, reply(RST|ACK, 5000, 1000)}
	possible = PushedReset{From: sender, To: server, Payload: 804, Count: 1, At: t0.Add(request.after),
		Confidence: Possible, Want: 805}
	certain = PushedReset{From: sender, To: server, Payload: 804, Count: 1, At: t0.Add(request.after),
		Confidence: Certain, Answer: RST | ACK, TTL: 64, After: 72 * time.Second, Ack: 1, Want: 805}
)

// then is the handshake and what follows.
func then(more ...at) []at { return append(handshake[:len(handshake):len(handshake)], more...) }

func TestResetTracker(t *testing.T) {
	shift := func(p at, d time.Duration) at { p.after = d; return p }
	grade := func(r PushedReset, c Confidence, count int) PushedReset { r.Confidence, r.Count = c, count; return r }
	noAnswer := func(r PushedReset) PushedReset {
		r.Answer, r.TTL, r.After, r.Ack, r.Confidence = 0, 0, 0, 0, Possible
		return r
	}
	wrongOrder := at{time.Millisecond * 3, segmentOf(PSH|RST|ACK, 1100, 5000, 704)}
	laterRequest := noAnswer(certain)
	laterRequest.Payload, laterRequest.Want = 704, 805
	second := certain
	second.Payload, second.Ack, second.Want = 704, 101, 805
	midway := late
	midway.h.TTL = 57
	for _, tt := range []struct {
		name    string
		packets []at
		want    []PushedReset
	}{
		{"the incident", then(request, late), []PushedReset{possible, certain}},
		{"told once", then(request, late, late), []PushedReset{possible, certain}},
		{"sent twice", then(request, request, late), []PushedReset{possible, grade(certain, Certain, 2)}},
		{"without its start", []at{request, late}, []PushedReset{possible, grade(certain, Likely, 1)}},
		{"only SYN/ACK seen", []at{handshake[1], request, late}, []PushedReset{possible, certain}},
		{"no answer", then(request), []PushedReset{possible}},
		{"an answer under way before", then(request, shift(late, 50*time.Millisecond)), []PushedReset{possible}},
		{"the clock goes back", then(request, shift(late, -time.Hour), late), []PushedReset{possible, certain}},
		{"by a keep-alive", then(request, at{late.after, reply(ACK, 4999, 1000)}), []PushedReset{possible,
			{From: sender, To: server, Payload: 804, Count: 1, At: possible.At, Confidence: Certain,
				Answer: ACK, TTL: 64, After: 72 * time.Second, Ack: 1, Want: 805}}},
		{"data before", then(at{0, segmentOf(PSH|ACK, 1000, 5000, 100)}, wrongOrder, at{late.after, reply(RST|ACK, 5000, 1100)}),
			[]PushedReset{laterRequest, second}},
		// TCP itself ignores a RST that is not the next in sequence.
		{"data before it comes after it", then(wrongOrder, at{4 * time.Millisecond, segmentOf(PSH|ACK, 1000, 5000, 100)},
			at{late.after, reply(RST|ACK, 5000, 1100)}), []PushedReset{laterRequest}},
		{"first out of sequence, then in it", then(wrongOrder, request, late),
			[]PushedReset{laterRequest, grade(certain, Certain, 2)}},
		{"the data arrived", then(request, at{late.after, reply(RST|ACK, 5000, 1804)}), []PushedReset{possible}},
		{"a RST of no connection", then(request, at{late.after, reply(RST, 5000, 0)}), []PushedReset{possible}},
		{"a RST made up", then(request, at{late.after, reply(RST|ACK, 0, 1000)}), []PushedReset{possible}},
		{"from somebody between", then(request, midway), []PushedReset{possible}},
		{"a new connection", append(then(request), append(handshake, late)...), []PushedReset{possible}},
		{"somebody else's SYN", then(request, handshake[0], late), []PushedReset{possible, certain}},
		// Near misses.
		{"a request and its answer", then(at{0, segmentOf(PSH|ACK, 1000, 5000, 804)}, late), nil},
		{"RST without data", then(at{0, segmentOf(RST|ACK, 1000, 5000, 0)}, late), nil},
		{"RST with a text, RFC 9293 section 3.5.3", then(at{0, segmentOf(RST|ACK, 1000, 5000, 20)}, late), nil},
		{"PSH|RST without data", then(at{0, segmentOf(PSH|RST|ACK, 1000, 5000, 0)}, late), nil},
		{"UDP", []at{{0, Header{Proto: ProtoUDP, Have: havePorts}}}, nil},
	} {
		got := feedResets(16, tt.packets)
		if len(got) != len(tt.want) {
			t.Errorf("%s: told %v, want %v", tt.name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %d:\n got %+v\nwant %+v", tt.name, i, got[i], tt.want[i])
			}
		}
	}
}

func TestPushedResetString(t *testing.T) {
	for _, tt := range []struct {
		r    PushedReset
		want []string
	}{
		{possible, []string{"192.0.2.2:40000 > 192.0.2.1:80", "804 bytes", "(possible)"}},
		{certain, []string{"1m12s after", "RST|ACK with TTL 64 acknowledges 1, not 805", "a rule drops RST", "(certain)"}},
	} {
		for _, w := range tt.want {
			if !strings.Contains(tt.r.String(), w) {
				t.Errorf("%q lacks %q", tt.r, w)
			}
		}
	}
}

// TestResetTrackerBounds floods a tracker of two connections.
func TestResetTrackerBounds(t *testing.T) {
	track := NewResetTracker(2)
	for port := range uint16(1000) {
		for _, p := range then(request) {
			p.h.SrcPort += port * uint16(min(p.h.SrcPort/40000, 1))
			p.h.DstPort += port * uint16(min(p.h.DstPort/40000, 1))
			track.Packet(t0, p.h)
		}
	}
	if got := track.Forgotten(); got != 998 {
		t.Errorf("forgot %d", got)
	}
	if n := len(track.pushed.index) + len(track.begun.index); n > 4 || len(track.pushed.rows) > 3 || len(track.begun.rows) > 3 {
		t.Errorf("keeps %d connections, %d and %d rows", n, len(track.pushed.rows), len(track.begun.rows))
	}
	if n := len(NewResetTracker(0).pushed.rows); n != 1 {
		t.Errorf("%d rows before any packet", n)
	}
}

// TestFlowTable compares the table with a plain list of what was used last.
func TestFlowTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const limit = 5
	table := newFlowTable[int](limit)
	var order []byte // keys, the latest last
	values := map[byte]int{}
	drop := func(k byte) {
		for i, o := range order {
			if o == k {
				order = append(order[:i], order[i+1:]...)
				return
			}
		}
	}
	for i := range 20000 {
		k := byte(rng.IntN(9))
		switch rng.IntN(3) {
		case 0:
			got := table.get(flowKey{k})
			want, ok := values[k]
			if (got != nil) != ok || ok && *got != want {
				t.Fatalf("step %d: got %v, want %d, %t", i, got, want, ok)
			}
			if ok {
				drop(k)
				order = append(order, k)
			}
		case 1:
			table.put(flowKey{k}, i)
			drop(k)
			order = append(order, k)
			values[k] = i
			if len(order) > limit {
				delete(values, order[0])
				order = order[1:]
			}
		default:
			table.delete(flowKey{k})
			drop(k)
			delete(values, k)
		}
		if len(table.index) != len(values) || len(table.rows) > limit+1 {
			t.Fatalf("step %d: %d keys in %d rows, want %d", i, len(table.index), len(table.rows), len(values))
		}
	}
}

func TestResetTrackerAllocs(t *testing.T) {
	track := NewResetTracker(4)
	packets := then(request, late)
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range packets {
			track.Packet(t0.Add(p.after), p.h)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
