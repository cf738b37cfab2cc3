package nft

import (
	"encoding/binary"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// maxAttr is one more than the highest attribute type that is looked at in any
// expression.
const maxAttr = 12

// expr is an expression of a rule, borrowed: its name and attributes by type.
type expr struct {
	name  string
	attrs [maxAttr][]byte
}

// parseExprs splits NFTA_RULE_EXPRESSIONS. What is malformed is left out, and
// told by ok.
func parseExprs(b []byte) (list []expr, ok bool) {
	a := nfnl.Walk(b)
	ok = true
	for a.Next() {
		e, good := parseExpr(a.Value)
		if ok = ok && good; good {
			list = append(list, e)
		}
	}
	return list, ok && a.Err() == nil
}

// parseExpr reads NFTA_EXPR_NAME and NFTA_EXPR_DATA.
func parseExpr(b []byte) (e expr, ok bool) {
	a := nfnl.Walk(b)
	ok = true
	for a.Next() {
		switch a.Type {
		case exprName:
			e.name = a.String()
		case exprData:
			ok = e.parse(a.Value)
		}
	}
	return e, ok && a.Err() == nil && e.name != ""
}

func (e *expr) parse(b []byte) bool {
	a := nfnl.Walk(b)
	for a.Next() {
		if a.Type < maxAttr {
			e.attrs[a.Type] = a.Value[:len(a.Value):len(a.Value)]
		}
	}
	return a.Err() == nil
}

func (e *expr) has(typ int) bool { return e.attrs[typ] != nil }

// number reads an attribute of 1 to 8 bytes; 0 without.
func (e *expr) number(typ int) (v uint64) {
	for _, c := range e.attrs[typ][:min(len(e.attrs[typ]), 8)] {
		v = v<<8 | uint64(c)
	}
	return v
}

func (e *expr) text(typ int) string {
	a := nfnl.Attrs{Attr: nfnl.Attr{Value: e.attrs[typ]}}
	return a.String()
}

// value reads the bytes in a struct nft_data.
func (e *expr) value(typ int) []byte {
	for a := nfnl.Walk(e.attrs[typ]); a.Next(); {
		if a.Type == dataValue {
			return a.Value
		}
	}
	return nil
}

// verdict reads the verdict in a struct nft_data.
func (e *expr) verdict(typ int) (code Code, chain string, ok bool) {
	for a := nfnl.Walk(e.attrs[typ]); a.Next(); {
		if a.Type != dataVerdict {
			continue
		}
		for v := nfnl.Walk(a.Value); v.Next(); {
			switch v.Type {
			case verdictCode:
				code, ok = codeOf(v.U32()), true
			case verdictChain:
				chain = v.String()
			}
		}
	}
	return code, chain, ok
}

// native reads a number that the kernel keeps in the host's byte order.
func native(b []byte) uint64 {
	var padded [8]byte
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		copy(padded[:], b)
	} else {
		copy(padded[max(0, 8-len(b)):], b)
	}
	return binary.NativeEndian.Uint64(padded[:])
}

// network reads a number in network byte order.
func network(b []byte) (v uint64) {
	for _, c := range b[:min(len(b), 8)] {
		v = v<<8 | uint64(c)
	}
	return v
}
