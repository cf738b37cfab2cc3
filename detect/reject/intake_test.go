package reject

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.9")
)

// tcpPacket is a packet of IPv4 with a TCP header.
func tcpPacket(t conntrack.Tuple, flags packet.TCPFlags, seq, ack uint32) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, packet.ProtoTCP
	copy(b[12:], t.Src.AsSlice())
	copy(b[16:], t.Dst.AsSlice())
	binary.BigEndian.PutUint16(b[20:], t.SrcPort)
	binary.BigEndian.PutUint16(b[22:], t.DstPort)
	binary.BigEndian.PutUint32(b[24:], seq)
	binary.BigEndian.PutUint32(b[28:], ack)
	b[32], b[33] = 0x50, byte(flags)
	return b
}

// icmpPacket is an ICMP error that quotes a packet.
func icmpPacket(src, dst netip.Addr, code byte, quoted []byte) []byte {
	b := make([]byte, 28, 28+len(quoted))
	b[0], b[3], b[8], b[9] = 0x45, byte(28+len(quoted)), 64, packet.ProtoICMP
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	b[20], b[21] = 3, code
	return append(b, quoted...)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func tcpTuple(src netip.Addr, srcPort uint16, dst netip.Addr, dstPort uint16) conntrack.Tuple {
	return conntrack.Tuple{Src: src, SrcPort: srcPort, Dst: dst, DstPort: dstPort, Proto: conntrack.ProtoTCP}
}

// into is a connection from there to here.
func into(port uint16) conntrack.Tuple { return tcpTuple(there, 40000, here, port) }

// intake gives packets to a watch without sources.
type intake struct {
	*watch
	t *testing.T
}

func newIntake(t *testing.T, cfg Config) intake { return intake{newWatch(cfg.withDefaults()), t} }

func (in intake) take(hook nflog.Hook, prefix string, b []byte) {
	in.t.Helper()
	must(in.t, in.packet(&nflog.Packet{Hook: hook, Prefix: prefix, Payload: b}, now))
}

// one returns the only flow.
func (in intake) one() *refused {
	in.t.Helper()
	if in.flows.order.Len() != 1 {
		in.t.Fatalf("%d flows, want 1", in.flows.order.Len())
	}
	return in.flows.order.Front().Value.(*refused)
}

// A packet of a flow that is known costs no memory, nor does one of a crowd.
func TestCountAllocatesNothing(t *testing.T) {
	for name, cfg := range map[string]Config{
		"known": {}, "one source": {SourceFlows: 1}, "all": {Flows: 1},
	} {
		in := newIntake(t, cfg)
		known := nflog.Packet{Hook: nflog.Input, Prefix: "new ", Payload: tcpPacket(into(80), packet.SYN, 1, 0)}
		other := nflog.Packet{Hook: nflog.Input, Prefix: "new ", Payload: tcpPacket(into(81), packet.SYN, 1, 0)}
		other.Payload[15] = byte(len(name)) // the source's last byte
		if name == "one source" {
			other.Payload[15] = known.Payload[15]
		}
		must(t, in.packet(&known, now), in.packet(&other, now))
		if n := testing.AllocsPerRun(1000, func() {
			must(t, in.packet(&known, now), in.packet(&other, now))
		}); n != 0 {
			t.Errorf("%s: %v allocations for two packets", name, n)
		}
		if in.tally.refused != 2004 {
			t.Errorf("%s: %d packets were counted", name, in.tally.refused)
		}
	}
}

func TestIntakeLogged(t *testing.T) {
	in := newIntake(t, Config{})
	must(t, in.reason(&nflog.Packet{Prefix: reasonFlags, Payload: tcpPacket(into(80), packet.SYN, 7, 0)}, now))
	p := &nflog.Packet{Hook: nflog.Input, Prefix: "FW invalid: ", HasUID: true, UID: 33, Payload: tcpPacket(into(80), packet.SYN, 7, 0)}
	must(t, in.packet(p, now))
	r := in.one()
	if s := r.seen; s.refusal != Logged || s.state != Invalid || s.hook != nflog.Input || !s.hasHook || !s.here || !s.hasUID || s.uid != 33 ||
		s.reason != reasonFlags {
		t.Errorf("got %+v", s)
	}
	e := r.evidence()
	if e.Hook != Found(nflog.Input) || e.Owner != Found(uint32(33)) || e.Reason != reasonFlags {
		t.Errorf("got %+v", e)
	}
	if err := in.packet(&nflog.Packet{Payload: []byte{0x45}}, now); err != errNotIP { //nolint:errorlint // as it is
		t.Errorf("what is no packet: %v", err)
	}
	if err := in.reason(&nflog.Packet{}, now); err != errNotIP { //nolint:errorlint // as it is
		t.Errorf("what is no packet: %v", err)
	}
}

// An ICMP error that is sent confirms a logged packet, and begins a flow where
// none was logged; one that is received is about this host's own packet.
func TestIntakeICMP(t *testing.T) {
	syn := tcpPacket(into(80), packet.SYN, 1, 0)
	in := newIntake(t, Config{})
	in.take(nflog.Input, "new ", syn)
	in.take(nflog.Output, "", icmpPacket(here, there, 13, syn))
	if r := in.one(); r.count != 1 || r.seen.icmp == nil || r.seen.icmp.ICMPCode != 13 || in.tally != (tally{refused: 1, errors: 1}) {
		t.Errorf("got %+v, %+v", r, in.tally)
	}
	for hook, want := range map[nflog.Hook]struct {
		how  Refusal
		here bool
	}{
		nflog.Output: {ICMPSent, true}, nflog.Postrouting: {ICMPSent, true}, nflog.Input: {ICMPReceived, true}, nflog.Forward: {ICMPReceived, false},
	} {
		in := newIntake(t, Config{})
		in.take(hook, "", icmpPacket(here, there, 3, syn))
		if r := in.one(); r.seen.refusal != want.how || r.seen.here != want.here || r.seen.packet.DstPort != 80 {
			t.Errorf("%v: %+v", hook, r.seen)
		}
	}
	in = newIntake(t, Config{})
	in.take(nflog.Output, "", icmpPacket(here, there, 4, syn)) // fragmentation needed
	in.take(nflog.Output, "", icmpPacket(here, there, 13, nil))
	if in.flows.order.Len() != 0 {
		t.Error("an error that refuses nothing begins a flow")
	}
	in.take(nflog.Output, "", icmpPacket(netip.MustParseAddr("198.51.100.1"), there, 13, syn)) // a router's
	if in.one().seen.here {
		t.Error("a router looks at its own sockets")
	}
}

// A RST that a rule sends answers the packet of the opposite direction.
func TestIntakeReset(t *testing.T) {
	rst := tcpPacket(into(80).Invert(), packet.RST|packet.ACK, 0, 8)
	in := newIntake(t, Config{})
	in.take(nflog.Input, "new ", tcpPacket(into(80), packet.SYN, 7, 0))
	in.take(nflog.Output, "", rst)
	if r := in.one(); r.count != 1 || r.seen.refusal != Logged || !r.seen.answered {
		t.Errorf("got %+v", r)
	}
	in = newIntake(t, Config{})
	in.take(nflog.Output, "", rst)
	r := in.one()
	if s := r.seen; s.refusal != ResetSent || !s.doubtful || PacketTuple(s.packet) != into(80) || s.packet.Flags != packet.SYN || s.packet.Seq != 7 {
		t.Errorf("got %+v", s)
	}
	in.flows.toLook(1)
	in.flows.lookedUp(r, findings{entry: absent[conntrack.Flow]()}, now)
	vs := in.flows.due(now.Add(time.Minute), 9)
	if len(vs) != 1 || vs[0].Evidence.Refusal != ResetSent {
		t.Errorf("got %v", vs)
	}
	in = newIntake(t, Config{})
	in.take(nflog.Output, "", tcpPacket(into(80).Invert(), packet.RST, 99, 0))
	if s := in.one().seen; s.packet.Flags != packet.ACK || s.packet.Ack != 99 {
		t.Errorf("got %+v", s)
	}
	in = newIntake(t, Config{})
	in.take(nflog.Input, "", rst)
	if s := in.one().seen; s.refusal != ResetReceived || s.doubtful {
		t.Errorf("got %+v", s)
	}
	in = newIntake(t, Config{})
	in.take(nflog.Output, "invalid ", rst) // is itself refused
	if s := in.one().seen; s.refusal != Logged || s.packet.Flags != packet.RST|packet.ACK {
		t.Errorf("got %+v", s)
	}
	in = newIntake(t, Config{})
	must(t, in.packet(&nflog.Packet{Hook: nflog.Output, HasUID: true, Payload: rst}, now)) // a socket's
	if in.flows.order.Len() != 0 {
		t.Error("the RST of a socket is taken for a refusal")
	}
}

// A RST that the kernel itself sends, for a port where nothing listens, is no
// refusal: its packet made an entry, or the entry's end is seen.
func TestIntakeResetOfKernel(t *testing.T) {
	entry := flow(t, "tcp 6 9 CLOSE src=192.0.2.9 dst=192.0.2.1 sport=40000 dport=80 src=192.0.2.1 dst=192.0.2.9 sport=80 dport=40000")
	for name, f := range map[string]findings{
		"entry": {entry: found(&entry)},
		"ended": {entry: absent[conntrack.Flow](), ended: &Ended{Event: conntrack.Event{Flow: entry}}},
	} {
		in := newIntake(t, Config{})
		in.take(nflog.Output, "", tcpPacket(into(80).Invert(), packet.RST|packet.ACK, 0, 8))
		in.flows.toLook(1)
		in.flows.lookedUp(in.one(), f, now)
		if vs := in.flows.due(now.Add(time.Minute), 9); len(vs) != 0 || in.flows.order.Len() != 0 || len(in.flows.from) != 0 {
			t.Errorf("%s: %v", name, vs)
		}
	}
}

// The rule that refused a packet is noted at its flow, or begins one.
func TestTraced(t *testing.T) {
	in := newIntake(t, Config{})
	h, err := packet.Decode(tcpPacket(into(80), packet.SYN, 1, 0))
	must(t, err)
	rule := Rule{Table: "filter", Handle: 7}
	in.traced(h.Header, New, rule, true)
	if s := in.one().seen; s.refusal != Traced || *s.rule != rule || s.state != New || !s.here {
		t.Errorf("got %+v", s)
	}
	in = newIntake(t, Config{})
	in.take(nflog.Input, "new ", tcpPacket(into(80), packet.SYN, 1, 0))
	in.traced(h.Header, New, rule, true)
	if r := in.one(); r.count != 1 || r.seen.refusal != Logged || r.evidence().Rule != Found(rule) {
		t.Errorf("got %+v", r)
	}
}

// An error that quotes the packet as translation has made it belongs to the
// packet as it was logged before, as the entry shows.
func TestAcrossNAT(t *testing.T) {
	f := flow(t, "tcp 6 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 "+fromHost)
	for _, pair := range [][2]conntrack.Tuple{
		{f.Original, f.Reply.Invert()}, {f.Reply.Invert(), f.Original},
		{f.Reply, f.Original.Invert()}, {f.Original.Invert(), f.Reply},
		{into(80), into(80)},
	} {
		if got := acrossNAT(&f, pair[0]); got != pair[1] {
			t.Errorf("%v: %v, want %v", pair[0], got, pair[1])
		}
	}
	before, after := f.Original, f.Reply.Invert()
	steps := []func(in intake){
		func(in intake) { in.take(nflog.Prerouting, "invalid ", tcpPacket(before, packet.ACK, 1, 1)) },
		func(in intake) {
			in.take(nflog.Output, "", icmpPacket(here, there, 13, tcpPacket(after, packet.ACK, 1, 1)))
		},
	}
	for range 2 {
		in := newIntake(t, Config{})
		for _, step := range steps {
			step(in)
		}
		if in.flows.order.Len() != 2 {
			t.Fatalf("%d flows, want 2 until they are looked up", in.flows.order.Len())
		}
		for _, r := range in.flows.toLook(9) {
			in.flows.lookedUp(r, findings{entry: found(&f)}, now)
		}
		if r := in.one(); r.count != 1 || r.seen.refusal != Logged || r.seen.icmp == nil || PacketTuple(r.seen.packet) != before {
			t.Errorf("got %+v", r)
		}
		if len(in.flows.by) != 1 || in.flows.waiting.Len()+in.flows.ready.Len() != 1 {
			t.Errorf("%d flows, %d waiting, %d ready", len(in.flows.by), in.flows.waiting.Len(), in.flows.ready.Len())
		}
		slices.Reverse(steps)
	}
}

// The states of prefixes are parsed once, and no more of them kept than a rule
// set has.
func TestPrefixes(t *testing.T) {
	ps := make(prefixes)
	for i := range 5000 {
		if s := ps.parse("new " + string(rune(i+0x100))); s != New {
			t.Fatalf("got %v", s)
		}
	}
	if len(ps) > 1024 || ps.parse("INVALID: ") != Invalid || ps.parse("") != StateUnknown {
		t.Errorf("%d prefixes", len(ps))
	}
}
