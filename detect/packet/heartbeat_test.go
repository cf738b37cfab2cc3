package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// record is a TLS record.
func record(typ byte, body ...byte) []byte {
	return append([]byte{typ, 3, 2, byte(len(body) >> 8), byte(len(body))}, body...)
}

// beat is a heartbeat record of a type, with a payload_length, and n bytes of
// payload and padding.
func beat(typ byte, claimed uint16, n int) []byte {
	return record(tlsHeartbeat, append([]byte{typ, byte(claimed >> 8), byte(claimed)}, make([]byte, n)...)...)
}

// cipherBeat is an encrypted heartbeat of n bytes.
func cipherBeat(n int) []byte {
	body := make([]byte, n)
	body[0] = 0xc3
	return record(tlsHeartbeat, body...)
}

var (
	attack   = raw("18 0302 0003 01 4000") // what the first exploits sent
	hello    = record(tlsHandshake, append(raw("01 000040 0303"), zeros(62)...)...)
	changed  = record(tlsChangeCipherSpec, 1)
	appData  = record(tlsApplicationData, zeros(100)...)
	finished = record(tlsHandshake, append(raw("9a 33 71 00"), zeros(36)...)...)
)

func TestHeartbeatFault(t *testing.T) {
	long := beat(HeartbeatRequest, 16384, 16384+16)
	for _, tt := range []struct {
		name string
		b    []byte
		want Heartbeat
		f    HeartbeatFault
		sure Confidence
	}{
		{"the attack", attack, Heartbeat{0x302, 3, 1, 0x4000}, Overread, Certain},
		{"the attack with payload", beat(1, 0x4000, 20), Heartbeat{0x302, 23, 1, 0x4000}, Overread, Likely},
		{"one byte too much", beat(1, 33, 32), Heartbeat{0x302, 35, 1, 33}, Overread, Likely},
		{"no padding", beat(1, 32, 32), Heartbeat{0x302, 35, 1, 32}, Violation, Likely},
		{"15 bytes of padding", beat(1, 17, 32), Heartbeat{0x302, 35, 1, 17}, Violation, Likely},
		{"16 bytes of padding", beat(1, 16, 32), Heartbeat{0x302, 35, 1, 16}, 0, Unknown},
		{"the least", beat(1, 0, 16), Heartbeat{0x302, 19, 1, 0}, 0, Unknown},
		{"less than that", beat(1, 0, 15), Heartbeat{0x302, 18, 1, 0}, Violation, Certain},
		{"as OpenSSL sends it", beat(1, 18, 34), Heartbeat{0x302, 37, 1, 18}, 0, Unknown},
		{"a large request", beat(1, 200, 216), Heartbeat{0x302, 219, 1, 200}, 0, Unknown},
		{"a response", beat(2, 18, 34), Heartbeat{0x302, 37, 2, 18}, 0, Unknown},
		{"a large response", beat(2, 200, 216), Heartbeat{0x302, 219, 2, 200}, Large, Possible},
		{"a response over its record", beat(2, 300, 216), Heartbeat{0x302, 219, 2, 300}, Violation, Likely},
		{"longer than allowed", long, Heartbeat{0x302, 16403, 1, 16384}, Violation, Likely},
		{"no type there is", beat(3, 0, 2), Heartbeat{0x302, 5, 3, 0}, Violation, Certain},
		{"empty", record(tlsHeartbeat), Heartbeat{0x302, 0, 0, -1}, Violation, Certain},
		{"type alone", record(tlsHeartbeat, 1), Heartbeat{0x302, 1, 1, -1}, Violation, Certain},
		{"cipher text", cipherBeat(61), Heartbeat{0x302, 61, 0xc3, 0}, 0, Unknown},
		{"long cipher text", cipherBeat(65), Heartbeat{0x302, 65, 0xc3, 0}, Large, Possible},
		{"cut after the record header", attack[:5], Heartbeat{0x302, 3, 0, -1}, 0, Unknown},
		{"cut after the type", attack[:6], Heartbeat{0x302, 3, 1, -1}, 0, Unknown},
		{"a large one, cut after the type", beat(2, 200, 216)[:6], Heartbeat{0x302, 219, 2, -1}, Large, Possible},
	} {
		var hb Heartbeat
		var ok bool
		var f HeartbeatFault
		var sure Confidence
		if n := testing.AllocsPerRun(10, func() { hb, ok = DecodeHeartbeat(tt.b); f, sure = hb.Fault() }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
		if hb != tt.want || !ok || f != tt.f || sure != tt.sure {
			t.Errorf("%s: %+v, %t, %v, %v; want %+v, %v, %v", tt.name, hb, ok, f, sure, tt.want, tt.f, tt.sure)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "cut": attack[:4], "application data": appData, "TLS 2": with(attack, 1, 2), "TLS 1.4": with(attack, 2, 5),
		"a length that no record has": with(attack, 3, 0x48, 1),
	} {
		if hb, ok := DecodeHeartbeat(b); ok || hb != (Heartbeat{}) {
			t.Errorf("%s: %+v", name, hb)
		}
	}
}

// literal is the filter of LargeHeartbeat as it was written for IPv4 without
// options that it knows of, read from the bytes.
func literal(b []byte) bool {
	ihl, length := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	offset := int(b[ihl+12]>>4) * 4
	payload := b[ihl+offset:]
	return len(payload) > 2 && payload[0] == 0x18 && payload[1] == 0x03 && payload[2] < 0x04 && length-ihl-offset > 69
}

// TestLargeHeartbeat compares with the filter over random packets of which one
// in four or so is such a heartbeat, cut or not.
func TestLargeHeartbeat(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	hits := 0
	for range 20000 {
		tcp := with(tcpSYN, 12, byte(5+rng.IntN(3))<<4)
		payload := make([]byte, 60+rng.IntN(30))
		payload[0], payload[1], payload[2] = 0x17+byte(rng.IntN(2)), byte(3-rng.IntN(8)/7), byte(rng.IntN(6))
		b := v4(ProtoTCP, tcp, zeros(int(tcp[12]>>4)*4-20), payload)
		b = b[:len(b)-rng.IntN(58)]
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.LargeHeartbeat(b); got != literal(b) {
			t.Fatalf("%t, the filter says %t: %x", got, !got, b)
		} else if got {
			hits++
		}
	}
	if hits < 500 {
		t.Errorf("%d hits of 20000", hits)
	}
	for name, b := range map[string][]byte{
		"UDP": v4(ProtoUDP, raw("d4e8 0035 0060 0000"), attack, zeros(80)), "no data": v4(ProtoTCP, tcpSYN),
		"cut after two bytes": v4(ProtoTCP, tcpSYN, attack, zeros(80))[:42],
	} {
		if p, _ := Decode(b); p.LargeHeartbeat(b) {
			t.Error(name)
		}
	}
	if b := v6(ProtoTCP, tcpSYN, attack, zeros(62)); !must(Decode(b)).LargeHeartbeat(b) {
		t.Error("not seen over IPv6")
	}
}

func must(p Packet, err error) Packet {
	if err != nil {
		panic(err)
	}
	return p
}

// talk feeds a tracker the segments of one connection.
type talk struct {
	track *HeartbeatTracker
	seq   [2]uint32 // next of client and host
	told  []HeartbeatFinding
	cut   int // bytes of data captured at most, if not 0
}

func newTalk() *talk {
	return &talk{track: NewHeartbeatTracker(8), seq: [2]uint32{1<<32 - 5, 7}} // the client's numbers soon wrap
}

// open makes the handshake.
func (c *talk) open() *talk {
	c.send(0, SYN, c.seq[0]-1, nil)
	c.send(1, SYN|ACK, c.seq[1]-1, nil)
	return c
}

func (c *talk) send(dir int, flags TCPFlags, seq uint32, payload []byte) {
	ends := [2][]byte{raw("9c40 2328"), raw("2328 9c40")}
	tcp := append(ends[dir], raw("00000000 00000000 5010 0400 0000 0000")...)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], c.seq[1-dir])
	tcp[13] = byte(flags)
	b := v4(ProtoTCP, tcp, payload)
	if dir == 1 {
		copy(b[12:20], slices.Concat(b[16:20], b[12:16]))
	}
	if c.cut > 0 {
		b = b[:min(len(b), 40+c.cut)]
	}
	c.track.Packet(must(Decode(b)).Header, b, func(f HeartbeatFinding) { c.told = append(c.told, f) })
}

