package nft

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// element is one of a set without a name, or a mapping of such a map.
type element struct {
	key, last []byte // last, if any, is the end of the range that key begins
	data      []byte // a value, or
	verdict   string
	end       bool // not in the set itself: where a range is over
	rest      bool // of a map: all other keys
}

// sets are the elements of the sets without a name of one table, by what the
// kernel calls them.
type sets map[string][]element

// unnamed reports whether a set belongs to a rule: nft(8) calls those __set%d
// and __map%d.
func unnamed(set string) bool { return strings.HasPrefix(set, "__") }

// elements reads the sets without a name that the rules of a table use.
func (c *Conn) elements(ctx context.Context, t *ListedTable) error {
	all := make(sets)
	for i := range t.Chains {
		for j := range t.Chains[i].Rules {
			r := &t.Chains[i].Rules[j]
			r.sets = all
			list, _ := parseExprs(r.exprs)
			for _, e := range list {
				name := e.text(1)
				if _, have := all[name]; e.name != "lookup" || !unnamed(name) || have {
					continue
				}
				var err error
				if all[name], err = c.set(ctx, t, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// set reads the elements of one set, in order.
func (c *Conn) set(ctx context.Context, t *ListedTable, name string) ([]element, error) {
	const elemTable, elemSet = 1, 2 // NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET
	req := nfnl.NewNetfilter(subsystem, getSetElem, 0, uint8(t.Family))
	req.String(elemTable, t.Name)
	req.String(elemSet, name)
	var list []element
	for m, err := range c.nl.Dump(ctx, req.Message()) {
		if err == nil {
			list, err = decodeElements(m.Data, list)
		}
		if errors.Is(err, nfnl.ErrInterrupted) || errors.Is(err, fs.ErrNotExist) {
			return nil, ErrChanged
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b element) int {
		return cmp.Or(bytes.Compare(a.key, b.key), compareBool(b.end, a.end))
	})
	return list, nil
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// decodeElements appends the elements of an NFT_MSG_NEWSETELEM.
func decodeElements(b []byte, list []element) ([]element, error) {
	if len(b) < genLen {
		return nil, nfnl.ErrTruncated
	}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		if a.Type != 3 { // NFTA_SET_ELEM_LIST_ELEMENTS
			continue
		}
		elems := nfnl.Walk(a.Value)
		for elems.Next() {
			e := expr{} // attributes by type, as those of an expression
			if e.parse(elems.Value) {
				list = append(list, newElement(&e))
			}
		}
		if err := elems.Err(); err != nil {
			return nil, err
		}
	}
	return list, a.Err()
}

func newElement(e *expr) element {
	const key, data, flags, keyEnd = 1, 2, 3, 10 // NFTA_SET_ELEM_*
	code, chain, ok := e.verdict(data)
	el := element{
		key: slices.Clone(e.value(key)), last: slices.Clone(e.value(keyEnd)), data: slices.Clone(e.value(data)),
		end:  e.number(flags)&1 != 0, // NFT_SET_ELEM_INTERVAL_END
		rest: e.number(flags)&2 != 0, // NFT_SET_ELEM_CATCHALL
	}
	if ok {
		el.verdict = strings.TrimSpace(code.String() + " " + chain)
	}
	return el
}

// setText is a set by its name, or one without by what is in it.
func (l *lister) setText(name string, key []operand) string {
	list, ok := l.sets[name]
	if !ok || len(key) == 0 {
		return "@" + name
	}
	if len(key) == 1 && key[0].hostOrder() {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b element) int { return bytes.Compare(swapped(a.key), swapped(b.key)) })
	}
	var words []string
	for i, e := range list {
		if e.end {
			continue
		}
		word := "*"
		if !e.rest {
			word = l.elementText(e, list[i+1:], key)
		}
		switch {
		case e.verdict != "":
			word += " : " + e.verdict
		case e.data != nil:
			word += " : " + nativeDecimal(e.data)
		}
		words = append(words, word)
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// elementText writes one key: a value, or a range that is over where the next
// element begins or, if that is of the set too, is one value.
func (l *lister) elementText(e element, after []element, key []operand) string {
	if len(key) > 1 {
		return l.concatText(e, key)
	}
	s := l.selector(key[0])
	switch {
	case s.bits != nil:
		return bitsText(s.bits, native(e.key), ",")
	case len(after) == 0 || !after[0].end:
		return s.format(e.key)
	}
	return rangeText(s, e.key, before(after[0].key))
}

// concatText writes the parts of a key, each of which is padded to 4 bytes.
func (l *lister) concatText(e element, key []operand) string {
	var words []string
	first, last := e.key, e.last
	for _, o := range key {
		s := l.selector(o)
		padded := (o.size + 3) &^ 3
		if len(first) < o.size || last != nil && len(last) < o.size {
			return hexText(e.key)
		}
		word := s.format(first[:o.size])
		if last != nil {
			word = rangeText(s, first[:o.size], last[:o.size])
			last = last[min(padded, len(last)):]
		}
		first = first[min(padded, len(first)):]
		words = append(words, word)
	}
	return strings.Join(words, " . ")
}

// rangeText is one value, a prefix, or the first and last of a range.
func rangeText(s selector, first, last []byte) string {
	if bytes.Equal(first, last) {
		return s.format(first)
	}
	if a, ok := netip.AddrFromSlice(first); ok && isAddr(s) && len(last) == len(first) {
		mask := make([]byte, len(first))
		for i := range first {
			mask[i] = ^(first[i] ^ last[i])
		}
		n, contiguous := prefixLen(mask)
		if p := netip.PrefixFrom(a, n); contiguous && p.Masked().Addr() == a {
			return p.String()
		}
	}
	return s.format(first) + "-" + s.format(last)
}

// before is the number before b.
func before(b []byte) []byte {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}
