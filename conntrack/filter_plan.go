package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
)

// Plan tells where the parts of a filter are checked.
type Plan struct{ Parts []PlanPart }

// PlanPart is a part of a filter.
type PlanPart struct {
	// Expr is the part as ParseFilter reads it.
	Expr string
	// Place is where flows that do not match are left out.
	Place Place
	// Why says why it is not, or not known to be, the kernel.
	Why string

	push pushed // the part of the request that has it
}

// Place is where a part of a filter is checked.
type Place uint8

// The places. What the kernel checks is checked in Go again.
const (
	InGo         Place = iota // the kernel sends flows that do not match, and Go leaves them out
	InKernel                  // the kernel leaves them out
	PlaceUnknown              // the kernel was asked to, and nothing shows whether it does
)

// String returns "Go", "kernel" or "unknown".
func (p Place) String() string {
	switch p {
	case InKernel:
		return "kernel"
	case PlaceUnknown:
		return "unknown"
	}
	return "Go"
}

// String returns a line for each part: the part, the place and the reason. The
// Plan of a filter without parts is "every flow matches\n".
func (p Plan) String() string {
	if len(p.Parts) == 0 {
		return "every flow matches\n"
	}
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 8, 2, ' ', 0)
	for _, part := range p.Parts {
		line := part.Expr + "\t" + part.Place.String()
		if part.Why != "" {
			line += "\t" + part.Why
		}
		_, _ = fmt.Fprintln(w, line) // a strings.Builder takes all
	}
	_ = w.Flush()
	return s.String()
}

// Whole reports whether the kernel checks the whole filter.
func (p Plan) Whole() bool {
	for _, part := range p.Parts {
		if part.Place != InKernel {
			return false
		}
	}
	return true
}

// Explain tells which parts of the filter the kernel checks and which only Go
// does, and why. It finds out by trying: it asks for what cannot match and
// looks whether the kernel sends flows all the same, which takes a walk over
// the table, of which nothing is copied, for each part that the kernel might
// check. What was found is kept, so that the next Explain of the Conn is free.
// With a table that has no entries to tell by, a part is PlaceUnknown.
//
// Parts that others imply, as an address does its family, are told as well.
func (c *Conn) Explain(ctx context.Context, filter *Filter) (Plan, error) {
	plan := filter.plan()
	for i := range plan.Parts {
		if err := c.settle(ctx, &plan.Parts[i]); err != nil {
			return Plan{}, opError("explain", err)
		}
	}
	return plan, nil
}

// plan is the Plan in the hands of a kernel that knows all filters.
func (f *Filter) plan() Plan {
	if f == nil {
		return Plan{}
	}
	whole := *f
	whole.IPv4Only = f.IPv4Only || f.family() == familyIPv4
	whole.IPv6Only = f.IPv6Only || f.family() == familyIPv6
	whole.Proto = f.proto()
	var plan Plan
	for i := range options {
		o := &options[i]
		part := PlanPart{Expr: o.expr(&whole), Why: "the kernel has no filter for it"}
		if o.push != nil {
			part.push, part.Why = o.push(&whole)
		}
		if part.push != 0 {
			part.Place = InKernel
		}
		if part.Expr != "" {
			plan.Parts = append(plan.Parts, part)
		}
	}
	return plan
}

func pushes(part pushed) func(*Filter) (pushed, string) {
	return func(*Filter) (pushed, string) { return part, "" }
}

func pushesFamily(f *Filter) (pushed, string) {
	if f.family() == familyUnspec {
		return 0, "no flow is of both families"
	}
	return pushFamily, ""
}

func pushesStatus(f *Filter) (pushed, string) {
	if f.StatusSet&f.StatusUnset != 0 {
		return 0, "no bit is set and unset"
	}
	return pushStatus, ""
}

const wantsFamily = "the kernel wants a family with it: -f ipv4 or -f ipv6"

func pushesProto(f *Filter) (pushed, string) {
	if f.family() == familyUnspec {
		return 0, wantsFamily
	}
	return pushTuple, ""
}

func pushesAddr(f *Filter, p *netip.Prefix) (pushed, string) {
	switch {
	case !p.IsValid() || f.family() == familyUnspec:
		return 0, "no flow has such an address"
	case f.family() == familyIPv6:
		return 0, "many kernels send the others for an IPv6 address"
	case !whole(*p):
		return 0, "the kernel compares whole addresses, not prefixes"
	}
	return pushTuple, ""
}

