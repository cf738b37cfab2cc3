package nft

import "github.com/connsleuth/connsleuth/internal/nfnl"

// NewConn makes a Conn that talks to a fake kernel.
func NewConn(nl *nfnl.Conn) *Conn { return &Conn{nl} }

var DecodeRule = decodeRule
