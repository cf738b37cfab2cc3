package nft

import (
	"context"
	"errors"
	"io/fs"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Table reads one table, as Ruleset reads all. One that is not there is
// fs.ErrNotExist.
func (c *Conn) Table(ctx context.Context, family Family, name string) (ListedTable, error) {
	object := tableObject(Table{Family: family, Name: name})
	for range readAttempts {
		t, err := c.table(ctx, family, name)
		if !errors.Is(err, ErrChanged) {
			if err != nil {
				err = &Error{Object: object, Err: privilege(err)}
			}
			return t, err
		}
	}
	return ListedTable{}, &Error{Object: object, Err: ErrChanged}
}

// table reads once. The kernel leaves out the tables that do not have the name,
// and the rules of others; chains are left out here.
func (c *Conn) table(ctx context.Context, family Family, name string) (ListedTable, error) {
	before, err := c.Generation(ctx)
	if err != nil {
		return ListedTable{}, err
	}
	r := &rulesetReader{set: &Ruleset{}, tables: map[tableKey]int{}, chains: map[chainKey]int{}}
	get := nfnl.NewNetfilter(subsystem, getTable, 0, uint8(family))
	get.String(tableName, name)
	if err := c.nl.Do(ctx, get.Message(), func(m nfnl.Message) error { return r.table(m.Data) }); err != nil {
		return ListedTable{}, err
	}
	key := tableKey{family, name}
	err = c.dumpTable(ctx, nfnl.NewNetfilter(subsystem, getChain, 0, uint8(family)), func(b []byte) error {
		if of, _, err := decodeChain(b); err != nil || of != key {
			return err
		}
		return r.chain(b)
	})
	if err != nil {
		return ListedTable{}, err
	}
	rules := nfnl.NewNetfilter(subsystem, getRule, 0, uint8(family))
	rules.String(ruleTable, name)
	if err := c.dumpTable(ctx, rules, r.rule); err != nil {
		return ListedTable{}, err
	}
	if len(r.set.Tables) != 1 {
		return ListedTable{}, fs.ErrNotExist
	}
	t := &r.set.Tables[0]
	if err := c.elements(ctx, t); err != nil {
		return ListedTable{}, err
	}
	after, err := c.Generation(ctx)
	if err == nil && after != before {
		err = ErrChanged
	}
	return *t, err
}

func (c *Conn) dumpTable(ctx context.Context, req *nfnl.Builder, take func([]byte) error) error {
	for m, err := range c.nl.Dump(ctx, req.Message()) {
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
