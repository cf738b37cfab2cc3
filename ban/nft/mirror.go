package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/connsleuth/connsleuth/ban"
)

// mirror is the bans put in force here, and those found at Open. Each part of a
// call writes its own before it makes them, and takes out those that it could not
// make.
type mirror map[key]mark

// key is a prefix without pointers, so that the garbage collector need not look at
// each of many.
type key struct {
	high, low uint64
	kind
}

type mark struct {
	until ban.Until
	at    int32 // among the changes of the last part that asked for it
}

func keyOf(p netip.Prefix) key {
	a := p.Addr().As16()
	return key{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), kindOf(p)}
}

func (k key) prefix() netip.Prefix {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, k.high), k.low)
	p, _ := k.kind.prefix(b[16-k.size():]) // it is made of one
	return p
}
