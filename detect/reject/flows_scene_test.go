package reject

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect/packet"
)

const (
	wait   = 250 * time.Millisecond
	repeat = 10 * time.Second
)

// at is an instant of the tests' clock.
func at(d time.Duration) time.Time { return now.Add(d) }

// scene is refused flows as Watch keeps them.
type scene struct {
	t *testing.T
	*flows
	evidence map[flowKey]Evidence // the last of each flow
}

func newScene(t *testing.T, limit int) scene {
	l := flowLimits{wait: wait, repeat: repeat, flows: limit, perSource: 1 << 20, reasons: true}
	return scene{t, newFlows(l), make(map[flowKey]Evidence)}
}

// refuse does what Watch does with a refused packet, and looks it up at once,
// with what the evidence holds.
func (s scene) refuse(e Evidence, d time.Duration) {
	s.evidence[keyOf(&e.Packet.Value)] = e
	s.flows.refuse(sighted(e), at(d))
	s.lookAll(d)
}

// refuseConfirmed does so with a packet of which this host told.
func (s scene) refuseConfirmed(e Evidence) {
	s.refuse(e, 0)
	s.confirmed(e)
}

// lookAll gives the flows that are to be looked up what their evidence holds.
func (s scene) lookAll(d time.Duration) {
	for _, r := range s.toLook(1 << 20) {
		s.lookedUp(r, looked(s.evidence[keyOf(&r.seen.packet)]), at(d))
	}
}

// sighted is the part of the evidence that a packet tells.
func sighted(e Evidence) *sighting {
	s := &sighting{packet: e.Packet.Value, refusal: e.Refusal, state: e.State, reason: e.Reason}
	if e.ICMP.Result == Present {
		s.icmp = &e.ICMP.Value
	}
	s.hasUID, s.uid = e.Owner.Result == Present, e.Owner.Value
	return s
}

// looked is the part of the evidence that tables tell.
func looked(e Evidence) findings {
	f := findings{
		entry: as(e.Entry), elsewhere: as(e.Elsewhere), control: as(e.Control), socket: as(e.Socket), listener: as(e.Listener),
		host: &surroundings{settings: e.Settings, counters: e.Counters},
	}
	if e.Ended.Result == Present {
		f.ended = &e.Ended.Value
	}
	return f
}

func as[T any](l Lookup[T]) finding[T] {
	if l.Result == Present {
		return found(&l.Value)
	}
	return finding[T]{result: l.Result}
}

// told wants verdicts, as "cause, confidence, count", to be due at an instant.
func (s scene) tells(d time.Duration, want ...string) {
	s.t.Helper()
	var got []string
	for _, v := range s.all(d) {
		got = append(got, fmt.Sprintf("%s, %v, %d", v.Cause, v.Confidence, v.Count))
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("at %v: %q, want %q", d, got, want)
	}
}

// all are the verdicts that are due.
func (s scene) all(d time.Duration) []Verdict {
	out := s.due(at(d), 1<<20)
	s.lookAll(d)
	return append(out, s.due(at(d), 1<<20)...)
}

// syn is a refused SYN to a port nobody listens on, from a port of the peer.
func (s scene) syn(port uint16) Evidence {
	e := seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: "-"}.evidence(s.t, same)
	e.Packet.Value.SrcPort = port
	return e
}

func same(s string) string { return s }

func headerOf(t *testing.T, s string) *packet.Header {
	h := header(t, same, s)
	return &h
}

// sent is an ICMP error that was sent for the packet.
func (s scene) sent(e Evidence) Evidence {
	return Evidence{Packet: e.Packet, Refusal: ICMPSent, ICMP: Found(prohibition(same, host)), Entry: e.Entry, Listener: e.Listener}
}

func (s scene) confirmed(e Evidence) {
	s.t.Helper()
	if e := s.sent(e); !s.confirm(sighted(e)) {
		s.t.Error("the refused packet of an ICMP error is not known")
	}
}
