package nft

import (
	"context"
	"errors"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ErrOverrun tells that the kernel dropped trace messages, as the reader was
// too slow for them. Ranging goes on after it.
var ErrOverrun = nfnl.ErrOverrun

// TraceType is what a message of a trace tells of (enum nft_trace_types).
type TraceType uint8

// The trace types.
const (
	TracePolicy TraceType = iota + 1 // no rule of the base chain decided: its policy did
	TraceReturn                      // a chain came to its end, or a rule to return
	TraceRule                        // a rule matched
)

var traceTypes = [...]string{"unknown", "policy", "return", "rule"}

// String is nft(8)'s word.
func (t TraceType) String() string {
	if int(t) < len(traceTypes) {
		return traceTypes[t]
	}
	return traceTypes[0]
}

// Trace is one thing that a traced packet met on its way through the rules
// (NFT_MSG_TRACE).
type Trace struct {
	// ID is the same for all that one packet meets. The kernel computes it
	// from where the packet is in memory, so that it comes again with later
	// packets.
	ID   uint32
	Type TraceType
	// Family is the table's. NFProto is the packet's: IPv4 or IPv6.
	Family, NFProto Family
	Table, Chain    string
	// Handle is the rule's, unique in its table; 0 of a policy, and where the
	// end of a chain is told as a rule that continues (Linux 6.18).
	Handle uint64
	// Verdict is the rule's, or the policy of the base chain. A rule that
	// rejects has CodeDrop, be it nft's own or of iptables-nft.
	Verdict Code
	// Target is the chain that CodeJump and CodeGoto go to.
	Target string
	// Mark is the packet's (nfmark) after the rule.
	Mark uint32
	// InIndex and OutIndex are interfaces, 0 is none. They, Headers and CT
	// come once for each base chain. Traces repeats them in what the packet
	// meets later in it, unless messages of too many packets came between.
	InIndex, OutIndex uint32
	Headers           Headers
	CT                TraceCT
}

// TraceCT is the packet's connection when it came to the base chain. The zero
// TraceCT is that of a packet that is not, or not yet, looked up, and of all on
// Linux before 6.16.
type TraceCT struct {
	// State is one of the states; 0 is not known.
	State CTState
	// ID is the entry's (CTA_ID); Status its bits (IPS_*). 0 without entry.
	ID, Status uint32
	// Reply is that the packet goes the other way than the first.
	Reply bool
}

// Refused reports that it was the end of the packet: the verdict of the rule,
// or the policy, is to drop it. What was queued to a program may still be.
func (t *Trace) Refused() bool {
	return (t.Type == TraceRule || t.Type == TracePolicy) && t.Verdict == CodeDrop
}

// Rule names the rule, for Ruleset.Rule.
func (t *Trace) Rule() RuleRef { return RuleRef{t.Family, t.Table, t.Chain, t.Handle} }

// TraceOptions is how Traces listens. A nil *TraceOptions is the zero value.
type TraceOptions struct {
	// ReadBuffer is the socket's receive buffer in bytes; 0 is 8 MiB, room for
	// about 9,000 messages. Above net.core.rmem_max it takes CAP_NET_ADMIN in
	// the initial user namespace; without it the buffer is as large as the
	// limit allows.
	ReadBuffer int
	// Ready, if not nil, is called once the kernel has begun to send: what
	// packets meet from then on is seen.
	Ready func()
}

const (
	groupTrace = 9  // NFNLGRP_NFTRACE
	msgTrace   = 17 // NFT_MSG_TRACE

	defaultTraceBuffer = 8 << 20
)

// Traces yields what packets meet whose nftrace bit a rule has set, such as one
// with Rule.Trace: each rule that matched, and the policy where none decided, in
// all nftables chains asked from there on, those of iptables-nft included and
// those of iptables-legacy not. An error that is ErrOverrun says that messages
// were lost at that place and ranging goes on; any other is the last. It takes
// CAP_NET_ADMIN.
//
// A trace costs the kernel one message for each rule that matches, before the
// packet goes on, whether it is read or not: 3 to 7 microseconds each, measured
// on 2 CPUs that also read them (BenchmarkTraced). Let a Rule.Limit choose what
// is traced. Packets that are not traced pay for that rule only.
func (c *Conn) Traces(ctx context.Context, opts *TraceOptions) iter.Seq2[Trace, error] {
	if opts == nil {
		opts = &TraceOptions{}
	}
	cfg := nfnl.ListenConfig{Groups: []uint32{groupTrace}, ReadBuffer: opts.ReadBuffer, Ready: opts.Ready}
	if cfg.ReadBuffer == 0 {
		cfg.ReadBuffer = defaultTraceBuffer
	}
	return func(yield func(Trace, error) bool) {
		d := newTraceDecoder()
		for m, err := range c.nl.Listen(ctx, cfg) {
			if err == nil && m.Type != subsystem<<8|msgTrace {
				continue
			}
			var t Trace
			if err == nil {
				err = d.decode(m.Data, &t)
			}
			if err != nil {
				d.forget()
				err = &Error{Object: "trace", Err: privilege(err)}
			}
			if !yield(t, err) || err != nil && !errors.Is(err, ErrOverrun) {
				return
			}
		}
	}
}
