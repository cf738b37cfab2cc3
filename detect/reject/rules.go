package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// ruling is what was read of the rule set last.
type ruling struct {
	last Lookup[Rules]
	next time.Time // when it may be read again
}

// rulesShare is the part of the time that is not spent reading rules: some rule
// sets are large.
const rulesShare = 50

// read returns the rules that decide some cases, not older than they must be.
// What cannot be read is NotLooked.
func (r *ruling) read(ctx context.Context, c *nft.Conn, proc fs.FS) Lookup[Rules] {
	start := time.Now()
	if start.Before(r.next) {
		return r.last
	}
	r.last = Lookup[Rules]{}
	set, err := c.Ruleset(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		set, err = &nft.Ruleset{}, nil // without nf_tables, there are none
	}
	if err == nil {
		r.last = Found(telling(set))
		r.last.Value.Legacy = legacy(proc)
	}
	r.next = start.Add(rulesShare * time.Since(start))
	return r.last
}

// telling picks the first rule of each kind.
func telling(set *nft.Ruleset) (r Rules) {
	for ref, rule := range set.All() {
		f := rule.Facts()
		for _, kind := range []struct {
			is  bool
			put *string
		}{{f.NoTrack, &r.Notrack}, {f.SetsZone, &r.Zone}, {f.Helper != "", &r.Helper}, {f.DropsResets(), &r.DropReset}} {
			if kind.is && *kind.put == "" {
				*kind.put = fmt.Sprintf("%v %s %s: %s", ref.Family, ref.Table, ref.Chain, rule.Text())
			}
		}
	}
	return r
}

// legacy reports tables of iptables-legacy. Where they cannot be asked for,
// none are known.
func legacy(proc fs.FS) bool {
	if proc == nil {
		return false
	}
	tables, err := nft.LegacyTables(proc)
	return err == nil && len(tables) > 0
}
