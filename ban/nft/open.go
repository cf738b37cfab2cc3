package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	nftables "github.com/connsleuth/connsleuth/internal/nft"
)

// attempts is how often something is read again that changed meanwhile.
const attempts = 20

// Open makes the table, or takes over the one that is there with its bans: its
// chains and rules are made anew if they are not as the Config wants them, in one
// transaction. A table of that name with anything else in it is refused.
func Open(ctx context.Context, cfg *Config) (_ *Backend, err error) {
	full, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	full.Counters = full.Counters && counts(release())
	b := &Backend{cfg: full, sets: make(map[kind]bool), mirror: newMirror(nil), many: many}
	if b.nl, err = nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: full.NetNS}); err != nil {
		return nil, b.explain("", err)
	}
	if b.rules, err = nftables.Dial(full.NetNS); err != nil {
		return nil, errors.Join(b.explain("", err), b.nl.Close())
	}
	if err = b.make(ctx); err == nil {
		err = b.adopt(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// release is the kernel's; empty if it cannot be read.
func release() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease") // then it has counters
	return string(text)
}

// counts reports whether a kernel keeps counters of many elements: before 5.17
// large sets fail with ENOBUFS.
func counts(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return true
	}
	return major > 5 || major == 5 && minor >= 17
}

// make brings the table about. Where another process does so at the same time,
// one of the two is refused and looks again.
func (b *Backend) make(ctx context.Context) error {
	var err error
	for range attempts {
		var have state
		if have, err = b.state(ctx); err != nil {
			return err
		}
		if err = b.foreign(have); err != nil {
			return err
		}
		b.sets = have.kinds()
		for _, k := range always {
			b.sets[k] = true
		}
		if b.amiss(have) == "" {
			return nil
		}
		t := newBatch(b.cfg.Table)
		if t.makeTable(have); !have.table.Dormant { // which the kernel wants by itself
			b.build(t, have)
		}
		if err = b.nl.Transaction(ctx, t.end(false)); err == nil {
			continue
		}
		r := t.refusal(err)
		if err = b.explain(r.what(), r.err); !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err == nil {
		err = fmt.Errorf("nft: %s: somebody changes it each time it is made", b.object(""))
	}
	return err
}

// state is what there is of the table.
type state struct {
	exists bool
	table  nftables.ListedTable
	sets   []listedSet
}

func (s state) kinds() map[kind]bool {
	kinds := make(map[kind]bool)
	for _, set := range s.sets {
		if k, ok := parseKind(set.name); ok {
			kinds[k] = true
		}
	}
	return kinds
}

func (b *Backend) state(ctx context.Context) (s state, err error) {
	s.table, err = b.rules.Table(ctx, nftables.INet, b.cfg.Table)
	if err == nil {
		s.exists = true
		s.sets, err = b.readSets(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	return s, err
}

// foreign refuses a table that somebody else made for something else.
func (b *Backend) foreign(have state) error {
	var what string
	for _, c := range have.table.Chains {
		if !slices.ContainsFunc(b.cfg.chains(nil), func(w chain) bool { return w.name == c.Name }) {
			what = "chain " + c.Name
		}
	}
	for _, s := range have.sets {
		if k, ok := parseKind(s.name); !ok || s.flags&^flagExpr != flagTimeout || s.keyLen != k.size() || s.timeout != 0 {
			what = "set " + s.name
		}
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("nft: %s is not a table of bans: it has %s; choose another name (Config.Table), or delete it", b.object(""), what)
}

// build makes chains and rules anew, and the sets that are missing.
func (b *Backend) build(t *batch, have state) {
	var names []string
	for _, c := range have.table.Chains {
		names = append(names, c.Name)
	}
	t.clear(names)
	there := have.kinds()
	for _, k := range b.kinds() {
		if !there[k] {
			t.makeSet(&b.cfg, k)
		}
	}
	for _, c := range b.cfg.chains(b.kinds()) {
		t.makeChain(c, b.cfg.Priority)
		for _, r := range c.rules {
			t.makeRule(c.name, r)
		}
	}
}

// kinds are the sets that must be there, in order.
func (b *Backend) kinds() []kind { return slices.SortedFunc(maps.Keys(b.sets), kind.before) }

// amiss says what is not as it must be; empty is nothing.
func (b *Backend) amiss(have state) string {
	switch there := have.kinds(); {
	case !have.exists:
		return "it is gone"
	case have.table.Dormant:
		return "it is dormant"
	default:
		for _, k := range b.kinds() {
			if !there[k] {
				return fmt.Sprintf("set %v is gone", k)
			}
		}
	}
	for _, want := range b.cfg.chains(b.kinds()) {
		i := slices.IndexFunc(have.table.Chains, func(c nftables.ListedChain) bool { return c.Name == want.name })
		if i < 0 {
			return fmt.Sprintf("chain %s is gone", want.name)
		}
		if what := b.amissChain(want, have.table.Chains[i]); what != "" {
			return fmt.Sprintf("chain %s %s", want.name, what)
		}
	}
	return ""
}

func (b *Backend) amissChain(want chain, have nftables.ListedChain) string {
	if want.base && (!have.Base || have.Hook.String() != want.name || have.Priority != b.cfg.Priority || have.Type != "filter") {
		return fmt.Sprintf("is not at hook %s with priority %d", want.name, b.cfg.Priority)
	}
	var wanted, rules []string
	for _, r := range want.rules {
		wanted = append(wanted, r.text)
	}
	for _, r := range have.Rules {
		rules = append(rules, r.Text())
	}
	if !want.base { // in the order in which the sets came, or twice if two programs made one
		slices.Sort(wanted)
		slices.Sort(rules)
		rules = slices.Compact(rules)
	}
	if slices.Equal(wanted, rules) {
		return ""
	}
	return fmt.Sprintf("has the rules %q, and must have %q", rules, wanted)
}

// adopt takes note of the bans that are there.
func (b *Backend) adopt(ctx context.Context) error {
	have, err := b.read(ctx)
	if err != nil {
		return err
	}
	for e, err := range b.bans(have.pages) {
		if err != nil {
			return err
		}
		t, timed := e.Until.Time()
		b.mirror.set(e.Prefix, mark{end: end(t.UnixMilli(), timed)})
	}
	return nil
}

// Enforcing implements ban.Enforcer. It compares the table with what it must be,
// rule by rule, and the bans in it with those that were put in force by this
// Backend or found by Open: one that somebody lifted is missed until it is
// banned again or unbanned. That others' rules accept a packet, before or after,
// does not matter.
func (b *Backend) Enforcing(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, err := b.state(ctx)
	if err != nil {
		return err
	}
	b.made(slices.Collect(maps.Keys(have.kinds()))) // by another process
	if what := b.amiss(have); what != "" {
		return fmt.Errorf("nft: %s: %w: %s; open the backend anew to mend it", b.object(""), ban.ErrNotEnforcing, what)
	}
	return b.missing(ctx)
}

// missing compares the bans with those in the kernel.
func (b *Backend) missing(ctx context.Context) error {
	have, err := b.readLocked(ctx)
	if err != nil {
		return err
	}
	there := b.mirror.empty()
	for e, err := range b.bans(have.pages) {
		if err != nil {
			return err
		}
		there.set(e.Prefix, mark{})
	}
	soon := time.Now().Add(lag)
	var lost []string
	n, all := 0, 0
	for p, m := range b.mirror.all() {
		if m.at == foreign {
			continue
		}
		all++
		if _, is := there.get(p); is || m.over(soon) {
			continue
		}
		if n++; n <= 3 {
			lost = append(lost, p.String())
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("nft: %s: %w: %d of %d bans were lifted by somebody else, such as %s", b.object(""), ban.ErrNotEnforcing,
		n, all, strings.Join(lost, ", "))
}
