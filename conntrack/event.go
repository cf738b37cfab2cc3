package conntrack

import (
	"context"
	"errors"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// EventType is what happened to an entry.
type EventType uint8

// The event types and their multicast groups.
const (
	EventNew     EventType = iota + 1 // NFNLGRP_CONNTRACK_NEW
	EventUpdate                       // NFNLGRP_CONNTRACK_UPDATE
	EventDestroy                      // NFNLGRP_CONNTRACK_DESTROY
)

// String returns conntrack(8)'s word.
func (t EventType) String() string {
	switch t {
	case EventNew:
		return "NEW"
	case EventUpdate:
		return "UPDATE"
	case EventDestroy:
		return "DESTROY"
	}
	return "UNKNOWN"
}

// Event is a change of the table. Flow holds what the kernel sent with it,
// which may be less than a dump shows: see Flow.Has.
type Event struct {
	Type EventType
	Flow Flow
	At   Timestamp // when it happened
	// Port is the netlink port ID of who caused it by a request; 0 is the
	// kernel itself.
	Port uint32
}

// Expired reports that the entry ended because its time ran out. An entry that
// was deleted or evicted still had time left, which the kernel sends along with
// the event (CTA_TIMEOUT, left out when it is less than 1 s: one deleted in its
// last second counts as expired). Kernels before 5.13 send neither time nor TCP
// state with it; on those the answer for TCP is false, and for other protocols
// not to be relied on.
func (e Event) Expired() bool {
	f := &e.Flow
	told := f.Has(FieldTCP) || f.Original.Proto != ProtoTCP
	return e.Type == EventDestroy && told && !f.Has(FieldTimeout)
}

// EventOptions chooses what Events yields. The zero EventOptions, as a nil one,
// is everything with the default buffer.
type EventOptions struct {
	// Types are the event types wanted; none means all.
	Types []EventType
	// Filter is checked in Go. An event that lacks a value the filter asks
	// for does not match.
	Filter *Filter
	// ReadBuffer is the socket's receive buffer in bytes; 0 is 8 MiB, room
	// for about 13,000 events. Above net.core.rmem_max it takes CAP_NET_ADMIN
	// in the initial user namespace; without it the buffer is as large as the
	// limit allows.
	ReadBuffer int
	// Ready, if not nil, is called once the kernel has begun to send: what
	// happens from then on is seen.
	Ready func()
}

const defaultEventBuffer = 8 << 20

// Events yields changes of the table as they happen, in order. A nil error
// goes with an event. ErrOverrun says that events were lost, and ranging goes
// on; any other error is the last.
//
// With net.netfilter.nf_conntrack_events=2, the default of Linux 6.1 and
// later, entries made before anybody listened send no events.
func (c *Conn) Events(ctx context.Context, opts *EventOptions) iter.Seq2[Event, error] {
	if opts == nil {
		opts = &EventOptions{}
	}
	cfg := nfnl.ListenConfig{Groups: opts.groups(), ReadBuffer: opts.ReadBuffer, Ready: opts.Ready}
	if cfg.ReadBuffer == 0 {
		cfg.ReadBuffer = defaultEventBuffer
	}
	return func(yield func(Event, error) bool) {
		for m, err := range c.nl.Listen(ctx, cfg) {
			e := Event{Type: eventType(m)}
			if err == nil && e.Type != 0 {
				err = decodeFlow(m.Data, &e.Flow)
			}
			switch {
			case errors.Is(err, ErrOverrun):
				if !yield(Event{}, opError("events", err)) {
					return
				}
			case err != nil:
				yield(Event{}, opError("events", err))
				return
			case e.Type != 0 && opts.Filter.Match(&e.Flow):
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func (o *EventOptions) groups() []uint32 {
	if len(o.Types) == 0 {
		return []uint32{1, 2, 3}
	}
	var groups []uint32
	for _, t := range o.Types {
		groups = append(groups, uint32(t))
	}
	return groups
}

// eventType tells the event from message type and flags; 0 for a message that
// is not about a flow.
func eventType(m nfnl.Message) EventType {
	switch {
	case m.Type == subsystem<<8|opDelete:
		return EventDestroy
	case m.Type == subsystem<<8|opNew && m.Flags&(nfnl.Create|nfnl.Exclude) != 0:
		return EventNew
	case m.Type == subsystem<<8|opNew:
		return EventUpdate
	}
	return 0
}
