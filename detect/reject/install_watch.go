package reject

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// takeInstalled takes a packet that a rule of installTable logged, and reports
// whether there is no more to do. mu is held.
func (w *watch) takeInstalled(logged *nflog.Packet, p *packet.Packet, now time.Time) bool {
	if !w.in.pairing() || !strings.HasPrefix(logged.Prefix, ownPrefix) {
		return false
	}
	switch {
	case logged.Prefix == prefixICMP:
		return w.takeOwnError(logged.Hook, p, now)
	case logged.Prefix == prefixReset:
		return w.takeOwnReset(&p.Header, now)
	case p.ICMPError(): // an error that is refused is no connection
	case logged.Prefix == prefixAfter:
		w.in.pairs.after(&p.Header, logged.Hook)
	default:
		e := passing{header: p.Header, hook: logged.Hook, state: w.states.parse(logged.Prefix), at: now}
		if logged.HasUID {
			e.owner = Found(logged.UID)
		}
		if w.in.pairs.len() == 0 {
			wake(w.toTell) // which waits for it from now on
		}
		w.in.pairs.before(e)
	}
	return true
}

// takeOwnError takes an ICMP error: one that goes out about a packet that waits
// says that it was refused. An unreachable port of one that passed is not the
// firewall's word.
func (w *watch) takeOwnError(hook nflog.Hook, p *packet.Packet, now time.Time) bool {
	if hook != nflog.Output || !p.HasQuoted {
		return false
	}
	tuple := PacketTuple(p.Quoted)
	if e, ok := w.in.pairs.answered(tuple); ok {
		w.unpassed(&e, Logged, now)
		return false
	}
	return unreachablePort(p.Header) && w.in.pairs.passed(tuple, nflog.Input)
}

// takeOwnReset takes a RST on its way out: that of a packet that waits says that
// it was refused, and that of one that passed is not the firewall's.
func (w *watch) takeOwnReset(h *packet.Header, now time.Time) bool {
	tuple := PacketTuple(*h).Invert()
	e, ok := w.in.pairs.answered(tuple)
	if ok {
		w.unpassed(&e, ResetSent, now)
	}
	return ok || w.in.pairs.passed(tuple, nflog.Input)
}

// takeDue takes the packets that did not pass in time. mu is held.
func (w *watch) takeDue(now time.Time) {
	if !w.in.pairing() {
		return
	}
	for e, ok := w.in.pairs.due(now); ok; e, ok = w.in.pairs.due(now) {
		w.unpassed(&e, Logged, now)
	}
	if n := w.in.pairs.forgotten; n > 0 {
		w.in.pairs.forgotten = 0
		w.addLost(Lost{Source: Packets, Count: n, Err: errPassing})
	}
}

var errPassing = fmt.Errorf("they came while %d others were on their way through the rules", maxPassing)

// unpassed takes a packet that was refused. mu is held.
func (w *watch) unpassed(p *passing, how Refusal, now time.Time) {
	key := reasonKeyOf(&p.header)
	s := sighting{
		packet: p.header, refusal: how, state: p.state, hook: p.hook, hasHook: true, here: !leaves(p.hook),
		hasUID: p.owner.Result == Present, uid: p.owner.Value, answered: how == ResetSent,
	}
	if p.state == Invalid {
		if s.reason, _ = w.reasons.get(key); s.reason == "" {
			w.in.resume(now)
		}
	}
	if rule, ok := w.in.traced.get(key); ok {
		s.rule = rule
	}
	w.refused(&s, now)
}

// traces takes what the rules refuse of the packets that are traced.
func (w *watch) traces(ctx context.Context, ready func()) {
	for t, err := range w.in.traces(ctx, ready) {
		if err == nil {
			w.takeTrace(&t)
		} else if !w.goesOn(ctx, Traces, 0, err) {
			return
		}
	}
}

// takeTrace takes a packet that the trace shows to be refused. That is the rule
// for a packet which waits, or is known, or is told of in a moment; of an
// untracked one, which is not logged unless it has SYN, it is all there is.
func (w *watch) takeTrace(t *traced) {
	w.mu.Lock()
	w.in.traced.put(reasonKeyOf(&t.header), &t.rule)
	known := w.flows.find(&t.header) != nil
	w.mu.Unlock()
	if known || t.state == Untracked && !t.header.Flags.Has(packet.SYN) {
		w.traced(t.header, t.state, t.rule, !leaves(t.hook))
	}
}

// lostPairs tells that packets were lost.
func (w *watch) lostPairs(s Source, l *nflog.Lost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s == Packets && w.in.pairing() {
		w.in.pairs.lost(l, time.Now())
	}
}

// logsBefore reports that packets are logged on their way in unless they are of a
// known connection, and that none of them was lost lately. The answer to one
// that was not logged then tells its state.
func (in *installed) logsBefore(logged *nflog.Packet, now time.Time) bool {
	return in.pairing() && strings.HasPrefix(logged.Prefix, ownPrefix) && now.After(in.pairs.unsureTill)
}

// pairing reports that packets are logged before and after the rules.
func (in *installed) pairing() bool { return in != nil && in.pairs != nil }

// tracing reports that packets are traced.
func (in *installed) tracing() bool { return in != nil && in.rules != nil }

// untilDue is how long until takeDue may have something to do.
func (in *installed) untilDue(now time.Time) time.Duration {
	if !in.pairing() {
		return time.Hour
	}
	return in.pairs.untilDue(now)
}

// note keeps an error that is not the last until it can be told.
func (in *installed) note(what string, err error) {
	if err != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.notes = append(in.notes, &Degraded{what, err})
	}
}

func (in *installed) takeNotes() []error {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	notes := in.notes
	in.notes = nil
	return notes
}

// last yields what went wrong in removing what was installed, before the error
// that ends Watch. It is removed after end, once nothing more is read that
// could switch something on again.
func (in *installed) last(yield func(Verdict, error) bool, end func()) func(Verdict, error) bool {
	return func(v Verdict, err error) bool {
		_, missed := errors.AsType[*Lost](err)
		_, less := errors.AsType[*Degraded](err)
		if err != nil && !missed && !less {
			end()
			if left := in.close(); left != nil && !yield(Verdict{}, left) {
				return false
			}
		}
		return yield(v, err)
	}
}
