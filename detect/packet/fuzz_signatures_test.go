package packet

import (
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// FuzzAnomaly asserts that what is certain of a cut packet is so of the whole,
// and that conntrack's view follows from the anomaly.
func FuzzAnomaly(f *testing.F) {
	for _, name := range fixture.Names(f, captures) {
		b := capture(f, name)
		f.Add(b, uint16(len(b)/2))
	}
	f.Add(syn("22 0a 1122334455667788 0101", "686921"), uint16(45))
	f.Add(v6(extDestination, raw("06 00 0104 00000000"), tcpSYN, raw("686921")), uint16(60))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		cut := b[:min(int(n), len(b))]
		part, err := Decode(cut)
		if err != nil {
			return
		}
		whole := must(Decode(b))
		a, sure := part.Anomaly(cut)
		if all, allSure := whole.Anomaly(b); sure == Certain && (all != a || allSure != Certain) {
			t.Fatalf("%v of the first %d bytes, %v, %v of all: %x", a, n, all, allSure, b)
		}
		if (a == 0) != (sure == Unknown) || a != 0 && (a == PSHRST || a == SYNData) != part.Flags.Valid() {
			t.Fatalf("%v, %v, valid %t: %x", a, sure, part.Flags.Valid(), b)
		}
	})
}

// FuzzHeartbeatSplit asserts that the heartbeats of a stream are the same in one
// segment and a byte at a time, that each is there in the bytes, and that
// sending it all again tells nothing new.
func FuzzHeartbeatSplit(f *testing.F) {
	f.Add(slices.Concat(hello, attack, appData, attack))
	f.Add(slices.Concat(beat(2, 0x4000, heartbeatMax-3), beat(9, 1, 16), attack))
	f.Add(slices.Concat(changed, cipherBeat(80), beat(1, 5, 3)))
	f.Add(slices.Concat(attack[:5], appData[:3]))
	f.Fuzz(func(t *testing.T, stream []byte) {
		stream = stream[:min(len(stream), 1<<15)]
		one := newTalk().open().client(stream)
		split := newTalk().open().split(0, stream)
		if !slices.Equal(one.told, split.told) {
			t.Fatalf("one segment:\n%+v\nsplit:\n%+v", one.told, split.told)
		}
		for _, r := range one.told {
			if r.Confidence == Unknown || r.Fault == 0 || r.Extra < 0 || r.From.Addr() != client4 || r.String() == "" {
				t.Fatalf("%+v", r)
			}
			if hb := r.Heartbeat; !slices.ContainsFunc(starts(stream), func(b []byte) bool { got, _ := DecodeHeartbeat(b); return got == hb }) {
				t.Fatalf("%+v is not in the stream", hb)
			}
		}
		told := len(one.told)
		if one.again(0, len(stream), stream); len(starts(stream)) <= 4 && len(one.told) != told {
			t.Fatalf("sent again: %+v", one.told[told:])
		}
	})
}

// starts are the places of a stream where a heartbeat record can begin.
func starts(stream []byte) (all [][]byte) {
	for i, b := range stream {
		if b == tlsHeartbeat {
			all = append(all, stream[i:])
		}
	}
	return all
}

// FuzzTrackers feeds both trackers packets of any bytes, cut out of b, and
// asserts that they keep to their bounds and contradict neither themselves nor
// Arrived.
func FuzzTrackers(f *testing.F) {
	var all []byte
	for _, p := range [][]byte{
		v4(ProtoTCP, with(tcpSYN, 4, 0x11, 0x22, 0x33, 0x43)), v4(ProtoTCP, with(tcpData, 13, uint8(PSH|RST|ACK))), v4(ProtoTCP, tcpData[:20], attack),
	} {
		all = append(append(all, byte(len(p))), p...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		resets, beats := NewResetTracker(3), NewHeartbeatTracker(3)
		for now := t0; len(b) > 1; now = now.Add(time.Second) {
			n := min(int(b[0]), len(b)-1)
			one := b[1 : 1+n]
			b = b[1+n:]
			p, err := Decode(one)
			if err != nil {
				continue
			}
			r, ok := resets.Packet(now, p.Header)
			switch {
			case !ok:
			case r.Answer == 0 && (r.Confidence != Possible || r.Payload <= 0 || r.Count != 1),
				r.Answer != 0 && (r.Confidence < Likely || !r.Answer.Has(ACK) || r.Want-r.Ack != uint32(r.Payload) || r.After < settled):
				t.Fatalf("%+v", r)
			}
			beats.Packet(p.Header, one, func(r HeartbeatFinding) {
				if r.Fault == 0 || r.Confidence == Unknown || r.Extra < 0 || r.Fault == Leak && r.Request == 0 {
					t.Fatalf("%+v", r)
				}
			})
		}
		for _, n := range []int{len(resets.begun.rows), len(resets.pushed.rows), len(beats.begun.rows), len(beats.flows.rows)} {
			if n > 4 {
				t.Fatalf("%d rows for 3 connections", n)
			}
		}
	})
}
