package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// state is all that is known and not yet yielded. It is guarded by watch.mu,
// and bounded.
type state struct {
	flows     *flows
	reasons   *recent[reasonKey, string]
	answers   *recent[flowKey, string] // the reasons of SYN|ACKs that are of no connection
	ended     endings
	losses    []Lost // one of each source
	silent    []Verdict
	err       error // why no more will come
	states    prefixes
	tally     tally
	from      *reading // since which is lately; nil is not known yet
	listening time.Time
}

func newState(cfg *Config) state {
	return state{
		flows: newFlows(cfg.flowLimits()), reasons: newRecent[reasonKey, string](1024), answers: newRecent[flowKey, string](1024), ended: newEndings(1 << 15),
		states: make(prefixes),
	}
}

// take takes out what is to be yielded now, and tells when the next is. An
// error comes last: with it, nothing is due that is not taken.
func (w *watch) take(now time.Time) (verdicts []Verdict, losses []Lost, wait time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takeDue(now)
	losses, w.losses = w.losses, nil
	verdicts, w.silent = w.silent, nil
	verdicts = append(verdicts, w.flows.due(now, atOnce)...)
	if w.flows.fresh.Len() > 0 {
		wake(w.toLook)
	}
	return verdicts, losses, min(w.flows.untilDue(now), w.in.untilDue(now)), w.err
}

// fail ends Watch, once all is told. The first reason stays.
func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.flows.tellAll()
	}
	wake(w.toTell)
}

// lost notes what a source missed.
func (w *watch) lost(l Lost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addLost(l)
}

func (w *watch) addLost(l Lost) {
	defer wake(w.toTell)
	for i := range w.losses {
		if have := &w.losses[i]; have.Source == l.Source && have.Group == l.Group {
			have.Count += l.Count
			have.Err = l.Err
			return
		}
	}
	w.losses = append(w.losses, l)
}

// refused counts a packet that was refused, or begins its flow. mu is held.
func (w *watch) refused(s *sighting, now time.Time) {
	if s.refusal != ICMPReceived && s.refusal != ResetReceived {
		w.tally.refused++
	}
	w.flows.refuse(s, now)
	if w.flows.fresh.Len() > 0 {
		wake(w.toLook)
	}
}

// traced notes the rule that refused a packet, or begins a flow with it.
func (w *watch) traced(h packet.Header, st State, rule Rule, here bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := sighting{packet: h, refusal: Traced, state: st, rule: &rule, here: here}
	if w.flows.confirm(&s) {
		wake(w.toTell)
		return
	}
	w.refused(&s, time.Now())
}

// end notes that an entry has ended.
func (w *watch) end(e conntrack.Event, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := &Ended{Event: e, At: now}
	w.ended.put(ended)
	w.flows.addEnded(ended)
	if w.flows.ready.Len() > 0 {
		wake(w.toTell)
	}
	if w.flows.fresh.Len() > 0 {
		wake(w.toLook)
	}
}

// endings are the entries that ended last. Those that ended alive are kept
// apart, so that the ordinary ends of a busy host do not push them out.
type endings struct{ alive, closed *recent[flowKey, *Ended] }

func newEndings(limit int) endings {
	return endings{newRecent[flowKey, *Ended](2 * limit), newRecent[flowKey, *Ended](2 * limit)}
}

func (r *endings) put(e *Ended) {
	ring := r.alive
	if f := &e.Event.Flow; !f.Has(conntrack.FieldTCP) || closedStates.Has(f.TCP.State) {
		ring = r.closed
	}
	for _, t := range endedTuples(e) {
		ring.put(keyOfTuple(&t), e)
	}
}

// closedStates are those in which entries of TCP end as a matter of course.
var closedStates = conntrack.TCPStateSet(conntrack.TCPSynSent, conntrack.TCPSynRecv, conntrack.TCPTimeWait, conntrack.TCPClose)

// get returns the last end of a packet's entry, or nil.
func (r *endings) get(k flowKey) *Ended {
	alive, _ := r.alive.get(k)
	closed, _ := r.closed.get(k)
	if alive == nil || closed != nil && closed.At.After(alive.At) {
		return closed
	}
	return alive
}

// Lost reports evidence that a source of Watch missed. It is no end: ranging
// goes on. errors.Is and errors.As see what the source itself told, such as
// nflog.ErrLost and conntrack.ErrOverrun.
type Lost struct {
	Source Source
	// Group is the NFLOG group; 0 if it is not known, as for an overrun of the
	// socket that all groups share, or with another Source.
	Group uint16
	// Count is how many were missed; 0 is not known. An overrun is often told
	// twice: first that it was, then how many it cost.
	Count uint64
	// Err is what the source told last.
	Err error
}

func (e *Lost) Error() string {
	what := e.Source.String()
	if e.Group != 0 {
		what = fmt.Sprintf("%s of group %d", what, e.Group)
	}
	if e.Count > 0 {
		what = fmt.Sprintf("%d %s", e.Count, what)
	}
	return fmt.Sprintf("%s were missed: %v", what, e.Err)
}

// Unwrap returns Err.
func (e *Lost) Unwrap() error { return e.Err }

// Source is one of those that Watch takes evidence from.
type Source uint8

// The sources that can miss something.
const (
	Packets Source = iota // logged packets
	Reasons               // why packets are INVALID: group 0
	Ends                  // ends of conntrack entries
	Traces                // of the rules that packets met
)

// String returns what the source tells of.
func (s Source) String() string {
	switch s {
	case Packets:
		return "logged packets"
	case Reasons:
		return "reasons for INVALID packets"
	case Ends:
		return "ends of entries"
	case Traces:
		return "traces of packets"
	}
	return fmt.Sprintf("Source(%d)", uint8(s))
}