// client has the client send data in one segment, and host the host.
func (c *talk) client(parts ...[]byte) *talk { return c.data(0, parts...) }
func (c *talk) host(parts ...[]byte) *talk   { return c.data(1, parts...) }

func (c *talk) data(dir int, parts ...[]byte) *talk {
	payload := slices.Concat(parts...)
	c.send(dir, PSH|ACK, c.seq[dir], payload)
	return c.skip(dir, len(payload))
}

// skip leaves out bytes that were sent and not seen.
func (c *talk) skip(dir, n int) *talk {
	c.seq[dir] += uint32(n)
	return c
}

// again sends what was sent before, n bytes back.
func (c *talk) again(dir, n int, payload []byte) *talk {
	c.send(dir, ACK, c.seq[dir]-uint32(n), payload)
	return c
}

// split sends a byte at a time.
func (c *talk) split(dir int, payload []byte) *talk {
	for i := range payload {
		c.data(dir, payload[i:i+1])
	}
	return c
}

func (c *talk) capture(n int) *talk {
	c.cut = n
	return c
}

// verdict is what matters of a finding.
type verdict struct {
	dir       int
	fault     HeartbeatFault
	sure      Confidence
	extra     int
	request   int
	encrypted bool
}

func (c *talk) verdicts() []verdict {
	var all []verdict
	for _, f := range c.told {
		v := verdict{0, f.Fault, f.Confidence, f.Extra, f.Request, f.Encrypted}
		if f.From.Port() == 9000 {
			v.dir = 1
		}
		all = append(all, v)
	}
	return all
}

