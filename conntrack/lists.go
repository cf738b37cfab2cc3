package conntrack

import (
	"context"
	"iter"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	opGetDying       = 6 // IPCTNL_MSG_CT_GET_DYING
	opGetUnconfirmed = 7 // IPCTNL_MSG_CT_GET_UNCONFIRMED
)

// Dying yields entries that have left the table but still exist. From Linux
// 5.19 on, these are those whose destroy event could not be delivered and is
// being sent again, which the kernel does only for listeners that asked for it
// (NETLINK_BROADCAST_ERROR, as conntrackd does) and whose buffer is full: on
// most hosts there is none. Earlier kernels list all that are about to be
// freed. Either way they count in Usage.Count.
func (c *Conn) Dying(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, opGetDying, "dying")
}

// Unconfirmed yields entries of packets that are under way, before they are put
// into the table. From Linux 5.19 on the kernel keeps no list of them, and the
// answer is always empty.
func (c *Conn) Unconfirmed(ctx context.Context) iter.Seq2[Flow, error] {
	return c.list(ctx, opGetUnconfirmed, "unconfirmed")
}

func (c *Conn) list(ctx context.Context, list uint8, op string) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		var flow Flow
		for m, err := range c.nl.Dump(ctx, nfnl.NewNetfilter(subsystem, list, 0, familyUnspec).Message()) {
			if err == nil {
				err = decodeFlow(m.Data, &flow)
			}
			if err != nil {
				yield(Flow{}, opError(op, err))
				return
			}
			if !yield(flow, nil) {
				return
			}
		}
	}
}
