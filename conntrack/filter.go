package conntrack

import (
	"net/netip"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Filter chooses flows: those that all its parts agree to. The zero Filter, as
// a nil one, chooses all. What the kernel can check safely is checked there,
// and everything is checked again here, because kernels ignore the filters
// they do not know.
type Filter struct {
	// Proto is the transport protocol; 0 is any.
	Proto Proto
	// IPv4Only and IPv6Only choose a family. The kernel checks it.
	IPv4Only, IPv6Only bool
	// StatusSet must all be set and StatusUnset all be unset: Unreplied flows
	// are those with StatusUnset: SeenReply. The kernel checks it from Linux
	// 5.15 on.
	StatusSet, StatusUnset Status
	// TCPStates is the set of TCP states that match, made by TCPStateSet; 0
	// is any, and any other than 0 leaves out what is not TCP.
	TCPStates TCPStates
	// Src and Dst hold the original direction's addresses; the zero Prefix
	// holds all, any other invalid one none.
	Src, Dst netip.Prefix
}

// TCPStates is a set of TCP states.
type TCPStates uint16

// TCPStateSet makes a set.
func TCPStateSet(states ...TCPState) TCPStates {
	var set TCPStates
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Match reports whether the flow passes. A flow that lacks a value the filter
// asks for does not.
func (f *Filter) Match(flow *Flow) bool {
	if f == nil {
		return true
	}
	t := &flow.Original
	switch {
	case f.Proto != 0 && t.Proto != f.Proto,
		f.IPv4Only && !t.Src.Is4(),
		f.IPv6Only && !t.Src.Is6(),
		f.StatusSet|f.StatusUnset != 0 && !flow.Has(FieldStatus),
		flow.Status&f.StatusSet != f.StatusSet,
		flow.Status&f.StatusUnset != 0,
		f.TCPStates != 0 && (!flow.Has(FieldTCP) || f.TCPStates&(1<<flow.TCP.State) == 0),
		f.Src != netip.Prefix{} && !f.Src.Contains(t.Src),
		f.Dst != netip.Prefix{} && !f.Dst.Contains(t.Dst):
		return false
	}
	return true
}

// family is what the dump request's nfgenmsg says.
func (f *Filter) family() uint8 {
	switch {
	case f == nil || f.IPv4Only == f.IPv6Only:
		return familyUnspec
	case f.IPv4Only:
		return familyIPv4
	}
	return familyIPv6
}

// encode adds the parts that the kernel checks. A status of 0 needs its mask.
func (f *Filter) encode(b *nfnl.Builder) {
	if f == nil || f.StatusSet|f.StatusUnset == 0 {
		return
	}
	b.U32(ctaStatus, uint32(f.StatusSet))
	b.U32(ctaStatusMask, uint32(f.StatusSet|f.StatusUnset))
}