func TestHeartbeatTracker(t *testing.T) {
	leak := beat(HeartbeatResponse, 0x4000, 0x4000-3) // the first record of OpenSSL's answer
	rest := record(tlsHeartbeat, append(raw("9c 0102"), zeros(16)...)...)
	overread := verdict{0, Overread, Certain, 0x4000, 0, false}
	leaked := verdict{1, Leak, Certain, 0x4000, 3, false}
	likely := verdict{0, Overread, Likely, 0x4000 - 20, 0, false}
	sure := verdict{0, Overread, Certain, 0x4000 - 20, 0, false}
	withPayload := beat(1, 0x4000, 20)
	for _, tt := range []struct {
		name string
		c    *talk
		want []verdict
	}{
		{"attack and leak", newTalk().open().client(hello).host(hello).client(attack).host(leak, rest), []verdict{overread, leaked}},
		{"without TLS around it", newTalk().open().client(attack).host(leak, rest), []verdict{overread, leaked}},
		{"an attack after the leak", newTalk().open().client(attack).host(leak, attack),
			[]verdict{overread, leaked, {1, Overread, Certain, 0x4000, 0, false}}},
		{"start not seen", newTalk().client(attack).host(leak, rest), []verdict{overread, {1, Leak, Likely, 0x4000, 3, false}}},
		{"response split over segments", newTalk().open().client(attack).split(1, leak).split(1, rest), []verdict{overread, leaked}},
		{"attack split over segments", newTalk().open().client(hello).split(0, attack), []verdict{overread}},
		{"attack inside a segment", newTalk().open().client(hello, attack), []verdict{overread}},
		{"inside a segment, start not seen", newTalk().client(hello, attack), []verdict{overread}},
		{"with payload, after a Hello", newTalk().client(hello, withPayload), []verdict{sure}},
		{"with payload, nothing known", newTalk().client(withPayload), []verdict{likely}},
		{"two in one segment", newTalk().open().client(attack, attack), []verdict{overread, overread}},
		{"sent twice", newTalk().open().client(hello, attack).again(0, len(attack), attack), []verdict{overread}},
		{"sent again with more", newTalk().open().client(hello).again(0, len(hello), append(hello, attack...)), []verdict{overread}},
		{"out of order", newTalk().open().client(hello).skip(0, 8).client(appData).again(0, 8+len(appData), attack),
			[]verdict{overread}},
		{"after a gap within a record", newTalk().open().client(appData[:50]).skip(0, 55).client(attack), []verdict{overread}},
		{"after a gap that hides the records", newTalk().open().client(hello).skip(0, 1000).client(attack), []verdict{overread}},
		{"after something else than TLS", newTalk().open().client(raw("535441525454 4c53")).client(hello, withPayload), []verdict{sure}},
		{"in the SYN", func() *talk { c := newTalk(); c.send(0, SYN, c.seq[0]-1, attack); return c }(), []verdict{overread}},
		{"a fake response before", newTalk().open().client(beat(2, 0xffff, heartbeatMax-3), attack),
			[]verdict{{0, Violation, Certain, 0, 0, false}, overread}},
		{"a new connection", newTalk().open().client(changed, finished).open().client(withPayload), []verdict{sure}},
		// Encrypted: lengths alone.
		{"encrypted leak", newTalk().open().client(changed, cipherBeat(40)).host(changed, cipherBeat(16384)),
			[]verdict{{1, Leak, Possible, 16344, 40, true}}},
		{"encrypted response as long as its request", newTalk().open().client(changed, cipherBeat(61)).host(changed, cipherBeat(61)), nil},
		{"encrypted, padded", newTalk().open().client(changed, cipherBeat(61)).host(changed, cipherBeat(61+256)), nil},
		{"encrypted, large, no request known", newTalk().host(appData, cipherBeat(300)), []verdict{{1, Large, Possible, 0, 0, true}}},
		{"cipher text that looks like the attack", newTalk().open().client(changed, withPayload), nil},
		{"the same, after a gap", newTalk().open().client(changed, appData).skip(0, 1000).client(withPayload), nil},
		// In the clear and proper.
		{"within limits", newTalk().open().client(beat(1, 18, 34)).host(beat(2, 18, 34)), nil},
		{"large, both ways", newTalk().open().client(beat(1, 200, 216)).host(beat(2, 200, 216)), nil},
		{"large, request not seen", newTalk().open().host(beat(2, 200, 216)), []verdict{{1, Large, Possible, 0, 0, false}}},
		{"more than was asked", newTalk().open().client(beat(1, 18, 34)).host(beat(2, 60, 76)), []verdict{{1, Leak, Certain, 42, 37, false}}},
		{"a type that is none", newTalk().open().client(beat(7, 0, 30)), []verdict{{0, Violation, Certain, 0, 0, false}}},
		// What a capture length hides.
		{"cut in the attack", newTalk().open().capture(6).client(attack), nil},
		{"cut in the leak", newTalk().open().client(attack).capture(5).host(leak), []verdict{overread, {1, Leak, Possible, 16381, 3, false}}},
		{"cut elsewhere", newTalk().open().capture(60).client(appData).capture(0).client(attack), []verdict{overread}},
		{"cut before the attack", newTalk().open().capture(60).client(hello, attack), nil},
		// Not heartbeats.
		{"application data", newTalk().open().client(hello).client(changed, finished).client(appData).host(appData, appData), nil},
		{"the bytes inside a record", newTalk().open().client(record(tlsApplicationData, attack...)), nil},
		{"the bytes inside another protocol", newTalk().open().client(raw("474554202f"), attack), nil},
		{"in a RST, which brings no data", func() *talk { c := newTalk().open(); c.send(0, PSH|RST|ACK, c.seq[0], attack); return c }(), nil},
	} {
		if got := tt.c.verdicts(); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

// TestHeartbeatLost counts what could not be followed.
func TestHeartbeatLost(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    *talk
		want uint64
	}{
		{"all seen", newTalk().open().client(hello).split(0, appData).host(hello, appData), 0},
		{"a gap within a record", newTalk().open().client(appData[:50]).skip(0, 55).client(appData), 0},
		{"a gap over records", newTalk().open().client(hello).skip(0, 1000).client(appData), 1},
		{"cut between records", newTalk().open().capture(len(hello)).client(hello, appData), 1},
		{"cut within a header", newTalk().open().capture(len(hello)+3).client(hello, appData), 1},
		{"no TLS", newTalk().open().client(raw("474554202f0d0a")).skip(0, 1000).client(raw("4745")), 0},
	} {
		if got := tt.c.track.Lost(); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestHeartbeatTrackerBounds(t *testing.T) {
	track := NewHeartbeatTracker(2)
	for port := range byte(100) {
		for _, b := range [][]byte{v4(ProtoTCP, with(tcpSYN, 1, port)), v4(ProtoTCP, with(tcpSYN, 0, 0, port, 0, 0, 1, 1, 1, 1), attack)} {
			track.Packet(must(Decode(b)).Header, b, func(HeartbeatFinding) {})
		}
	}
	if len(track.flows.index) > 2 || len(track.begun.index) > 2 || track.Forgotten() != 98 {
		t.Errorf("%d and %d connections, forgot %d", len(track.flows.index), len(track.begun.index), track.Forgotten())
	}
	if n := len(NewHeartbeatTracker(0).flows.rows); n != 1 {
		t.Errorf("%d rows before any packet", n)
	}
}

func TestHeartbeatTrackerAllocs(t *testing.T) {
	track := NewHeartbeatTracker(4)
	var packets [][]byte
	for _, payload := range [][]byte{nil, attack, slices.Concat(hello, withLength(attack)), appData} {
		packets = append(packets, v4(ProtoTCP, with(tcpData[:20], 13, uint8(ACK)), payload))
	}
	var sum int
	found := func(f HeartbeatFinding) { sum += f.Extra }
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range packets {
			p, _ := Decode(b)
			track.Packet(p.Header, b, found)
		}
	}); n != 0 || sum == 0 {
		t.Errorf("%v allocations, %d", n, sum)
	}
}

func withLength(b []byte) []byte { return append(b[:len(b):len(b)], zeros(20)...) }

func TestHeartbeatStrings(t *testing.T) {
	for f, want := range map[HeartbeatFinding]string{
		{From: sender, To: server, Heartbeat: Heartbeat{Length: 3}, Fault: Overread, Extra: 16384, Confidence: Certain}: "192.0.2.2:40000 > " +
			"192.0.2.1:80: heartbeat of 3 bytes: a request that claims 16384 bytes more than it has, the Heartbleed attack (certain)",
		{From: server, To: sender, Heartbeat: Heartbeat{Length: 400}, Fault: Leak, Extra: 360, Confidence: Possible, Encrypted: true}: "192.0.2.1:80 > " +
			"192.0.2.2:40000: heartbeat of 400 bytes: a response with 360 bytes more than its request had: the server leaks memory; " +
			"it is encrypted, only its length tells (possible)",
		{From: sender, To: server, Heartbeat: Heartbeat{Length: 1}, Fault: Violation, Confidence: Likely}: "192.0.2.2:40000 > 192.0.2.1:80: " +
			"heartbeat of 1 bytes: a message that RFC 6520 forbids (likely)",
		{From: sender, To: server, Heartbeat: Heartbeat{Length: 70}, Fault: Large, Confidence: Possible}: "192.0.2.2:40000 > 192.0.2.1:80: " +
			"heartbeat of 70 bytes: larger than usual, a leak if its request was smaller (possible)",
		{}: "invalid AddrPort > invalid AddrPort: heartbeat of 0 bytes: none (unknown)",
	} {
		if got := f.String(); got != want {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
}
