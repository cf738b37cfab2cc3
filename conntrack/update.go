package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Change is what Update does to an entry. The zero Change changes nothing.
type Change struct {
	// Timeout is the time left from now on, in whole seconds, 1 s to about 136
	// years; 0 leaves it. The next packet sets that of its state again, unless
	// SetStatus has FixedTimeout.
	Timeout time.Duration

	// Mark and MarkMask set the bits of MarkMask to those of Mark. A mask of 0
	// leaves the mark if Mark is 0, and means all bits if it is not: the mark
	// is cleared by a mask of ^0.
	Mark, MarkMask uint32

	// Labels and LabelsMask do the same with the labels. The entry must have
	// room for labels, as those have that were made while a rule used labels:
	// the error is ENOSPC otherwise.
	Labels, LabelsMask Labels

	// SetStatus are bits to add: SeenReply, Assured, FixedTimeout. The kernel
	// clears none, and sets no others.
	SetStatus Status

	// Helper confirms the helper that the entry has; the kernel attaches none
	// to an entry made without one (errors.ErrUnsupported), and does not
	// replace one (EBUSY). RemoveHelper detaches it for good, along with the
	// connections it expects.
	Helper       string
	RemoveHelper bool

	// TCP changes what the tracker knows of a TCP connection.
	TCP TCPChange
}

// TCPChange is a change of TCPInfo; the zero one changes nothing. The next packet
// makes its own of it.
type TCPChange struct {
	// State is the new state; TCPNone leaves it.
	State TCPState
	// OriginalFlags sets the bits of OriginalMask, and ReplyFlags those of
	// ReplyMask: TCPLiberal in both makes the tracker accept packets out of
	// window.
	OriginalFlags, OriginalMask uint8
	ReplyFlags, ReplyMask       uint8
}

// Flags of a direction of a TCP connection for TCPInfo and TCPChange.
const (
	TCPWindowScale        uint8 = 1 << iota // IP_CT_TCP_FLAG_WINDOW_SCALE
	TCPSackPermitted                        // IP_CT_TCP_FLAG_SACK_PERM
	TCPCloseInit                            // IP_CT_TCP_FLAG_CLOSE_INIT: it sent the first FIN
	TCPLiberal                              // IP_CT_TCP_FLAG_BE_LIBERAL: not to be checked against the window
	TCPDataUnacknowledged                   // IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED
	TCPMaxAckSet                            // IP_CT_TCP_FLAG_MAXACK_SET
)

// Update changes one entry: the one that has the flow's original tuple, zone and
// ID. An entry that is gone, or was replaced by one of another ID, is
// fs.ErrNotExist, and nothing is made or changed.
//
// The kernel compares no ID when it updates. So the entry is looked up first:
// one that takes its place between the two requests, some 10 µs, is changed in
// its stead.
//
// The kernel makes the changes in the order helper, timeout, status, TCP, mark,
// labels, and stops at the first it refuses: those before it stay made. A timeout
// that is fixed (FixedTimeout) and a TCP state it does not know are refused with
// an error that says so.
func (c *Conn) Update(ctx context.Context, flow Flow, change Change) error {
	return opError("update", c.update(ctx, &flow, &change))
}

func (c *Conn) update(ctx context.Context, f *Flow, change *Change) error {
	if err := change.check(f); err != nil {
		return err
	}
	for last := Status(0); ; {
		now, err := c.verify(ctx, f)
		if err != nil || *change == (Change{}) {
			return err
		}
		req, err := encodeUpdate(f, change, now.Status)
		if err != nil {
			return err
		}
		err = c.nl.Do(ctx, req, nil)
		// A packet may have set a status bit meanwhile, which must not be cleared.
		if !errors.Is(err, syscall.EBUSY) || change.SetStatus == 0 || now.Status == last {
			return change.explain(err)
		}
		last = now.Status
	}
}

// verify gets the entry and compares its ID.
func (c *Conn) verify(ctx context.Context, f *Flow) (Flow, error) {
	if !f.Has(FieldID) {
		return Flow{}, errNoID
	}
	now, err := c.lookup(ctx, f)
	if err == nil && now.ID != f.ID {
		err = fmt.Errorf("%w: another entry, of ID %d, has the tuple", fs.ErrNotExist, now.ID)
	}
	return now, err
}

