package nft

import (
	"context"
	"errors"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Ruleset is every table of a network namespace, whoever made it, at one
// generation: for reading only.
type Ruleset struct {
	// Generation is the number of transactions so far (NFTA_GEN_ID).
	Generation uint32
	Tables     []ListedTable
}

// ListedTable is a table found in the kernel.
type ListedTable struct {
	Family  Family
	Name    string
	Handle  uint64
	Comment string
	// Owner is the port ID of the netlink socket that the table goes with
	// (NFTA_TABLE_OWNER), often the number of its process; 0 is none.
	Owner uint32
	// Dormant is that its chains are not asked (NFT_TABLE_F_DORMANT).
	Dormant bool
	Chains  []ListedChain
}

// ListedChain is a chain found in the kernel.
type ListedChain struct {
	Name   string
	Handle uint64
	// Base is that the kernel asks it, at Hook; other chains are jumped to, and
	// their Type, Hook, Priority and Policy are zero.
	Base     bool
	Type     string // "filter", "nat", "route"
	Hook     Hook   // in tables of the families IPv4, IPv6 and INet
	Priority int32
	Policy   Policy
	Rules    []ListedRule
}

// ListedRule is a rule found in the kernel.
type ListedRule struct {
	Handle  uint64
	Comment string

	family Family
	exprs  []byte // NFTA_RULE_EXPRESSIONS
	sets   sets
}

// RuleRef names a rule of a network namespace.
type RuleRef struct {
	Family       Family
	Table, Chain string
	Handle       uint64 // unique in its table, and never used again there
}

// Rule finds a rule.
func (r *Ruleset) Rule(ref RuleRef) (ListedRule, bool) {
	for have, rule := range r.All() {
		if have == ref {
			return rule, true
		}
	}
	return ListedRule{}, false
}

// All yields the rules in the order of tables, chains and rules.
func (r *Ruleset) All() iter.Seq2[RuleRef, ListedRule] {
	return func(yield func(RuleRef, ListedRule) bool) {
		for _, t := range r.Tables {
			for _, c := range t.Chains {
				for _, rule := range c.Rules {
					if !yield(RuleRef{t.Family, t.Name, c.Name, rule.Handle}, rule) {
						return
					}
				}
			}
		}
	}
}

// Ruleset reads all tables with their chains and rules. One that changed each
// time it was read is ErrChanged. Sets with a name and other objects are left
// out.
func (c *Conn) Ruleset(ctx context.Context) (*Ruleset, error) {
	for range readAttempts {
		r, err := c.ruleset(ctx)
		if !errors.Is(err, ErrChanged) {
			if err != nil {
				err = &Error{Object: "rule set", Err: privilege(err)}
			}
			return r, err
		}
	}
	return nil, &Error{Object: "rule set", Err: ErrChanged}
}

// ruleset reads once, and takes what it read for good if the generation is the
// same after it as before.
func (c *Conn) ruleset(ctx context.Context) (*Ruleset, error) {
	before, err := c.Generation(ctx)
	if err != nil {
		return nil, err
	}
	r := &rulesetReader{set: &Ruleset{Generation: before}, tables: map[tableKey]int{}, chains: map[chainKey]int{}}
	for _, dump := range []struct {
		op   uint8
		take func([]byte) error
	}{{getTable, r.table}, {getChain, r.chain}, {getRule, r.rule}} {
		if err := c.dumpAll(ctx, dump.op, dump.take); err != nil {
			return nil, err
		}
	}
	for i := range r.set.Tables {
		if err := c.elements(ctx, &r.set.Tables[i]); err != nil {
			return nil, err
		}
	}
	after, err := c.Generation(ctx)
	if err == nil && after != before {
		err = ErrChanged
	}
	if err != nil {
		return nil, err
	}
	return r.set, nil
}

func (c *Conn) dumpAll(ctx context.Context, op uint8, take func([]byte) error) error {
	for m, err := range c.nl.Dump(ctx, nfnl.NewNetfilter(subsystem, op, 0, 0).Message()) {
		if err == nil {
			err = take(m.Data)
		}
		if errors.Is(err, nfnl.ErrInterrupted) {
			return ErrChanged
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Generation is the number of the rule set of the namespace: each transaction, of
// anybody, that changes something makes it one more.
func (c *Conn) Generation(ctx context.Context) (gen uint32, err error) {
	err = c.nl.Do(ctx, nfnl.NewNetfilter(subsystem, getGen, 0, 0).Message(), func(m nfnl.Message) error {
		if len(m.Data) < genLen {
			return nfnl.ErrTruncated
		}
		a := nfnl.Walk(m.Data[genLen:])
		for a.Next() {
			if a.Type == 1 { // NFTA_GEN_ID
				gen = a.U32()
			}
		}
		return a.Err()
	})
	return gen, err
}
