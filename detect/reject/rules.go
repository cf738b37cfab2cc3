package reject

import (
	"context"
	"time"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// rulesAge is how old the rules may be: a host can have very many, and changes
// them rarely.
const rulesAge = 10 * time.Second

// ruleFacts keeps what the rules of the namespace hold.
type ruleFacts struct {
	at   time.Time
	last Lookup[Rules]
}

// rules reads what the rules hold, if what is known of it is old. Rules that
// cannot be read are not looked at.
func (w *watch) rules(ctx context.Context, now time.Time) Lookup[Rules] {
	known := &w.hosting.rules
	if !known.at.IsZero() && now.Sub(known.at) < rulesAge {
		return known.last
	}
	known.at, known.last = now, Lookup[Rules]{}
	set, err := w.nft.Ruleset(ctx)
	if err != nil {
		return known.last
	}
	rules := rulesOf(set)
	if w.cfg.Proc != nil {
		tables, err := nft.LegacyTables(w.cfg.Proc)
		if err != nil {
			return known.last // there may be others
		}
		rules.Legacy = len(tables) > 0
	}
	known.last = Found(rules)
	return known.last
}

// rulesOf finds the first rule of each kind that decides cases.
func rulesOf(set *nft.Ruleset) (r Rules) {
	for _, rule := range set.All() {
		f := rule.Facts()
		for _, kind := range []struct {
			yes  bool
			text *string
		}{
			{f.NoTrack, &r.Notrack}, {f.SetsZone, &r.Zone}, {f.Helper != "", &r.Helper}, {f.DropsResets(), &r.DropReset},
		} {
			if kind.yes && *kind.text == "" {
				*kind.text = rule.Text()
			}
		}
	}
	return r
}
