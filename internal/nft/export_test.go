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

// WithElements gives the rule a set without a name, of which b is an
// NFT_MSG_NEWSETELEM.
func (r ListedRule) WithElements(name string, b []byte) (ListedRule, error) {
	list, err := decodeElements(b, nil)
	r.sets = sets{name: list}
	return r, err
}

// Names is how many names are kept.
func (d *traceDecoder) Names() int { return len(d.names) }

// Decode reads an NFT_MSG_TRACE.
func (d *traceDecoder) Decode(b []byte, t *Trace) error { return d.decode(b, t) }
