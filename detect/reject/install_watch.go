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
// whether there is no more to do.
func (w *watch) takeInstalled(ctx context.Context, logged nflog.Packet, p packet.Packet, now time.Time) bool {
	if !w.in.pairing() || !strings.HasPrefix(logged.Prefix, ownPrefix) {
		return false
	}
	switch {
	case logged.Prefix == prefixICMP:
		return w.takeOwnError(ctx, logged.Hook, p)
	case logged.Prefix == prefixReset:
		if e, ok := w.in.pairs.answered(PacketTuple(p.Header).Invert()); ok {
			w.takeUnpassed(ctx, e, ResetSent)
		}
	case p.ICMPError(): // an error that is refused is no connection
	case logged.Prefix == prefixAfter:
		w.in.pairs.after(p.Header, logged.Hook)
	default:
		e := passing{header: p.Header, hook: logged.Hook, state: ParsePrefix(logged.Prefix), at: now}
		if logged.HasUID {
			e.owner = Found(logged.UID)
		}
		w.in.pairs.before(e)
	}
	return true
}

// takeOwnError takes an ICMP error: one that goes out about a packet that waits
// says that it was refused. An unreachable port of one that passed is not the
// firewall's word.
func (w *watch) takeOwnError(ctx context.Context, hook nflog.Hook, p packet.Packet) bool {
	if hook != nflog.Output || !p.HasQuoted {
		return false
	}
	tuple := PacketTuple(p.Quoted)
	if e, ok := w.in.pairs.answered(tuple); ok {
		w.takeUnpassed(ctx, e, Logged)
		return false
	}
	return unreachablePort(p.Header) && w.in.pairs.passed(tuple, nflog.Input)
}

// takeDue takes the packets that did not pass in time.
func (w *watch) takeDue(ctx context.Context, now time.Time) {
	if !w.in.pairing() {
		return
	}
	for e, ok := w.in.pairs.due(now); ok; e, ok = w.in.pairs.due(now) {
		w.takeUnpassed(ctx, e, Logged)
	}
	if n := w.in.pairs.forgotten; n > 0 {
		w.in.pairs.forgotten = 0
		w.in.note("what became of packets", fmt.Errorf("%d came while %d others waited", n, maxPassing))
	}
}

// takeUnpassed takes a packet that was refused.
func (w *watch) takeUnpassed(ctx context.Context, p passing, how Refusal) {
	e := Evidence{Packet: Found(p.header), Refusal: how, State: p.state, Owner: p.owner, Hook: Found(p.hook)}
	w.takeEvidence(ctx, e, !leaves(p.hook), time.Now())
}

// takeTrace takes a packet that the trace shows to be refused. That is the rule
// for a packet which waits, or is known, or is told of in a moment; of an
// untracked one, which is not logged unless it has SYN, it is all there is.
func (w *watch) takeTrace(ctx context.Context, t traced, now time.Time) {
	w.rules.put(keyOf(t.header), t.rule)
	if w.flows.addRule(t.header, t.rule) || t.state != Untracked || t.header.Flags.Has(packet.SYN) {
		return
	}
	e := Evidence{Packet: Found(t.header), Refusal: Traced, State: t.state, Hook: Found(t.hook)}
	w.takeEvidence(ctx, e, !leaves(t.hook), now)
}

// addRule notes who refuses the packets of a flow that is known.
func (fs *flows) addRule(h packet.Header, rule Rule) bool {
	r := fs.get(h)
	if r == nil {
		return false
	}
	r.evidence.Rule = Found(rule)
	fs.told(r)
	return true
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

// lost takes an error that is not the last.
func (in *installed) lost(err error, now time.Time) {
	if l, ok := errors.AsType[*nflog.Lost](err); ok && in.pairing() {
		in.pairs.lost(l, now)
	}
}

// note keeps an error that is not the last until it can be told.
func (in *installed) note(what string, err error) {
	if err != nil {
		in.notes = append(in.notes, &Degraded{what, err})
	}
}

// tell yields what was noted, and reports whether to go on.
func (in *installed) tell(yield func(Verdict, error) bool) bool {
	for in != nil && len(in.notes) > 0 {
		note := in.notes[0]
		in.notes = in.notes[1:]
		if !yield(Verdict{}, note) {
			return false
		}
	}
	return true
}

// last yields what went wrong in removing what was installed, before the error
// that ends Watch.
func (in *installed) last(yield func(Verdict, error) bool) func(Verdict, error) bool {
	return func(v Verdict, err error) bool {
		if _, more := errors.AsType[*Degraded](err); err != nil && !more && !goesOn(err) {
			if end := in.close(); end != nil && !yield(Verdict{}, end) {
				return false
			}
		}
		return yield(v, err)
	}
}
