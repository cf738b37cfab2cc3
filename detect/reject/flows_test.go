package reject

import (
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

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
	v := s.all(time.Second)
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
	if d := s.untilDue(at(450 * time.Millisecond)); d != repeat-100*time.Millisecond {
		t.Errorf("when all is told, counts are due in %v", d)
	}
	s.tells(repeat + time.Second)
	if d := s.untilDue(at(repeat + time.Second)); d != time.Hour {
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
	if s.confirm(sighted(e)) {
		t.Error("a packet that nobody logged is known")
	}
	e.Entry, e.Listener = Lookup[conntrack.Flow]{}, NotFound[sockdiag.Socket]()
	s.refuse(e, 0)
	s.refuse(s.syn(1), time.Millisecond)
	v := s.all(time.Millisecond)
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
	v := s.all(time.Millisecond)
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
		if s.confirm(sighted(e)) {
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
		if !s.confirm(sighted(received)) {
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
		if s.confirm(sighted(e)) {
			t.Error("confirmed")
		}
		s.refuse(e, time.Duration(i)*time.Second)
		if i == 0 {
			s.tells(0, "refused-by-peer, possible, 1")
		}
	}
	s.tells(3 * time.Second)
	if e.Refusal = ICMPSent; s.confirm(sighted(e)) {
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
	s.addReason(&other, reasonFlags, "") // of another packet
	s.tells(wait / 2)
	s.addReason(headerOf(t, "in SYN"), reasonGhost, "")
	s.tells(wait/2, "ghost, certain, 1")

	s = newScene(t, 10)
	s.reasons = false
	s.refuse(ghostly(""), 0) // never
	s.confirmed(ghostly(""))
	s.tells(0, "ghost, likely, 1")

	s = newScene(t, 10)
	s.refuse(ghostly(""), 0) // too late: told again with the next packet that has it
	s.tells(wait, "ghost, likely, 1")
	s.refuse(ghostly(reasonGhost), time.Second)
	s.tells(time.Second+wait, "ghost, certain, 2")
	s.addReason(&packet.Header{}, reasonGhost, "") // of a flow that is not known
}

// The end of the entry comes before or after the packet, but not after one
// that the entry refused.
func TestFlowsEnded(t *testing.T) {
	data := seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "ESTABLISHED"}.evidence(t, same)
	end := Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, expired)}, At: now}
	s := newScene(t, 10)
	s.refuseConfirmed(data)
	s.tells(wait / 2)
	s.addEnded(&end)
	s.tells(wait/2, "entry-expired, certain, 1")

	answer := seen{packet: "in udp 53 40000", how: Logged, state: New, entry: "-", listen: "-"}.evidence(t, same)
	s = newScene(t, 10)
	s.refuseConfirmed(answer)
	s.tells(wait / 2)
	s.addEnded(&Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, question)}, At: now})
	s.tells(wait/2, "late-answer, certain, 1")

	s = newScene(t, 10)
	s.refuse(data, 0)
	s.addEnded(&end)
	s.tells(wait / 2) // the ICMP error is waited for
	s.tells(wait, "entry-expired, certain, 1")

	s = newScene(t, 10)
	s.refuse(seen{packet: "in SYN", how: Logged, state: Invalid, reason: reasonGhost, entry: ghost}.evidence(t, same), 0)
	s.addEnded(&Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, ghost)}, At: now})
	if v := s.all(wait); len(v) != 1 || v[0].Evidence.Ended.Result != NotLooked {
		t.Errorf("got %+v", v)
	}
}

// What counters say of an entry that was removed counts only if they were read after.
func TestFlowsRecounted(t *testing.T) {
	data := seen{packet: "in PSH|ACK", how: Logged, state: New, entry: "-", socket: "CLOSE_WAIT"}.evidence(t, same)
	end := Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, closes)}, At: now}
	s := newScene(t, 10)
	s.refuseConfirmed(data)
	data.Counters = Found(Counters{Window: time.Second, Conntrack: conntrack.Stats{EarlyDrop: 3}})
	s.evidence[keyOf(&data.Packet.Value)] = data
	s.addEnded(&end) // which has it looked up again
	s.tells(wait/2, "entry-evicted, certain, 1")

	for why, tt := range map[string]struct {
		f    findings
		want bool
	}{
		"never looked":         {findings{ended: &end}, false},
		"nothing ended":        {findings{host: &surroundings{}}, false},
		"counted before":       {findings{ended: &end, host: &surroundings{counted: now.Add(-time.Millisecond)}}, true},
		"counted after":        {findings{ended: &end, host: &surroundings{counted: now.Add(time.Millisecond)}}, false},
		"expired, not removed": {findings{ended: &Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: flow(t, expired)}, At: now}, host: &surroundings{}}, false},
	} {
		if got := tt.f.outcounted(); got != tt.want {
			t.Errorf("%s: %v", why, got)
		}
	}
}

// The end of a redirected entry is found by the packet as it was redirected.
func TestEndedTuples(t *testing.T) {
	redirected := flow(t, "tcp 6 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 "+fromHost)
	e := &Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Flow: redirected}}
	if got := endedTuples(e); !slices.Contains(got, PacketTuple(header(t, same, "in ACK"))) || len(got) != 4 {
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

// The last count is told though no packet follows; the flow is forgotten long
// after.
func TestFlowsLastCount(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	s.refuse(s.syn(1), time.Second)
	s.refuse(s.syn(1), 2*time.Second)
	if d := s.untilDue(at(2 * time.Second)); d != wait+repeat-2*time.Second {
		t.Errorf("due in %v", d)
	}
	s.tells(repeat)
	s.tells(wait+repeat, "no-service, likely, 3")
	s.tells(wait + 2*repeat)
	if s.tells(59 * repeat); s.order.Len() != 1 {
		t.Error("forgotten too early")
	}
	if s.tells(62 * repeat); s.order.Len() != 0 || len(s.by) != 0 || len(s.from) != 0 {
		t.Errorf("%d flows are remembered for ever", s.order.Len())
	}
}

// A flow that goes on is looked up again when it is told again; one that has
// ended keeps the evidence of when it lasted.
func TestFlowsLookAgain(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	s.refuse(s.syn(1), wait+repeat-time.Millisecond)
	served := s.syn(1)
	served.Listener = Found(sockdiag.Socket{State: sockdiag.Listen})
	s.evidence[keyOf(&served.Packet.Value)] = served
	s.tells(wait + repeat) // is looked up
	s.tells(2*wait+repeat, "not-allowed, likely, 2")
	s.refuse(served, 15*time.Second)
	s.evidence[keyOf(&served.Packet.Value)] = s.syn(1) // that is no longer
	s.tells(2*wait+2*repeat, "not-allowed, likely, 3")
}

// A clock that goes back makes nothing happen twice, and nothing get lost.
func TestFlowsBackwards(t *testing.T) {
	s := newScene(t, 10)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(1), -time.Minute)
	if d := s.untilDue(at(-time.Minute)); d != time.Minute+wait {
		t.Errorf("due in %v", d)
	}
	s.tells(-time.Minute)
	s.tells(wait, "no-service, likely, 2")
	s.refuse(s.syn(1), -time.Minute)
	s.tells(-time.Minute + wait)
	s.refuse(s.syn(2), -time.Minute)
	s.tells(-time.Minute+wait, "no-service, likely, 1")
	s.refuse(s.syn(1), time.Minute)
	s.tells(time.Minute + wait) // is looked up again
	s.tells(time.Minute+2*wait, "no-service, likely, 4")
}
