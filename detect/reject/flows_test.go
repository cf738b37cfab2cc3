package reject

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	wait   = 250 * time.Millisecond
	repeat = 10 * time.Second
)

// at is an instant of the tests' clock.
func at(d time.Duration) time.Time { return now.Add(d) }

// scene is refused flows as run keeps them.
type scene struct {
	t *testing.T
	*flows
}

func newScene(t *testing.T, limit int) scene { return scene{t, newFlows(limit, true)} }

// refuse does what Watch does with a refused packet.
func (s scene) refuse(e Evidence, d time.Duration) {
	if !s.count(&e, at(d), repeat) {
		s.begin(e, at(d), at(d).Add(wait))
	}
}

// told wants verdicts, as "cause, confidence, count", to be due at an instant.
func (s scene) tells(d time.Duration, want ...string) {
	s.t.Helper()
	var got []string
	for _, v := range s.due(at(d), repeat) {
		got = append(got, fmt.Sprintf("%s, %v, %d", v.Cause, v.Confidence, v.Count))
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("at %v: %q, want %q", d, got, want)
	}
}

// syn is a refused SYN to a port nobody listens on, from a port of the peer.
func (s scene) syn(port uint16) Evidence {
	e := seen{packet: "in SYN", how: Logged, state: New, entry: "-", listen: "-"}.evidence(s.t, same)
	e.Packet.Value.SrcPort = port
	return e
}

func same(s string) string { return s }

// sent is an ICMP error that was sent for the packet.
func (s scene) sent(e Evidence) Evidence {
	return Evidence{Packet: e.Packet, Refusal: ICMPSent, ICMP: Found(prohibition(same, host)), Entry: e.Entry, Listener: e.Listener}
}

func (s scene) confirmed(e Evidence) {
	s.t.Helper()
	if e := s.sent(e); !s.confirm(&e) {
		s.t.Error("the refused packet of an ICMP error is not known")
	}
}

// One verdict when a flow begins, however many packets come, and one with the
// count after each Repeat, if there are more.
func TestFlowsCount(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(1), 100*time.Millisecond)
	s.tells(249 * time.Millisecond)
	s.tells(250*time.Millisecond, "no-service, likely, 2")
	for i := range 9 {
		s.refuse(s.syn(1), time.Duration(i+1)*time.Second)
	}
	s.tells(9 * time.Second)
	s.refuse(s.syn(1), 11*time.Second)
	s.tells(11 * time.Second)
	s.tells(12*time.Second, "no-service, likely, 12")
	s.tells(time.Hour)
}

// First and Last are of the packets.
func TestFlowsTimes(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(1), 100*time.Millisecond)
	v := s.due(at(time.Second), repeat)
	if len(v) != 1 || !v[0].First.Equal(at(0)) || !v[0].Last.Equal(at(100*time.Millisecond)) {
		t.Errorf("got %+v", v)
	}
}

// Flows are told in the order in which they are due.
func TestFlowsMany(t *testing.T) {
	s := newScene(t, 10)
	for port := range uint16(3) {
		s.refuse(s.syn(port+1), time.Duration(port)*100*time.Millisecond)
	}
	if d := s.untilDue(at(50 * time.Millisecond)); d != 200*time.Millisecond {
		t.Errorf("due in %v", d)
	}
	s.tells(350*time.Millisecond, "no-service, likely, 1", "no-service, likely, 1")
	if d := s.untilDue(at(350 * time.Millisecond)); d != 100*time.Millisecond {
		t.Errorf("due in %v", d)
	}
	s.tells(450*time.Millisecond, "no-service, likely, 1")
	if d := s.untilDue(at(450 * time.Millisecond)); d != time.Hour {
		t.Errorf("with nothing to tell, due in %v", d)
	}
}

// With the ICMP error nothing more is waited for; it does not count as another
// packet.
func TestFlowsConfirmed(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.confirmed(s.syn(1))
	if d := s.untilDue(at(0)); d != 0 {
		t.Errorf("due in %v", d)
	}
	s.confirmed(s.syn(1))
	s.tells(0, "no-service, likely, 1")
	s.refuse(s.syn(1), time.Second)
	s.confirmed(s.syn(1))
	s.tells(2 * time.Second)
}

// The ICMP error overtakes the log: still one packet.
func TestFlowsOvertaken(t *testing.T) {
	s := newScene(t, 10)
	e := s.sent(s.syn(1))
	if s.confirm(&e) {
		t.Error("a packet that nobody logged is known")
	}
	e.Entry, e.Listener = Lookup[conntrack.Flow]{}, NotFound[sockdiag.Socket]()
	s.refuse(e, 0)
	s.refuse(s.syn(1), time.Millisecond)
	v := s.due(at(time.Millisecond), repeat)
	if len(v) != 1 || v[0].Cause != CauseNoService || v[0].Count != 1 || v[0].Evidence.Refusal != Logged || v[0].Evidence.ICMP.Result != Present {
		t.Errorf("got %+v", v)
	}
}