// check says why the kernel could not do it, or would do something else.
func (ch *Change) check(f *Flow) error {
	switch {
	case ch.Timeout != 0 && (ch.Timeout < time.Second || ch.Timeout > math.MaxUint32*time.Second):
		return fmt.Errorf("timeout %v: want 1s to %v", ch.Timeout, math.MaxUint32*time.Second)
	case ch.MarkMask != 0 && ch.Mark&^ch.MarkMask != 0:
		return fmt.Errorf("mark %#x has bits outside its mask %#x", ch.Mark, ch.MarkMask)
	case !ch.LabelsMask.IsZero() && !ch.LabelsMask.HasAll(ch.Labels):
		return fmt.Errorf("labels %v: some are outside their mask %v", ch.Labels, ch.LabelsMask)
	case ch.SetStatus&^(SeenReply|Assured|FixedTimeout) != 0:
		return fmt.Errorf("status %v: only SEEN_REPLY, ASSURED and FIXED_TIMEOUT can be set", ch.SetStatus)
	case ch.RemoveHelper && ch.Helper != "":
		return fmt.Errorf("helper %q is both to be set and removed", ch.Helper)
	case ch.TCP.OriginalFlags&^ch.TCP.OriginalMask|ch.TCP.ReplyFlags&^ch.TCP.ReplyMask != 0:
		return fmt.Errorf("TCP flags %#x, %#x are outside their masks %#x, %#x",
			ch.TCP.OriginalFlags, ch.TCP.ReplyFlags, ch.TCP.OriginalMask, ch.TCP.ReplyMask)
	case ch.TCP != TCPChange{} && f.Original.Proto != ProtoTCP:
		return fmt.Errorf("TCP change of a flow of %v", f.Original.Proto)
	}
	return checkHelper(ch.Helper)
}

// explain adds what the errno does not tell. EPERM is not for lack of privilege:
// the look-up would have failed of it.
func (ch *Change) explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("the timeout is fixed (FIXED_TIMEOUT): %w", errors.ErrUnsupported)
	case errors.Is(err, syscall.EBUSY) && ch.Helper != "":
		return fmt.Errorf("helper %q: %w: the entry has another one, or is the expected connection of one", ch.Helper, err)
	case errors.Is(err, syscall.EBUSY) && ch.RemoveHelper:
		return fmt.Errorf("remove helper: %w: the entry is the expected connection of one", err)
	case errors.Is(err, errors.ErrUnsupported) && ch.Helper != "":
		return fmt.Errorf("helper %q: %w: the kernel has none of this name for the protocol, or the entry was made without one", ch.Helper, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("labels: %w: the entry was made while no rule used labels, and has no room for them", err)
	case ch.TCP.State != TCPNone && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ERANGE)): // since 6.18
		return fmt.Errorf("TCP state %v: %w", ch.TCP.State, err)
	}
	return err
}

// encodeUpdate asks to change an entry whose status is now as given.
func encodeUpdate(f *Flow, ch *Change, now Status) (nfnl.Message, error) {
	b := new(nfnl.Builder)
	if _, err := encodeEntry(b, opNew, f); err != nil {
		return nfnl.Message{}, err
	}
	ch.encode(b, now)
	return b.Message(), nil
}

func (ch *Change) encode(b *nfnl.Builder, now Status) {
	if ch.Helper != "" || ch.RemoveHelper {
		encodeHelper(b, ch.Helper)
	}
	if ch.Timeout != 0 {
		b.U32(ctaTimeout, uint32(ch.Timeout/time.Second))
	}
	if ch.SetStatus != 0 {
		b.U32(ctaStatus, uint32(now|ch.SetStatus))
	}
	if ch.TCP != (TCPChange{}) {
		ch.TCP.encode(b)
	}
	ch.encodeMark(b)
	ch.encodeLabels(b)
}

// encodeMark gives the mask too: the kernel computes old &^ mask ^ mark.
func (ch *Change) encodeMark(b *nfnl.Builder) {
	mask := ch.MarkMask
	if mask == 0 && ch.Mark == 0 {
		return
	}
	if mask == 0 {
		mask = ^uint32(0)
	}
	b.U32(ctaMark, ch.Mark)
	b.U32(ctaMarkMask, mask)
}

func (ch *Change) encodeLabels(b *nfnl.Builder) {
	mask := ch.LabelsMask
	if mask.IsZero() && ch.Labels.IsZero() {
		return
	}
	if mask.IsZero() {
		mask = allLabels
	}
	b.Bytes(ctaLabels, ch.Labels[:])
	b.Bytes(ctaLabelsMask, mask[:])
}

// allLabels is the mask of all.
var allLabels = Labels(bytes.Repeat([]byte{0xff}, len(Labels{})))

func (t *TCPChange) encode(b *nfnl.Builder) {
	b.Nested(ctaProtoinfo, func() {
		b.Nested(ctaProtoinfoTCP, func() {
			if t.State != TCPNone {
				b.U8(ctaTCPState, uint8(t.State))
			}
			b.Bytes(ctaTCPFlagsOrig, []byte{t.OriginalFlags, t.OriginalMask})
			b.Bytes(ctaTCPFlagsReply, []byte{t.ReplyFlags, t.ReplyMask})
		})
	})
}
