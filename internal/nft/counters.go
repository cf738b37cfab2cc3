package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Counter is what one rule has counted.
type Counter struct {
	// Packets and Bytes matched; bytes are of the network layer, headers
	// included.
	Packets, Bytes uint64
	// Counted is false for a rule without a counter.
	Counted bool
	// Comment is the rule's.
	Comment string
}

// ErrChanged tells that the rule set changed each time it was read.
var ErrChanged = errors.New("the rule set changed while it was read")

// readAttempts is how often Counters starts again when the rule set changes
// under it.
const readAttempts = 5

// Counters reads the counters of a chain, one for each rule, in the order of
// the rules. A chain that is not there is fs.ErrNotExist.
func (c *Conn) Counters(ctx context.Context, family Family, table, chain string) ([]Counter, error) {
	counters, err := c.counters(ctx, family, table, chain)
	if err != nil {
		return nil, &Error{Object: chainObject(Table{Family: family, Name: table}, Chain{Name: chain}), Err: privilege(err)}
	}
	return counters, nil
}

func (c *Conn) counters(ctx context.Context, family Family, table, chain string) ([]Counter, error) {
	for range readAttempts {
		// The kernel answers a dump of the rules of no chain with no rules.
		get := nfnl.NewNetfilter(subsystem, getChain, 0, uint8(family))
		get.String(chainTable, table)
		get.String(chainName, chain)
		if err := c.nl.Do(ctx, get.Message(), nil); err != nil {
			return nil, err
		}
		counters, err := c.readRules(ctx, family, table, chain)
		if !errors.Is(err, ErrChanged) {
			return counters, err
		}
	}
	return nil, ErrChanged
}

func (c *Conn) readRules(ctx context.Context, family Family, table, chain string) ([]Counter, error) {
	req := nfnl.NewNetfilter(subsystem, getRule, 0, uint8(family))
	req.String(ruleTable, table)
	req.String(ruleChain, chain)
	var counters []Counter
	for m, err := range c.nl.Dump(ctx, req.Message()) {
		if errors.Is(err, nfnl.ErrInterrupted) {
			return nil, ErrChanged
		}
		if err != nil {
			return nil, err
		}
		counter, err := decodeRule(m.Data)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", len(counters)+1, err)
		}
		counters = append(counters, counter)
	}
	return counters, nil
}

const genLen = 4 // struct nfgenmsg

// decodeRule reads an NFT_MSG_NEWRULE. On an error the Counter is zero.
func decodeRule(b []byte) (Counter, error) {
	if len(b) < genLen {
		return Counter{}, nfnl.ErrTruncated
	}
	var c Counter
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		switch a.Type {
		case ruleExpressions:
			if err := c.expressions(a.Value); err != nil {
				return Counter{}, err
			}
		case ruleUserdata:
			c.Comment = decodeComment(a.Value)
		}
	}
	if err := a.Err(); err != nil {
		return Counter{}, err
	}
	return c, nil
}

// expressions looks for the counter among a rule's expressions.
func (c *Counter) expressions(b []byte) error {
	list := nfnl.Walk(b)
	for list.Next() {
		var name string
		var data []byte
		e := nfnl.Walk(list.Value)
		for e.Next() {
			switch e.Type {
			case exprName:
				name = e.String()
			case exprData:
				data = e.Value
			}
		}
		if err := e.Err(); err != nil {
			return err
		}
		if name == "counter" {
			if err := c.counter(data); err != nil {
				return err
			}
		}
	}
	return list.Err()
}

func (c *Counter) counter(b []byte) error {
	c.Counted = true
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case 1: // NFTA_COUNTER_BYTES
			c.Bytes = a.U64()
		case 2: // NFTA_COUNTER_PACKETS
			c.Packets = a.U64()
		}
	}
	return a.Err()
}

// decodeComment finds the comment in a rule's userdata: type, length, value.
// Userdata is whatever its writer liked: what is malformed is no comment.
func decodeComment(b []byte) string {
	for len(b) >= 2 && int(b[1]) <= len(b)-2 {
		v := b[2 : 2+int(b[1])]
		if b[0] == udataComment {
			if n := len(v); n > 0 && v[n-1] == 0 {
				v = v[:n-1]
			}
			return string(v)
		}
		b = b[2+len(v):]
	}
	return ""
}
