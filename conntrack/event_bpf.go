package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// program is a socket filter in the making: checks one after the other, each
// of which drops the event or leaves it to the next. An event passes that all
// leave alone, and so does one that lacks what a check looks at: what passes is
// checked again in Go.
type program []nfnl.Instruction

const (
	familyAt     = 16 // struct nlmsghdr; nfgen_family comes first in struct nfgenmsg
	attributesAt = familyAt + nfgenmsgLen
	valueAt      = 4 // struct nlattr
)

// events compiles the parts of the filter that the kernel can check of an
// event; none is nil. Each event is a datagram of its own.
func (f *Filter) events() []nfnl.Instruction {
	if f == nil {
		return nil
	}
	var p program
	switch f.family() {
	case familyIPv4:
		p.notFamily(familyIPv6)
	case familyIPv6:
		p.notFamily(familyIPv4)
	}
	if proto := f.proto(); proto != 0 {
		p.check(path{ctaTupleOrig, ctaTupleProto, ctaProtoNum}, nfnl.BPFByte, masked{0, 0xff, uint32(proto)})
	}
	p.prefix(unmapped(f.Src), ctaIPv4Src, ctaIPv6Src)
	p.prefix(unmapped(f.Dst), ctaIPv4Dst, ctaIPv6Dst)
	p.port(f.SrcPort, ctaProtoSrcPort)
	p.port(f.DstPort, ctaProtoDstPort)
	if bits := f.StatusSet | f.StatusUnset; bits != 0 {
		p.check(path{ctaStatus}, nfnl.BPFWord, masked{0, uint32(bits), uint32(f.StatusSet)})
	}
	if mask := f.markMask(); mask != 0 {
		p.check(path{ctaMark}, nfnl.BPFWord, masked{0, mask, f.Mark})
	}
	if p == nil {
		return nil
	}
	return append(p, nfnl.Instruction{Code: nfnl.BPFReturn, K: nfnl.BPFReturnAll})
}

// path is where an attribute is: its type, after those of the ones around it.
type path []uint16

// masked is a condition on a value: what is at an offset has a value under a
// mask.
type masked struct{ at, mask, value uint32 }

// notFamily drops the events of a family.
func (p *program) notFamily(family uint8) {
	*p = append(*p,
		nfnl.Instruction{Code: nfnl.BPFByteAt, K: familyAt},
		nfnl.Instruction{Code: nfnl.BPFEqual, K: uint32(family), Jf: 1},
		drop)
}

var drop = nfnl.Instruction{Code: nfnl.BPFReturn, K: nfnl.BPFReturnNone}

// prefix drops the events whose address is not in the prefix, among those of
// its family. Go is left to see that an invalid one holds nothing.
func (p *program) prefix(in netip.Prefix, v4, v6 uint16) {
	if !in.IsValid() {
		return
	}
	typ := v6
	if in.Addr().Is4() {
		typ = v4
	}
	var words []masked
	addr := in.Masked().Addr().AsSlice()
	for at := 0; at*8 < in.Bits(); at += 4 {
		mask := ^uint32(0) << max(0, at*8+32-in.Bits())
		words = append(words, masked{uint32(at), mask, binary.BigEndian.Uint32(addr[at:])})
	}
	if len(words) > 0 {
		p.check(path{ctaTupleOrig, ctaTupleIP, typ}, nfnl.BPFWord, words...)
	}
}

// port drops the events of another port. Go is left to look at ranges.
func (p *program) port(r PortRange, typ uint16) {
	if r.single() {
		p.check(path{ctaTupleOrig, ctaTupleProto, typ}, nfnl.BPFHalf, masked{0, 0xffff, uint32(r.First)})
	}
}

// check drops the events that have the attribute, and not as the conditions
// want it. load is the size of what they look at.
func (p *program) check(where path, load uint16, conditions ...masked) {
	const leave = 0xff // jumps to the end of the check, until it is known
	b := program{{Code: nfnl.BPFLoad, K: attributesAt}}
	find := uint32(nfnl.BPFFind)
	for _, typ := range where {
		b = append(b,
			nfnl.Instruction{Code: nfnl.BPFLoadX, K: uint32(typ)},
			nfnl.Instruction{Code: nfnl.BPFCall, K: find},
			nfnl.Instruction{Code: nfnl.BPFEqual, K: 0, Jt: leave})
		find = nfnl.BPFFindNested
	}
	b = append(b, nfnl.Instruction{Code: nfnl.BPFToX})
	for _, c := range conditions {
		b = append(b,
			nfnl.Instruction{Code: load, K: valueAt + c.at},
			nfnl.Instruction{Code: nfnl.BPFAnd, K: c.mask},
			nfnl.Instruction{Code: nfnl.BPFEqual, K: c.value, Jt: 1},
			drop)
	}
	for i := range b {
		if b[i].Jt == leave {
			b[i].Jt = uint8(len(b) - i - 1)
		}
	}
	*p = append(*p, b...)
}
