package nft

import (
	"bytes"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Attributes of a trace (enum nft_trace_attributes).
const (
	traceTable     = 1  // NFTA_TRACE_TABLE
	traceChain     = 2  // NFTA_TRACE_CHAIN
	traceHandle    = 3  // NFTA_TRACE_RULE_HANDLE
	traceType      = 4  // NFTA_TRACE_TYPE
	traceVerdict   = 5  // NFTA_TRACE_VERDICT
	traceID        = 6  // NFTA_TRACE_ID
	traceNetwork   = 8  // NFTA_TRACE_NETWORK_HEADER
	traceTransport = 9  // NFTA_TRACE_TRANSPORT_HEADER
	traceIIF       = 10 // NFTA_TRACE_IIF
	traceOIF       = 12 // NFTA_TRACE_OIF
	traceMark      = 14 // NFTA_TRACE_MARK
	traceNFProto   = 15 // NFTA_TRACE_NFPROTO
	tracePolicy    = 16 // NFTA_TRACE_POLICY
	traceCTID      = 18 // NFTA_TRACE_CT_ID
	traceCTDir     = 19 // NFTA_TRACE_CT_DIRECTION
	traceCTStatus  = 20 // NFTA_TRACE_CT_STATUS
	traceCTState   = 21 // NFTA_TRACE_CT_STATE

	verdictCode  = 1 // NFTA_VERDICT_CODE
	verdictChain = 2 // NFTA_VERDICT_CHAIN
)

// traceDecoder allocates nothing for a packet whose chains it has seen before.
type traceDecoder struct {
	names   map[string]string
	packets []Trace // what came with the first message, at ID modulo its length
}

const (
	traceSlots = 512 // packets under way at one time; a power of two
	traceNames = 4096
)

func newTraceDecoder() *traceDecoder {
	return &traceDecoder{names: make(map[string]string), packets: make([]Trace, traceSlots)}
}

// forget gives up the packets: what is not read any more may be of another one
// with the same ID.
func (d *traceDecoder) forget() { clear(d.packets) }

// name makes a string of a C string, the same one each time. Rule sets may come
// and go: too many names are forgotten together.
func (d *traceDecoder) name(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if len(d.names) == traceNames {
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}

// decode reads an NFT_MSG_TRACE into t, which must be zero. On an error it is
// zero.
func (d *traceDecoder) decode(b []byte, t *Trace) error {
	if len(b) < genLen {
		return nfnl.ErrTruncated
	}
	t.Family = Family(b[0])
	var a nfnl.Attr
	var bad nfnl.Fault
	for b = b[genLen:]; len(b) > 0; {
		a, b = nfnl.Cut(b)
		if err := d.attr(a, t, &bad); err != nil {
			*t = Trace{}
			return err
		}
	}
	if err := bad.After(a); err != nil {
		*t = Trace{}
		return err
	}
	d.join(t)
	return nil
}

// join takes what the kernel sends but once from the packet's first message, or
// keeps it.
func (d *traceDecoder) join(t *Trace) {
	first := &d.packets[t.ID%traceSlots]
	switch {
	case t.Headers.n != 0:
		*first = *t
	case first.ID == t.ID && first.Headers.n != 0:
		t.InIndex, t.OutIndex, t.Headers, t.CT = first.InIndex, first.OutIndex, first.Headers, first.CT
	}
}

func (d *traceDecoder) attr(a nfnl.Attr, t *Trace, bad *nfnl.Fault) error {
	switch a.Type {
	case traceTable:
		t.Table = d.name(a.Value)
	case traceChain:
		t.Chain = d.name(a.Value)
	case traceHandle:
		t.Handle = a.U64(bad)
	case traceType:
		t.Type = TraceType(a.U32(bad))
	case traceVerdict:
		return d.verdict(a.Value, t)
	case tracePolicy:
		t.Verdict = codeOf(a.U32(bad))
	case traceID:
		t.ID = a.U32(bad)
	case traceNetwork:
		t.Headers.setNetwork(a.Value)
	case traceTransport:
		t.Headers.setTransport(a.Value)
	case traceIIF:
		t.InIndex = a.U32(bad)
	case traceOIF:
		t.OutIndex = a.U32(bad)
	case traceMark:
		t.Mark = a.U32(bad)
	case traceNFProto:
		t.NFProto = Family(a.U32(bad))
	default:
		t.CT.attr(a, bad)
	}
	return nil
}

func (c *TraceCT) attr(a nfnl.Attr, bad *nfnl.Fault) {
	switch a.Type {
	case traceCTID:
		c.ID = a.U32(bad)
	case traceCTDir:
		c.Reply = a.U8(bad) != 0
	case traceCTStatus:
		c.Status = a.U32(bad)
	case traceCTState:
		c.State = CTState(a.U32(bad))
	}
}

// verdict reads a struct nft_verdict.
func (d *traceDecoder) verdict(b []byte, t *Trace) error {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		switch a, b = nfnl.Cut(b); a.Type {
		case verdictCode:
			t.Verdict = codeOf(a.U32(&bad))
		case verdictChain:
			t.Target = d.name(a.Value)
		}
	}
	return bad.After(a)
}