// The same, where the log names no state.
func TestFlowsOvertakenStateless(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.sent(s.syn(1)), 0)
	late := s.syn(1)
	late.State, late.Owner = StateUnknown, Found(uint32(7))
	s.refuse(late, time.Millisecond)
	v := s.due(at(time.Millisecond), repeat)
	if len(v) != 1 || v[0].Count != 1 || v[0].Evidence.Refusal != Logged || v[0].Evidence.Owner != late.Owner {
		t.Errorf("got %+v", v)
	}
}

// What was told before it was due is not told because it would be due now.
func TestFlowsToldEarly(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.confirmed(s.syn(1))
	s.tells(0, "no-service, likely, 1")
	invalid := seen{packet: "in SYN", how: Logged, state: Invalid, entry: ghost}.evidence(t, same)
	invalid.Packet.Value.SrcPort = 1
	invalid.Entry.Value.Original.DstPort, invalid.Entry.Value.Reply.SrcPort = 1, 1
	s.refuse(invalid, wait/2)
	s.tells(wait)
	s.tells(wait/2+wait, "ghost, likely, 2")
}

// Where only ICMP errors are logged, they are what is counted.
func TestFlowsOnlyICMP(t *testing.T) {
	s := newScene(t, 10)
	for i := range 3 {
		e := s.sent(s.syn(1))
		if s.confirm(&e) {
			t.Error("a packet that nobody logged is known")
		}
		s.refuse(e, time.Duration(i)*time.Second)
		if i == 0 {
			s.tells(wait, "no-service, likely, 1")
		}
	}
	s.tells(2 * time.Second)
	s.refuse(s.sent(s.syn(1)), 20*time.Second)
	s.tells(20*time.Second, "no-service, likely, 4")
}

// A host that refuses its own connection to itself receives the errors that it
// sends: one refusal, not two.
func TestFlowsToItself(t *testing.T) {
	for name, first := range map[string]func(scene) Evidence{
		"logged":     func(s scene) Evidence { return s.syn(1) },
		"not logged": func(s scene) Evidence { return s.sent(s.syn(1)) },
	} {
		s := newScene(t, 10)
		s.refuse(first(s), 0)
		received := s.sent(s.syn(1))
		received.Refusal = ICMPReceived
		if !s.confirm(&received) {
			t.Errorf("%s: its own error is not known", name)
		}
		s.tells(wait, "no-service, likely, 1")
	}
}

// What was refused by others is told at once, and not confirmed by an error
// sent.
func TestFlowsReceived(t *testing.T) {
	s := newScene(t, 10)
	e := seen{packet: "out SYN", how: ICMPReceived, icmp: peer, entry: opening, socket: "SYN_SENT"}.evidence(t, same)
	for i := range 3 {
		if s.confirm(&e) {
			t.Error("confirmed")
		}
		s.refuse(e, time.Duration(i)*time.Second)
		if i == 0 {
			s.tells(0, "refused-by-peer, possible, 1")
		}
	}
	s.tells(3 * time.Second)
	if e.Refusal = ICMPSent; s.confirm(&e) {
		t.Error("confirmed by an error sent")
	}
	e = seen{packet: "out PSH|ACK", how: ICMPReceived, icmp: peer, entry: "-", socket: "ESTABLISHED"}.evidence(t, same)
	e.Packet.Value.SrcPort++
	s.refuse(e, 3*time.Second)
	s.tells(3*time.Second, "peer-forgot, likely, 1")
}

// The reason of an INVALID packet is waited for, and comes before or after
// the packet.
func TestFlowsReason(t *testing.T) {
	ghostly := func(reason string) Evidence {
		return seen{packet: "in SYN", how: Logged, state: Invalid, reason: reason, entry: ghost, listen: host}.evidence(t, same)
	}
	s := newScene(t, 10)
	s.refuse(ghostly(reasonGhost), 0) // before
	s.confirmed(ghostly(""))
	s.tells(0, "ghost, certain, 1")

	s = newScene(t, 10)
	s.refuse(ghostly(""), 0) // after
	s.confirmed(ghostly(""))
	if d := s.untilDue(at(0)); d != wait {
		t.Errorf("without the reason, due in %v", d)
	}
	other := header(t, same, "in SYN")
	other.Seq++
	s.addReason(other, reasonFlags) // of another packet
	s.tells(wait / 2)
	s.addReason(header(t, same, "in SYN"), reasonGhost)
	s.tells(wait/2, "ghost, certain, 1")

	s = scene{t, newFlows(10, false)}
	s.refuse(ghostly(""), 0) // never
	s.confirmed(ghostly(""))
	s.tells(0, "ghost, likely, 1")

	s = newScene(t, 10)
	s.refuse(ghostly(""), 0) // too late: told again with the next packet that has it
	s.tells(wait, "ghost, likely, 1")
	s.refuse(ghostly(reasonGhost), time.Second)
	s.tells(time.Second+wait, "ghost, certain, 2")
	s.addReason(packet.Header{}, reasonGhost) // of a flow that is not known
}

