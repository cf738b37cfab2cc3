package conntrack

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

var errNoFilter = errors.New("the filter chooses every entry: use Flush to empty the table")

// DeleteMatching removes the entries that pass the filter: those of a family, a
// zone, a mark. It is a dump, each row of which is checked against the filter,
// and DeleteAll of what passed: no kernel can take one filter for another, as
// kernels do when they are asked to delete by filter. Entries made meanwhile may
// stay.
//
// A nil filter and the zero one are refused: Flush empties a table.
func (c *Conn) DeleteMatching(ctx context.Context, filter *Filter, opts *DeleteOptions) (DeleteReport, error) {
	if filter == nil || reflect.ValueOf(*filter).IsZero() {
		return DeleteReport{}, opError("delete", errNoFilter)
	}
	var failed error
	report, err := c.DeleteAll(ctx, untilError(c.All(ctx, filter), &failed), opts)
	if err == nil {
		err = failed
	}
	return report, err
}

// untilError is a sequence up to its first error.
func untilError(flows iter.Seq2[Flow, error], failed *error) iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		for f, err := range flows {
			if err != nil {
				*failed = err
				return
			}
			if !yield(f) {
				return
			}
		}
	}
}

// Flush empties the table of the network namespace, of every family and zone, in
// one request. It is the only call that can. Every connection through a NAT or a
// stateful firewall there is cut, or has to be recognised anew.
func (c *Conn) Flush(ctx context.Context) error {
	err := c.nl.Do(ctx, encodeFlush(familyUnspec), nil)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EAFNOSUPPORT) {
		// Some old kernels want a family, and may take it for the one to empty.
		err = errors.Join(c.nl.Do(ctx, encodeFlush(familyIPv4), nil), c.nl.Do(ctx, encodeFlush(familyIPv6), nil))
	}
	return opError("flush", err)
}

// encodeFlush is a delete request without a tuple. Version 0 of struct nfgenmsg
// makes the kernel disregard the family (ctnetlink_del_conntrack).
func encodeFlush(family uint8) nfnl.Message {
	return nfnl.NewNetfilter(subsystem, opDelete, 0, family).Message()
}
