package conntrack

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

const opGetZero = 3 // IPCTNL_MSG_CT_GET_CTRZERO

// AllZeroing yields as All does, and the kernel sets the counters of each entry
// that it lists to zero, at once with reading them: what is counted between two
// calls is told once. See net.netfilter.nf_conntrack_acct.
//
// The kernel lists some hundred entries ahead of the loop: breaking off, and
// any error, loses what these had counted.
//
// An entry that a filter leaves out must not be touched. A filter with a part
// that only Go can check, or that this kernel ignores, is therefore refused
// before anything is asked for (errors.ErrUnsupported); Explain tells which it
// is. Every flow that the kernel lists is yielded.
func (c *Conn) AllZeroing(ctx context.Context, filter *Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		known, err := c.mayZero(ctx, filter)
		if err != nil {
			yield(Flow{}, opError("zero counters", err))
			return
		}
		if !known {
			return
		}
		var flow Flow
		for m, err := range c.nl.Dump(ctx, filter.request(opGetZero, filter.pushed())) {
			if err == nil {
				err = decodeFlow(m.Data, &flow)
			}
			if err != nil {
				yield(Flow{}, opError("zero counters", err))
				return
			}
			if !yield(flow, nil) {
				return
			}
		}
	}
}

// mayZero makes sure that the kernel leaves out what the filter leaves out. It
// is not known of a table that was empty: then there is nothing to zero.
func (c *Conn) mayZero(ctx context.Context, filter *Filter) (known bool, err error) {
	plan, err := c.Explain(ctx, filter)
	if op, ok := errors.AsType[*OpError](err); ok {
		return false, op.Err
	}
	known = true
	for _, part := range plan.Parts {
		switch part.Place {
		case InGo:
			return false, fmt.Errorf("%s is checked in Go (%s), and the kernel would zero what it leaves out: %w",
				part.Expr, part.Why, errors.ErrUnsupported)
		case PlaceUnknown:
			known = false
		}
	}
	return known, nil
}
