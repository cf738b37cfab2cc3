package conntrack

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Create makes an entry. Original, Reply and Timeout (1 s or more) are
// required. Zones, Mark, TCP and the details are taken as they are, except the
// security context; of Status, SeenReply, Assured, FixedTimeout, Helper, SrcNAT
// and DstNAT. The rest (ID, Use, counters, timestamps) is the kernel's to give. An
// entry of the same tuple and zone is fs.ErrExist.
//
// Packets are translated as the tuples say where Status has SrcNAT or DstNAT,
// which must agree with them, and the namespace has a NAT chain, be it empty.
// Otherwise they pass as they are; the answers to them are then no packets of the
// entry, whose Reply is another tuple, and Linux drops them, because the entry
// they would make clashes with this one.
//
// Details.Helper must be one that the kernel has for the protocol, or the error
// is errors.ErrUnsupported. Details.Master must be in the table, in the same
// zone, or the error is fs.ErrNotExist; the kernel then sets Expected. Labels
// take room that entries have only while some rule uses labels: without, the
// error is ENOSPC and the entry, which the kernel makes nevertheless, is taken
// back.
func (c *Conn) Create(ctx context.Context, flow Flow) error {
	req, err := encodeCreate(&flow)
	if err == nil {
		err = c.nl.Do(ctx, req, nil)
	}
	if err == nil && !flow.Details().Labels.IsZero() {
		err = c.keepLabels(ctx, &flow)
	}
	return opError("create", err)
}

// keepLabels takes the entry back if it was made without its labels:
// ctnetlink_new_conntrack does not tell.
func (c *Conn) keepLabels(ctx context.Context, f *Flow) error {
	made, err := c.lookup(ctx, f)
	if err != nil || made.Details().Labels == f.Details().Labels {
		return err
	}
	err = fmt.Errorf("labels: %w: no rule uses labels, so entries have no room for them", syscall.ENOSPC)
	return errors.Join(err, c.Delete(ctx, made))
}

const (
	// settable are the bits that a request may set.
	settable = SeenReply | Assured | FixedTimeout | Helper
	natted   = SrcNAT | DstNAT
)

// encodeCreate asks for a new entry.
func encodeCreate(f *Flow) (nfnl.Message, error) {
	if err := f.checkCreate(); err != nil {
		return nfnl.Message{}, err
	}
	b := nfnl.NewNetfilter(subsystem, opNew, nfnl.Create|nfnl.Exclude, f.Original.family())
	f.Original.encode(b, ctaTupleOrig, f.OriginalZone)
	f.encodeReply(b)
	if f.Zone != 0 {
		b.U16(ctaZone, f.Zone)
	}
	b.U32(ctaStatus, uint32(f.Status&settable|Confirmed)) // EBUSY without it
	b.U32(ctaTimeout, uint32(f.Timeout/time.Second))
	if f.Has(FieldMark) || f.Mark != 0 {
		b.U32(ctaMark, f.Mark)
	}
	if f.Original.Proto == ProtoTCP {
		f.TCP.encode(b)
	}
	d := f.Details()
	d.encode(b, f.Original.Proto)
	return b.Message(), nil
}

func (f *Flow) checkCreate() error {
	for _, t := range []Tuple{f.Original, f.Reply} {
		if err := t.check(); err != nil {
			return err
		}
	}
	if f.Timeout < time.Second || f.Timeout > math.MaxUint32*time.Second {
		return fmt.Errorf("timeout %v: want 1s to %v", f.Timeout, math.MaxUint32*time.Second)
	}
	if err := f.checkNAT(); err != nil {
		return err
	}
	d := f.Details()
	return d.check()
}

// checkNAT compares the status with what the tuples say, where the status says
// something.
func (f *Flow) checkNAT() error {
	have := Status(0)
	if _, ok := f.SourceNAT(); ok {
		have |= SrcNAT
	}
	if _, ok := f.DestinationNAT(); ok {
		have |= DstNAT
	}
	if want := f.Status & natted; want != 0 && want != have {
		return fmt.Errorf("status says %v, the tuples %v", want, have)
	}
	return nil
}

func (d *Details) check() error {
	if d.Master != (Tuple{}) {
		if err := d.Master.check(); err != nil {
			return fmt.Errorf("master: %w", err)
		}
	}
	return checkHelper(d.Helper)
}

func checkHelper(name string) error {
	const longest = 15 // NF_CT_HELPER_NAME_LEN with its NUL is 16
	if len(name) > longest || strings.Contains(name, "\x00") {
		return fmt.Errorf("helper %q: want a name of at most %d bytes, without NUL", name, longest)
	}
	return nil
}

// enum ctattr_nat, ctattr_protonat
const (
	ctaNATDst = 13 // CTA_NAT_DST
	ctaNATSrc = 6  // CTA_NAT_SRC

	ctaNATv4Min = 1 // CTA_NAT_V4_MINIP
	ctaNATProto = 3 // CTA_NAT_PROTO
	ctaNATv6Min = 4 // CTA_NAT_V6_MINIP

	ctaProtoNATPortMin = 1 // CTA_PROTONAT_PORT_MIN
)

// encodeReply appends the reply tuple. With NAT it is that of the entry before
// translation: the kernel makes the translated one of it, and marks the entry as
// translated only if that changes something (nf_nat_setup_info).
func (f *Flow) encodeReply(b *nfnl.Builder) {
	if f.Status&natted == 0 {
		f.Reply.encode(b, ctaTupleReply, f.ReplyZone)
		return
	}
	f.Original.Invert().encode(b, ctaTupleReply, f.ReplyZone)
	to := f.Reply.Invert()
	if f.Status&SrcNAT != 0 {
		to.encodeNAT(b, ctaNATSrc, to.Src.AsSlice(), to.source().Port())
	}
	if f.Status&DstNAT != 0 {
		to.encodeNAT(b, ctaNATDst, to.Dst.AsSlice(), to.destination().Port())
	}
}

// encodeNAT appends a range of one address and port: the maxima default to the
// minima.
func (t Tuple) encodeNAT(b *nfnl.Builder, typ uint16, addr []byte, port uint16) {
	first := uint16(ctaNATv4Min)
	if t.Src.Is6() {
		first = ctaNATv6Min
	}
	b.Nested(typ, func() {
		b.Bytes(first, addr)
		if port != 0 {
			b.Nested(ctaNATProto, func() { b.U16(ctaProtoNATPortMin, port) })
		}
	})
}
