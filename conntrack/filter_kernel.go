package conntrack

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// pushed is a set of the parts of a dump request that filter in the kernel.
//
// Each is sent only as far as every kernel that takes it checks it rightly: a
// kernel that lets too much pass does no harm, as all is checked again, but
// one that lets too little pass would hide flows.
type pushed uint8

const (
	// pushFamily is nfgenmsg's. All kernels check it.
	pushFamily pushed = 1 << iota
	// pushMark is CTA_MARK with CTA_MARK_MASK, which kernels before 5.8 want
	// together. Kernels without marks ignore it.
	pushMark
	// pushStatus is CTA_STATUS with CTA_STATUS_MASK, since Linux 5.15. Older
	// kernels ignore it.
	pushStatus
	// pushZone is CTA_ZONE, since Linux 6.8. Older kernels ignore it, and
	// those without zones refuse any but 0.
	pushZone
	// pushTuple is CTA_FILTER with parts of CTA_TUPLE_ORIG, since Linux 5.8:
	// see tupleFlags. Older kernels ignore it.
	pushTuple
)

// Bits of CTA_FILTER_ORIG_FLAGS (nf_internals.h). Unlike all other values of
// ctnetlink they are in the host's byte order.
const (
	ctaFilterOrigFlags = 1 // CTA_FILTER_ORIG_FLAGS

	filterSrc     = 1 << 0 // CTA_FILTER_F_CTA_IP_SRC
	filterDst     = 1 << 1 // CTA_FILTER_F_CTA_IP_DST
	filterProto   = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	filterSrcPort = 1 << 4 // CTA_FILTER_F_CTA_PROTO_SRC_PORT
	filterDstPort = 1 << 5 // CTA_FILTER_F_CTA_PROTO_DST_PORT
)

// pushed is what of f the kernel can be asked for.
func (f *Filter) pushed() pushed {
	if f == nil {
		return 0
	}
	var parts pushed
	for _, p := range []struct {
		asked bool
		part  pushed
	}{
		{f.family() != familyUnspec, pushFamily},
		{f.markMask() != 0, pushMark},
		{f.StatusSet|f.StatusUnset != 0 && f.StatusSet&f.StatusUnset == 0, pushStatus},
		{f.asksZone(), pushZone},
		{f.tupleFlags() != 0, pushTuple},
	} {
		if p.asked {
			parts |= p.part
		}
	}
	return parts
}

// family is the one that f asks for. It is none in particular if f asks for
// both, which nothing matches.
func (f *Filter) family() uint8 {
	is4, is6 := f.IPv4Only, f.IPv6Only
	for _, p := range [...]netip.Prefix{f.Src, f.Dst, f.ReplySrc, f.ReplyDst, f.Addr, f.TranslatedTo, f.SourceNATTo, f.DestinationNATTo} {
		addr := unmapped(p).Addr()
		is4, is6 = is4 || addr.Is4(), is6 || addr.Is6()
	}
	switch {
	case is4 == is6:
		return familyUnspec
	case is4:
		return familyIPv4
	}
	return familyIPv6
}

// proto is the protocol that f asks for, if only by a state of it.
func (f *Filter) proto() Proto {
	switch {
	case f.Proto != 0:
		return f.Proto
	case f.TCPStates != 0:
		return ProtoTCP
	case f.SCTPStates != 0:
		return ProtoSCTP
	}
	return 0
}

// tupleFlags are the parts of the original tuple that the kernel compares
// (ctnetlink_filter_match_tuple). It wants a family, a protocol with the ports,
// and whole values.
//
// Left to Go are the addresses of IPv6, whose comparison is inverted in
// kernels before 6.12.117 and those of the same age; the reply tuple, which
// kernels before 5.16 read by the original's flags (ctnetlink_alloc_filter),
// so that they compare with what was not sent; ports of other protocols than
// TCP and UDP, which the kernel does not look at; and ICMP's values, of which
// it refuses the types it does not know.
func (f *Filter) tupleFlags() uint32 {
	family, flags := f.family(), uint32(0)
	for _, p := range []struct {
		exact bool
		flag  uint32
	}{
		{family == familyIPv4 && whole(f.Src), filterSrc},
		{family == familyIPv4 && whole(f.Dst), filterDst},
		{family != familyUnspec && f.proto() != 0, filterProto},
		{family != familyUnspec && f.pushesPorts() && f.SrcPort.single(), filterSrcPort},
		{family != familyUnspec && f.pushesPorts() && f.DstPort.single(), filterDstPort},
	} {
		if p.exact {
			flags |= p.flag
		}
	}
	return flags
}

