package nft

import (
	"slices"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

type tableKey struct {
	family Family
	name   string
}

type chainKey struct {
	table tableKey
	name  string
}

// rulesetReader puts chains into their tables and rules into their chains. What
// belongs to something that was not listed came meanwhile: ErrChanged.
type rulesetReader struct {
	set    *Ruleset
	tables map[tableKey]int
	chains map[chainKey]int // index in the table
}

func (r *rulesetReader) table(b []byte) error {
	t, err := decodeTable(b)
	if err != nil {
		return err
	}
	r.tables[tableKey{t.Family, t.Name}] = len(r.set.Tables)
	r.set.Tables = append(r.set.Tables, t)
	return nil
}

func (r *rulesetReader) chain(b []byte) error {
	table, c, err := decodeChain(b)
	if err != nil {
		return err
	}
	i, ok := r.tables[table]
	if !ok {
		return ErrChanged
	}
	t := &r.set.Tables[i]
	r.chains[chainKey{table, c.Name}] = len(t.Chains)
	t.Chains = append(t.Chains, c)
	return nil
}

func (r *rulesetReader) rule(b []byte) error {
	chain, rule, err := decodeListedRule(b)
	if err != nil {
		return err
	}
	i, ok := r.chains[chain]
	if !ok {
		return ErrChanged
	}
	c := &r.set.Tables[r.tables[chain.table]].Chains[i]
	c.Rules = append(c.Rules, rule)
	return nil
}

// decodeTable reads an NFT_MSG_NEWTABLE. On an error the table is zero.
func decodeTable(b []byte) (ListedTable, error) {
	if len(b) < genLen {
		return ListedTable{}, nfnl.ErrTruncated
	}
	t := ListedTable{Family: Family(b[0])}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		switch a.Type {
		case tableName:
			t.Name = a.String()
		case tableFlags:
			t.Dormant = a.U32()&flagDormant != 0
		case tableHandle:
			t.Handle = a.U64()
		case tableUserdata:
			t.Comment = decodeComment(a.Value)
		case tableOwner:
			t.Owner = a.U32()
		}
	}
	if err := a.Err(); err != nil {
		return ListedTable{}, err
	}
	return t, nil
}

// decodeChain reads an NFT_MSG_NEWCHAIN. On an error the chain is zero.
func decodeChain(b []byte) (tableKey, ListedChain, error) {
	if len(b) < genLen {
		return tableKey{}, ListedChain{}, nfnl.ErrTruncated
	}
	table, c := tableKey{family: Family(b[0])}, ListedChain{}
	var err error
	a := nfnl.Walk(b[genLen:])
	for err == nil && a.Next() {
		switch a.Type {
		case chainTable:
			table.name = a.String()
		case chainName:
			c.Name = a.String()
		case chainHandle:
			c.Handle = a.U64()
		case chainHook:
			c.Base = true
			err = c.hook(a.Value)
		case chainType:
			c.Type = a.String()
		case chainPolicy:
			if a.U32() == nfDrop {
				c.Policy = PolicyDrop
			}
		}
	}
	if err == nil {
		err = a.Err()
	}
	if err != nil {
		return tableKey{}, ListedChain{}, err
	}
	return table, c, nil
}

func (c *ListedChain) hook(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case hookNumber:
			c.Hook = Hook(min(a.U32(), 254) + 1)
		case hookPriority:
			c.Priority = int32(a.U32())
		}
	}
	return a.Err()
}

// decodeListedRule reads an NFT_MSG_NEWRULE. On an error the rule is zero.
func decodeListedRule(b []byte) (chainKey, ListedRule, error) {
	if len(b) < genLen {
		return chainKey{}, ListedRule{}, nfnl.ErrTruncated
	}
	chain := chainKey{table: tableKey{family: Family(b[0])}}
	r := ListedRule{family: chain.table.family}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		switch a.Type {
		case ruleTable:
			chain.table.name = a.String()
		case ruleChain:
			chain.name = a.String()
		case ruleHandle:
			r.Handle = a.U64()
		case ruleExpressions:
			r.exprs = slices.Clone(a.Value)
		case ruleUserdata:
			r.Comment = decodeComment(a.Value)
		}
	}
	if err := a.Err(); err != nil {
		return chainKey{}, ListedRule{}, err
	}
	return chain, r, nil
}
