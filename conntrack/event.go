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
// which may be less than a dump shows: see Flow.Has. The mark is sent when it
// is not 0 or has just changed, and counters only with EventDestroy.
type Event struct {
	Type EventType
	// Port is who caused it: the port ID of the netlink socket whose request
	// did, which often is the number of its process; 0 is the kernel itself,
	// by a packet or a timer.
	Port uint32
	// At is when it happened (CTA_TIMESTAMP_EVENT): Linux 6.16 and later, for
	// entries made since net.netfilter.nf_conntrack_timestamp was 1; else 0.
	At   Timestamp
	Flow Flow
}

// Reason is why an entry ended.
type Reason uint8

// The reasons.
const (
	// ReasonUnknown is that of events other than EventDestroy, and of ends
	// that kernels before 5.13 do not explain.
	ReasonUnknown Reason = iota
	// ReasonExpired is that its time ran out.
	ReasonExpired
	// ReasonDeleted is that a netlink request removed it: Event.Port tells
	// whose.
	ReasonDeleted
	// ReasonRemoved is that the kernel removed it with time left: a
	// connection refused by its first answer, a closed one opened again with
	// the same ports, early drop from a full table, an interface that went
	// down with masquerading on it.
	ReasonRemoved
)

var reasonNames = [...]string{"unknown", "expired", "deleted", "removed"}

// String returns the constant's word, such as "expired".
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return reasonNames[ReasonUnknown]
}

// Reason returns why the entry ended. An entry that had time left has it sent
// along (CTA_TIMEOUT, left out when it is less than 1 s: one removed in its
// last second counts as expired). Kernels before 5.13 send neither time nor
// TCP state; for protocols other than TCP their silence cannot be told from
// expiry.
func (e Event) Reason() Reason {
	f := &e.Flow
	switch {
	case e.Type != EventDestroy:
		return ReasonUnknown
	case e.Port != 0:
		return ReasonDeleted
	case f.Has(FieldTimeout):
		return ReasonRemoved
	case f.Has(FieldTCP) || f.Original.Proto != ProtoTCP:
		return ReasonExpired
	}
	return ReasonUnknown
}

// Expired reports that the entry ended because its time ran out: Reason is
// ReasonExpired.
func (e Event) Expired() bool { return e.Reason() == ReasonExpired }

// EventOptions chooses what Events yields. The zero EventOptions, as a nil one,
// is everything with the default buffer.
type EventOptions struct {
	// Types are the event types wanted; none means all.
	Types []EventType
	// Filter chooses among the events. An event that lacks a value the filter
	// asks for does not match. The kernel checks family, protocol, addresses
	// and single ports of the original direction, status and mark by a socket
	// filter (BPF), so that events that differ in them cost little and take no
	// room in the receive buffer.
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
// goes with an event. ErrOverrun says that events were lost at that place, see
// Overrun, and ranging goes on; any other error is the last. However slow the
// reader is, the kernel does not wait for it.
//
// With net.netfilter.nf_conntrack_events=2, the default of Linux 6.1 and
// later, entries made before anybody listened, in any network namespace, send
// no events.
func (c *Conn) Events(ctx context.Context, opts *EventOptions) iter.Seq2[Event, error] {
	if opts == nil {
		opts = &EventOptions{}
	}
	cfg := nfnl.ListenConfig{Groups: opts.groups(), ReadBuffer: opts.ReadBuffer, Filter: opts.Filter.events(), Ready: opts.Ready}
	if cfg.ReadBuffer == 0 {
		cfg.ReadBuffer = defaultEventBuffer
	}
	return func(yield func(Event, error) bool) {
		var e Event
		for m, err := range c.nl.Listen(ctx, cfg) {
			if err == nil {
				err = e.decode(m)
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

// decode reads an event; Type is 0 of a message that is none.
func (e *Event) decode(m nfnl.Message) error {
	*e = Event{Type: eventType(m), Port: m.Port}
	if e.Type == 0 {
		return nil
	}
	if err := decodeFlow(m.Data, &e.Flow); err != nil {
		return err
	}
	e.At = eventTime(m.Data[nfgenmsgLen:])
	return nil
}

// eventTime looks for what no row of a dump has.
func eventTime(b []byte) Timestamp {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		if a, b = nfnl.Cut(b); a.Type == ctaEventTime {
			return Timestamp(a.U64(&bad))
		}
	}
	return 0
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