// whole reports whether p is one IPv4 address.
func whole(p netip.Prefix) bool {
	p = unmapped(p)
	return p.Addr().Is4() && p.IsSingleIP()
}

func (r PortRange) single() bool { return r != PortRange{} && r.First == r.last() }

func (f *Filter) pushesPorts() bool { return f.proto() == ProtoTCP || f.proto() == ProtoUDP }

// request asks for a dump with those parts of f.
func (f *Filter) request(op uint8, parts pushed) nfnl.Message {
	family := uint8(familyUnspec)
	if parts&pushFamily != 0 {
		family = f.family()
	}
	b := nfnl.NewNetfilter(subsystem, op, 0, family)
	if parts&pushMark != 0 {
		b.U32(ctaMark, f.Mark)
		b.U32(ctaMarkMask, f.markMask())
	}
	if parts&pushStatus != 0 { // a status of 0 needs its mask
		b.U32(ctaStatus, uint32(f.StatusSet))
		b.U32(ctaStatusMask, uint32(f.StatusSet|f.StatusUnset))
	}
	if parts&pushZone != 0 {
		b.U16(ctaZone, f.Zone)
	}
	if parts&pushTuple != 0 {
		f.encodeTuple(b)
	}
	return b.Message()
}

func (f *Filter) encodeTuple(b *nfnl.Builder) {
	flags := f.tupleFlags()
	b.Nested(ctaFilter, func() { b.HostU32(ctaFilterOrigFlags, flags) })
	b.Nested(ctaTupleOrig, func() {
		if flags&(filterSrc|filterDst) != 0 {
			b.Nested(ctaTupleIP, func() {
				if flags&filterSrc != 0 {
					b.Bytes(ctaIPv4Src, unmapped(f.Src).Addr().AsSlice())
				}
				if flags&filterDst != 0 {
					b.Bytes(ctaIPv4Dst, unmapped(f.Dst).Addr().AsSlice())
				}
			})
		}
		if flags&filterProto != 0 {
			b.Nested(ctaTupleProto, func() {
				b.U8(ctaProtoNum, uint8(f.proto()))
				if flags&filterSrcPort != 0 {
					b.U16(ctaProtoSrcPort, f.SrcPort.First)
				}
				if flags&filterDstPort != 0 {
					b.U16(ctaProtoDstPort, f.DstPort.First)
				}
			})
		}
	})
}

func dumpRequest(filter *Filter) nfnl.Message { return filter.request(opGet, filter.pushed()) }

// abilities is what a Conn has learnt of its kernel's filters, as sets of
// pushed.
type abilities struct{ honours, ignores, refuses atomic.Uint32 }

// rows dumps with as much of the filter as the kernel takes. One that refuses
// a part does so before the first row (ctnetlink_start): it is then asked for
// less, and what it refuses is not sent again.
func (c *Conn) rows(ctx context.Context, f *Filter) iter.Seq2[nfnl.Message, error] {
	return func(yield func(nfnl.Message, error) bool) {
		parts := f.pushed() &^ pushed(c.kernel.refuses.Load())
		for left := pushed(0); ; { // out of the request
			refused, first := pushed(0), true
			for m, err := range c.nl.Dump(ctx, f.request(opGet, parts)) {
				if first {
					first = false
					if refused = parts.blame(err); refused != 0 {
						break
					}
					if err == nil {
						c.kernel.refuses.Or(uint32(left))
					}
				}
				if !yield(m, err) {
					return
				}
			}
			if refused == 0 {
				return
			}
			parts, left = parts&^refused, refused
		}
	}
}

// blame is the part to leave out after a refusal: the youngest, as the kernel
// does not say which it is.
func (p pushed) blame(err error) pushed {
	if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return 0
	}
	for part := pushTuple; part > pushFamily; part >>= 1 {
		if p&part != 0 {
			return part
		}
	}
	return 0
}