// The end of the entry comes before or after the packet, but not after one
// that the entry refused.
func TestFlowsEnded(t *testing.T) {
	data := seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED"}.evidence(t, same)
	end := Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, expired)}, At: now}
	s := newScene(t, 10)
	s.refuse(data, 0)
	s.confirmed(data)
	s.tells(wait / 2)
	s.addEnded(end)
	s.tells(wait/2, "entry-expired, certain, 1")

	s = newScene(t, 10)
	s.refuse(data, 0)
	s.addEnded(end)
	s.tells(wait / 2) // the ICMP error is waited for
	s.tells(wait, "entry-expired, certain, 1")

	s = newScene(t, 10)
	s.refuse(seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost}.evidence(t, same), 0)
	s.addEnded(Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, ghost)}, At: now})
	if v := s.due(at(wait), repeat); len(v) != 1 || v[0].Evidence.Ended.Result != NotLooked {
		t.Errorf("got %+v", v)
	}
}

// The end of a redirected entry is found by the packet as it was redirected.
func TestEndedTuples(t *testing.T) {
	redirected := flow(t, "tcp 6 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 "+fromHost)
	e := &Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: redirected}}
	if got := endedTuples(e); !slices.Contains(got, PacketTuple(header(t, same, "in ACK"))) || len(got) != 3 {
		t.Errorf("got %v", got)
	}
	e.Event.Flow = flow(t, alive)
	if got := endedTuples(e); !slices.Equal(got, []conntrack.Tuple{e.Event.Flow.Original, e.Event.Flow.Reply}) {
		t.Errorf("got %v", got)
	}
}

// Another cause is told at once.
func TestFlowsChange(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	invalid := s.syn(1)
	invalid.State, invalid.Entry = Invalid, Found(flow(t, ghost))
	invalid.Packet.Value.SrcPort = 51522
	s.refuse(invalid, time.Second) // another flow
	s.tells(time.Second+wait, "ghost, likely, 1")

	invalid.Packet.Value.SrcPort = 1
	invalid.Entry = NotFound[conntrack.Flow]()
	s.refuse(invalid, 2*time.Second)
	s.tells(2*time.Second+wait, "unknown, unknown, 2")
	s.refuse(s.syn(1), 3*time.Second)
	s.tells(3*time.Second+wait, "no-service, likely, 3")
}

// So is one of the same confidence.
func TestFlowsChangeOfCause(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	served := s.syn(1)
	served.State, served.Listener = StateUnknown, Found(sockdiag.Socket{State: sockdiag.Listen})
	s.refuse(served, time.Second)
	s.tells(time.Second+wait, "not-allowed, likely, 2")
}

// Circumstances that change and give the same verdict are not told.
func TestFlowsSameVerdict(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	unknown := s.syn(1)
	unknown.State = StateUnknown
	s.refuse(unknown, time.Second)
	s.tells(2 * time.Second)
}

// No more flows are remembered than the limit; the one refused longest ago is
// forgotten, and begins anew.
func TestFlowsBounded(t *testing.T) {
	s := newScene(t, 2)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(2), 1)
	s.refuse(s.syn(1), 2) // now 2 is the oldest
	s.refuse(s.syn(3), 3)
	if len(s.by) != 2 || s.order.Len() != 2 {
		t.Errorf("%d and %d flows are remembered, want 2", len(s.by), s.order.Len())
	}
	s.tells(time.Second, "no-service, likely, 2", "no-service, likely, 1", "no-service, likely, 1") // 2 was refused all the same
	s.refuse(s.syn(1), 2*time.Second)
	s.tells(3 * time.Second)
	s.refuse(s.syn(2), 3*time.Second)
	s.tells(4*time.Second, "no-service, likely, 1")
	for port := range uint16(1000) {
		s.refuse(s.syn(port), time.Duration(port)*time.Second)
		s.due(at(time.Duration(port)*time.Second), repeat)
	}
	if len(s.by) != 2 || s.order.Len() != 2 || len(s.waiting) > 2 || len(s.ready) != 0 {
		t.Errorf("%d, %d, %d and %d flows", len(s.by), s.order.Len(), len(s.waiting), len(s.ready))
	}
}

// A clock that goes back makes nothing happen twice, and nothing get lost.
func TestFlowsBackwards(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(1), -time.Hour)
	if d := s.untilDue(at(-time.Hour)); d != time.Hour+wait {
		t.Errorf("due in %v", d)
	}
	s.tells(-time.Hour)
	s.tells(wait, "no-service, likely, 2")
	s.refuse(s.syn(1), -time.Hour)
	s.tells(-time.Hour + wait)
	s.refuse(s.syn(2), -time.Hour)
	s.tells(-time.Hour+wait, "no-service, likely, 1")
	s.refuse(s.syn(1), time.Hour)
	s.tells(time.Hour+wait, "no-service, likely, 4")
}
