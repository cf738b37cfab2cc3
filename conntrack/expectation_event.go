package conntrack

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ExpectationEvent is an expectation that came (EventNew) or went
// (EventDestroy): a connection met it, its time ran out, its master ended, or
// it was removed. Kernels have no update of expectations to tell.
type ExpectationEvent struct {
	Type        EventType
	Expectation Expectation
	// Port is the port ID of the netlink socket whose request made or removed
	// it; 0 is the kernel itself.
	Port uint32
}

// String returns e as conntrack -E expect writes it.
func (e ExpectationEvent) String() string {
	return fmt.Sprintf("%9s %v", "["+e.Type.String()+"]", e.Expectation)
}

// ExpectationEventOptions chooses what ExpectationEvents yields. The zero
// value, as a nil pointer, is everything with the default buffer.
type ExpectationEventOptions struct {
	// Types are the event types wanted; none means all.
	Types []EventType
	// ReadBuffer is the socket's receive buffer in bytes, as in EventOptions.
	ReadBuffer int
	// Ready, if not nil, is called once the kernel has begun to send: what
	// happens from then on is seen.
	Ready func()
}

// ExpectationEvents yields expectations as they come and go, in order. A nil
// error goes with an event. ErrOverrun says that events were lost, and ranging
// goes on; any other error is the last.
//
// With net.netfilter.nf_conntrack_events=2, the default of Linux 6.1 and later,
// the expectations of connections made before anybody listened send no events.
func (c *Conn) ExpectationEvents(ctx context.Context, opts *ExpectationEventOptions) iter.Seq2[ExpectationEvent, error] {
	if opts == nil {
		opts = &ExpectationEventOptions{}
	}
	cfg := nfnl.ListenConfig{Groups: opts.groups(), ReadBuffer: opts.ReadBuffer, Ready: opts.Ready}
	if cfg.ReadBuffer == 0 {
		cfg.ReadBuffer = defaultEventBuffer
	}
	return func(yield func(ExpectationEvent, error) bool) {
		var e ExpectationEvent
		for m, err := range c.nl.Listen(ctx, cfg) {
			e.Type, e.Port = expectationEventType(m), m.Port
			if err == nil && e.Type != 0 {
				err = decodeExpectation(m.Data, &e.Expectation)
			}
			switch {
			case errors.Is(err, ErrOverrun):
				if !yield(ExpectationEvent{}, opError("expectation events", err)) {
					return
				}
			case err != nil:
				yield(ExpectationEvent{}, opError("expectation events", err))
				return
			case e.Type != 0:
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// groups are NFNLGRP_CONNTRACK_EXP_NEW (4), _UPDATE and _DESTROY.
func (o *ExpectationEventOptions) groups() []uint32 {
	if len(o.Types) == 0 {
		return []uint32{4, 5, 6}
	}
	var groups []uint32
	for _, t := range o.Types {
		groups = append(groups, uint32(t)+3)
	}
	return groups
}

// expectationEventType is 0 for a message that is not about an expectation.
func expectationEventType(m nfnl.Message) EventType {
	switch {
	case m.Type == subsystemExpect<<8|opExpectDelete:
		return EventDestroy
	case m.Type == subsystemExpect<<8|opExpectNew && m.Flags&(nfnl.Create|nfnl.Exclude) != 0:
		return EventNew
	case m.Type == subsystemExpect<<8|opExpectNew:
		return EventUpdate
	}
	return 0
}
