package nft

import "github.com/connsleuth/connsleuth/internal/nfnl"

// NewConn makes a Conn that talks to a fake kernel.
func NewConn(nl *nfnl.Conn) *Conn { return &Conn{nl} }

var (
	DecodeRule       = decodeRule
	DecodeListedRule = decodeListedRule
	DecodeTable      = decodeTable
	DecodeChain      = decodeChain
	NewTraceDecoder  = newTraceDecoder
)

// Decode reads an NFT_MSG_TRACE.
func (d *traceDecoder) Decode(b []byte, t *Trace) error { return d.decode(b, t) }
