package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/connsleuth/connsleuth/internal/nft"
)

var errGroup0 = fmt.Errorf("group 0 has another use (see /proc/net/netfilter/nfnetlink_log): %w", fs.ErrExist)

const reasonsName = "the kernel's reasons for INVALID packets"

// reasonsRest is how long the kernel writes no reasons once they were too many.
const reasonsRest = 10 * time.Second

// askReasons has the kernel write its reasons, if it can.
func (in *installed) askReasons(ctx context.Context, most int, taken bool) {
	in.cfg.Reasons = in.cfg.Reasons || most > 0
	if most <= 0 {
		return
	}
	err := errGroup0
	if !taken {
		err = in.setReasons(ctx)
	}
	if err != nil {
		in.cfg.Reasons = false
		in.note(reasonsName, err)
		return
	}
	in.budget = reasonBudget{perSecond: most}
}

// setReasons writes down what the sysctls are before it changes them.
func (in *installed) setReasons(ctx context.Context) error {
	var was []restoreSysctl
	dir := restoreDir(netfilterSysctls)
	if err := in.ns.Do(func() (err error) { was, err = dir.wanted(); return err }); err != nil || len(was) == 0 {
		return err
	}
	err := in.nft.Apply(ctx, nft.Table{Family: nft.INet, Name: restoreTable, Comment: recordOf(was)})
	if err != nil {
		return err
	}
	in.was = was
	err = in.ns.Do(func() error {
		for _, s := range was {
			if err := dir.set(restoreSysctl{s.name, restoreGiven(s.name)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		err = errors.Join(err, in.putBack(ctx))
	}
	return err
}

// reason counts a reason, and has the kernel stop when there are too many.
func (in *installed) reason(now time.Time) {
	if in.budgets((*reasonBudget).spend, now) {
		in.note(reasonsName, in.switchReasons(true))
	}
}

// resume has the kernel write reasons again, after a rest: an INVALID packet
// came without.
func (in *installed) resume(now time.Time) {
	if in.budgets((*reasonBudget).rested, now) {
		in.note(reasonsName, in.switchReasons(false))
	}
}

func (in *installed) budgets(ask func(*reasonBudget, time.Time) bool, now time.Time) bool {
	if in == nil {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return ask(&in.budget, now)
}

func (in *installed) switchReasons(off bool) error {
	for _, s := range in.was {
		if s.name != logInvalid {
			continue
		}
		if !off {
			s.value = restoreGiven(logInvalid)
		}
		return in.ns.Do(func() error { return restoreDir(netfilterSysctls).set(s) })
	}
	return nil // it was on before, which is not for us to change
}

// reasonBudget is how many reasons a second there may be. A zero perSecond is not to
// count.
type reasonBudget struct {
	perSecond int
	second    time.Time
	spent     int
	offTill   time.Time // zero is on
}

// spend reports that it is now too much.
func (b *reasonBudget) spend(now time.Time) bool {
	if b.perSecond == 0 || !b.offTill.IsZero() {
		return false
	}
	if d := now.Sub(b.second); d < 0 || d >= time.Second {
		b.second, b.spent = now, 0
	}
	if b.spent++; b.spent <= b.perSecond {
		return false
	}
	b.offTill = now.Add(reasonsRest)
	return true
}

// rested reports that the time of rest is over.
func (b *reasonBudget) rested(now time.Time) bool {
	if b.offTill.IsZero() || now.Before(b.offTill) {
		return false
	}
	b.offTill, b.second, b.spent = time.Time{}, now, 0
	return true
}
