package reject

import (
	"context"
	"iter"
	"time"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// traced is a packet that the trace shows to be refused.
type traced struct {
	header packet.Header
	hook   nflog.Hook
	state  State // unknown before Linux 6.16
	rule   Rule
}

// traces yields the traced packets that rules refuse. An error that is
// nft.ErrOverrun is a loss; any other is the last. It calls ready once it listens.
func (in *installed) traces(ctx context.Context, ready func()) iter.Seq2[traced, error] {
	return func(yield func(traced, error) bool) {
		for t, err := range in.nft.Traces(ctx, &nft.TraceOptions{Ready: ready}) {
			var found traced
			if err == nil {
				var ok bool
				if found, ok = refusedIn(&t); !ok {
					continue
				}
				found.rule = in.rules.rule(ctx, &t, time.Now())
			}
			if !yield(found, err) {
				return
			}
		}
	}
}

// refusedIn reads the packet of a trace that is its end.
func refusedIn(t *nft.Trace) (traced, bool) {
	if !t.Refused() {
		return traced{}, false
	}
	b, ok := t.Headers.AppendPacket(nil)
	if !ok {
		return traced{}, false
	}
	p, err := packet.Decode(b)
	if err != nil || p.ICMPError() {
		return traced{}, false
	}
	return traced{header: p.Header, hook: tracedHook(t), state: tracedState(t.CT.State)}, true
}

// tracedHook tells the hook by the interfaces, which the kernel gives.
func tracedHook(t *nft.Trace) nflog.Hook {
	switch {
	case t.InIndex == 0:
		return nflog.Output
	case t.OutIndex != 0:
		return nflog.Forward
	}
	return nflog.Input
}

func tracedState(s nft.CTState) State {
	switch s {
	case nft.New:
		return New
	case nft.Established:
		return Established
	case nft.Related:
		return Related
	case nft.Invalid:
		return Invalid
	case nft.Untracked:
		return Untracked
	}
	return StateUnknown
}

// ruleTexts knows the rules of the namespace by their names, as of the last time
// that an unknown one made it read them.
type ruleTexts struct {
	conn interface {
		Ruleset(context.Context) (*nft.Ruleset, error)
	}
	set  *nft.Ruleset
	read time.Time
}

// rulesEvery is how often the rules are read at most: a host can have very many.
const rulesEvery = 5 * time.Second

// rule returns the rule, or the policy of the chain, that a trace ends with. Its
// Text is empty when the rules cannot be read, or are gone.
func (rs *ruleTexts) rule(ctx context.Context, t *nft.Trace, now time.Time) Rule {
	r := Rule{Family: t.Family.String(), Table: t.Table, Chain: t.Chain, Handle: t.Handle, Verdict: t.Verdict.String()}
	if t.Type == nft.TracePolicy {
		r.Text = "policy " + r.Verdict
		return r
	}
	listed, ok := rs.find(t.Rule())
	if !ok && (rs.read.IsZero() || now.Sub(rs.read) >= rulesEvery) {
		rs.read = now
		if set, err := rs.conn.Ruleset(ctx); err == nil {
			rs.set = set
		}
		listed, ok = rs.find(t.Rule())
	}
	if ok {
		r.Text = listed.Text()
	}
	return r
}

func (rs *ruleTexts) find(ref nft.RuleRef) (nft.ListedRule, bool) {
	if rs.set == nil {
		return nft.ListedRule{}, false
	}
	return rs.set.Rule(ref)
}