func pushesPort(f *Filter, r *PortRange) (pushed, string) {
	switch {
	case !f.pushesPorts():
		return 0, "the kernel wants a protocol with it: -p tcp or -p udp"
	case f.family() == familyUnspec:
		return 0, wantsFamily
	case !r.single():
		return 0, "the kernel compares single ports, not ranges"
	}
	return pushTuple, ""
}

func neverReply[T any](*Filter, *T) (pushed, string) {
	return 0, "kernels before 5.16 compare the reply tuple with what was not asked"
}

func neverICMP(*Filter) (pushed, string) {
	return 0, "the kernel refuses the ICMP types it does not know"
}

// settle looks whether this kernel does what the plan hopes.
func (c *Conn) settle(ctx context.Context, part *PlanPart) error {
	if part.Place != InKernel || part.push == pushFamily {
		return nil
	}
	if err := c.try(ctx, part.push); err != nil {
		return err
	}
	switch push := uint32(part.push); {
	case c.kernel.honours.Load()&push != 0:
	case c.kernel.refuses.Load()&push != 0:
		part.Place, part.Why = InGo, "this kernel refuses the filter"
	case c.kernel.ignores.Load()&push != 0:
		part.Place, part.Why = InGo, "this kernel ignores the filter"
	default:
		part.Place, part.Why = PlaceUnknown, "the table has no entries to tell by"
	}
	return nil
}

// try finds out about a part, unless that is known or the table is empty. The
// table is looked at before and after: only if there was something to send all
// along does an empty answer say that the kernel filters.
func (c *Conn) try(ctx context.Context, part pushed) error {
	if uint32(part)&(c.kernel.honours.Load()|c.kernel.refuses.Load()|c.kernel.ignores.Load()) != 0 {
		return nil
	}
	sample, ok, err := c.first(ctx, nil)
	if err != nil || !ok {
		return err
	}
	probe, rest := probeFor(part, &sample)
	sent, err := c.sendsOthers(ctx, &probe, part)
	if part.blame(err) == part {
		c.kernel.refuses.Or(uint32(part))
		return nil
	}
	if err != nil {
		return err
	}
	if sent {
		c.kernel.ignores.Or(uint32(part))
		return nil
	}
	if _, ok, err = c.first(ctx, &rest); err == nil && ok {
		c.kernel.honours.Or(uint32(part))
	}
	return err
}

// probeFor returns a filter of one part, with what that part cannot do without,
// that the sample does not match, and a filter of entries that it leaves out.
func probeFor(part pushed, sample *Flow) (probe, rest Filter) {
	const noZone = 0xfff1 // as good as any; see sendsOthers
	switch part {
	case pushMark:
		return Filter{Mark: 1, MarkMask: 2}, Filter{}
	case pushStatus:
		return Filter{StatusUnset: Confirmed}, Filter{} // all that a dump lists are
	case pushZone:
		zone := uint16(noZone)
		if sample.zone() == zone {
			zone++
		}
		return Filter{Zone: zone}, Filter{InZone: true, Zone: sample.zone()}
	}
	rest = Filter{IPv4Only: sample.Original.Src.Is4(), IPv6Only: !sample.Original.Src.Is4()}
	probe = rest
	probe.Proto = 255 // IPPROTO_RAW: of no packet
	return probe, rest
}

// sendsOthers asks for a dump and reports whether a flow comes that does not
// match. The zone's probe can match: the walk then meets others all the same if
// the kernel ignores it.
func (c *Conn) sendsOthers(ctx context.Context, probe *Filter, part pushed) (bool, error) {
	var flow Flow
	for m, err := range c.nl.Dump(ctx, probe.request(opGet, part|probe.pushed()&pushFamily)) {
		if err == nil {
			err = decodeFlow(m.Data, &flow)
		}
		if err != nil || !probe.Match(&flow) {
			return true, err
		}
	}
	return false, nil
}

// first returns the first flow of a dump, if it has one.
func (c *Conn) first(ctx context.Context, filter *Filter) (Flow, bool, error) {
	for flow, err := range c.All(ctx, filter) {
		if op, ok := errors.AsType[*OpError](err); ok {
			err = op.Err
		}
		return flow, err == nil, err
	}
	return Flow{}, false, nil
}
