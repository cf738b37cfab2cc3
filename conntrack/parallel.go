package conntrack

import (
	"context"
	"iter"
	"runtime"
	"slices"
	"sync"
)

// Parallel yields what All yields, in another order and in little more than
// half the time: as the kernel takes nearly all of the time of a dump, two
// halves of the table are dumped at once, on two sockets. It takes a second
// processor, and a tenth more processor time than All.
//
// The halves are the two families, or the flows with a bit of the status or of
// the mark and those without: whichever the first 1,024 flows show to be the
// most even. Where the smaller half is less than a tenth, as in a table of IPv4
// alone whose entries all have the same status and mark, and in tables of less
// than 16,384 entries, one socket is read.
//
// Parallel is approximate as All is. What is more, a flow may be missed or come
// twice if its status bit changes during the walk.
//
// Kernels before 5.15 know no filter by status. Each flow still comes once, but
// it takes the time of All, and twice the processor time.
func (c *Conn) Parallel(ctx context.Context, filter *Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		if runtime.GOMAXPROCS(0) == 1 || c.entries(ctx) < smallTable {
			c.All(ctx, filter)(yield)
			return
		}
		c.divided(ctx, filter, yield)
	}
}

// smallTable is how many entries take less time than they take to divide.
const smallTable = 1 << 14

// divided looks at the beginning of a dump to choose the halves, and dumps
// them.
func (c *Conn) divided(ctx context.Context, filter *Filter, yield func(Flow, error) bool) {
	s := c.sample(ctx, filter)
	halves, even := s.divide()
	switch {
	case s.whole:
		for i := range s.flows {
			if filter.Match(&s.flows[i]) && !yield(s.flows[i], nil) {
				return
			}
		}
	case even:
		c.together(ctx, filter, halves, s.flows, yield)
	default:
		c.All(ctx, filter)(yield)
	}
}

// sample is the beginning of a dump, as the kernel sends it.
type sample struct {
	flows []Flow
	whole bool   // there was no more
	marks uint32 // bits of the mark that the filter leaves free
}

// freeMarks are the bits of the mark that a filter does not ask for.
func freeMarks(filter *Filter) uint32 {
	if filter == nil {
		return ^uint32(0)
	}
	return ^(filter.markMask() | filter.Mark)
}

const sampleSize = 1024 // flows: enough to know a share to 3 %

// sample takes what the kernel lists first. The order is that of a hash, so
// that the rest is alike.
func (c *Conn) sample(ctx context.Context, filter *Filter) sample {
	s := sample{flows: make([]Flow, 0, sampleSize), marks: freeMarks(filter)}
	var flow Flow
	for m, err := range c.rows(ctx, filter) {
		if len(s.flows) == sampleSize {
			return s
		}
		if err != nil || decodeFlow(m.Data, &flow) != nil {
			return sample{} // All meets it again, and tells it
		}
		s.flows = append(s.flows, flow)
	}
	s.whole = true
	return s
}

// half is a part of the table that the kernel can list, and the flows outside
// of it are another.
type half struct {
	v4, v6     bool
	set, unset Status
	mark, mask uint32
}

// divisions are the pairs of halves, those first between which no entry
// changes, and those next between which it does only at its beginning.
var divisions = [...][2]half{
	{{v4: true}, {v6: true}},
	{{set: SrcNAT}, {unset: SrcNAT}},
	{{set: DstNAT}, {unset: DstNAT}},
	{{set: SrcNATDone}, {unset: SrcNATDone}},
	{{set: DstNATDone}, {unset: DstNATDone}},
	{{set: Assured}, {unset: Assured}},
	{{set: SeenReply}, {unset: SeenReply}},
}

// of narrows a filter to the half.
func (h half) of(filter *Filter) Filter {
	var f Filter
	if filter != nil {
		f = *filter
	}
	f.IPv4Only = f.IPv4Only || h.v4
	f.IPv6Only = f.IPv6Only || h.v6
	f.StatusSet |= h.set
	f.StatusUnset |= h.unset
	f.Mark |= h.mark
	f.MarkMask |= h.mask
	return f
}

// divide returns the most even halves. A later division must be better than an
// earlier one by a twentieth of the flows.
func (s sample) divide() (halves [2]half, even bool) {
	least := 0.1
	for _, d := range slices.Concat(divisions[:1], s.byMark(), divisions[1:]) {
		if share := min(s.share(d[0]), s.share(d[1])); share >= least {
			halves, even, least = d, true, share+0.05
		}
	}
	return halves, even
}

// byMark are the divisions by one bit of the mark, for those that differ.
func (s sample) byMark() (divisions [][2]half) {
	some, all := uint32(0), ^uint32(0)
	for i := range s.flows {
		some |= s.flows[i].Mark
		all &= s.flows[i].Mark
	}
	for left := some &^ all & s.marks; left != 0; left &= left - 1 {
		bit := left & -left
		divisions = append(divisions, [2]half{{mark: bit, mask: bit}, {mask: bit}})
	}
	return divisions
}

// share is what a half has of the sample, 0 to 1.
func (s sample) share(h half) float64 {
	filter, n := h.of(nil), 0
	for i := range s.flows {
		if filter.Match(&s.flows[i]) {
			n++
		}
	}
	return float64(n) / float64(max(len(s.flows), 1))
}

// part is some flows of a dump.
type part struct {
	flows []Flow
	err   error // after the flows
	end   bool
}

const partSize = 128 // flows: about a datagram

// together makes two dumps at once. The flows are handed over in parts, for
// which the memory goes round.
func (c *Conn) together(ctx context.Context, filter *Filter, halves [2]half, memory []Flow, yield func(Flow, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	free := make(chan []Flow, sampleSize/partSize)
	full := make(chan part, cap(free))
	for p := range slices.Chunk(memory, partSize) {
		free <- p[:0]
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer close(free)
	defer cancel()
	for _, h := range halves {
		readers.Go(func() { c.half(ctx, h.of(filter), free, full) })
	}
	for running := len(halves); running > 0; {
		p := <-full
		for i := range p.flows {
			if !yield(p.flows[i], nil) {
				return
			}
		}
		if p.err != nil {
			yield(Flow{}, p.err)
			return
		}
		if p.end {
			running--
		}
		free <- p.flows[:0]
	}
}

// half dumps one half, until it ends or nothing is free any more. It never
// waits for room in full: that has room for all memory there is.
func (c *Conn) half(ctx context.Context, filter Filter, free <-chan []Flow, full chan<- part) {
	flows := <-free
	for flow, err := range c.All(ctx, &filter) {
		if err != nil {
			full <- part{flows, err, true}
			return
		}
		if flows = append(flows, flow); len(flows) < partSize {
			continue
		}
		full <- part{flows: flows}
		if flows = <-free; flows == nil {
			return
		}
	}
	full <- part{flows, nil, true}
}
