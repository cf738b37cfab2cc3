package sockdiag

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// bounds is what every socket that a filter holds for has in common, and
// perhaps others: the states its row can show, and the ports. No states mean
// no sockets.
type bounds struct {
	states        StateSet
	local, remote ports
}

// ports is the range from lo to hi.
type ports struct{ lo, hi uint16 }

var (
	allPorts  = ports{0, 1<<16 - 1}
	unbounded = bounds{shownStates(allStates), allPorts, allPorts}
)

// only returns the one port of a range; 0, which a request takes as any, when
// there are more.
func (p ports) only() uint16 {
	if p.lo != p.hi {
		return 0
	}
	return p.lo
}

// bounds returns those of the sockets for which f is want.
func (f Filter) bounds(want bool) bounds {
	if f == (Filter{}) {
		return unbounded
	}
	switch e := f.h.Value(); e.kind {
	case kindNot:
		return e.head.bounds(!want)
	case kindAnd, kindOr:
		combine := bounds.either
		if (e.kind == kindAnd) == want {
			combine = bounds.both
		}
		b := e.head.bounds(want)
		for _, m := range e.tail.appendList(nil, e.kind) {
			b = combine(b, m.bounds(want))
		}
		return b
	default:
		return e.bounds(want)
	}
}

func (e *expr) bounds(want bool) bounds {
	b := unbounded
	switch e.kind {
	case kindState:
		set := shownStates(StateSet(e.n))
		if !want {
			set = unbounded.states &^ set
		}
		b.states = set
	case kindPort:
		r, ok := portRange(e.comparison(want), uint16(e.n))
		if !ok {
			return bounds{}
		}
		if e.remote {
			b.remote = r
		} else {
			b.local = r
		}
	}
	return b
}

// comparison returns the comparison that holds where e's is want.
func (e *expr) comparison(want bool) Comparison {
	if want {
		return e.cmp
	}
	return opposites[e.cmp]
}

// portRange returns the ports for which a comparison holds, if there are any.
func portRange(c Comparison, p uint16) (r ports, ok bool) {
	switch c {
	case Equal:
		return ports{p, p}, true
	case Less:
		return ports{0, p - 1}, p > 0
	case LessOrEqual:
		return ports{0, p}, true
	case Greater:
		return ports{p + 1, allPorts.hi}, p < allPorts.hi
	case GreaterOrEqual:
		return ports{p, allPorts.hi}, true
	}
	return allPorts, true
}

func (b bounds) both(c bounds) bounds {
	b.states &= c.states
	b.local = ports{max(b.local.lo, c.local.lo), min(b.local.hi, c.local.hi)}
	b.remote = ports{max(b.remote.lo, c.remote.lo), min(b.remote.hi, c.remote.hi)}
	if b.local.lo > b.local.hi || b.remote.lo > b.remote.hi {
		return bounds{}
	}
	return b
}

func (b bounds) either(c bounds) bounds {
	switch {
	case b.states == 0:
		return c
	case c.states == 0:
		return b
	}
	b.states |= c.states
	b.local = ports{min(b.local.lo, c.local.lo), max(b.local.hi, c.local.hi)}
	b.remote = ports{min(b.remote.lo, c.remote.lo), max(b.remote.hi, c.remote.hi)}
	return b
}

// bounds returns those of the query's answer.
func (q Query) bounds() bounds {
	b := q.Filter.bounds(true)
	if q.LocalPort != 0 {
		b = b.both(bounds{b.states, ports{q.LocalPort, q.LocalPort}, allPorts})
	}
	if q.RemotePort != 0 {
		b = b.both(bounds{b.states, allPorts, ports{q.RemotePort, q.RemotePort}})
	}
	return b
}

// namesInactive reports that the filter asks for BoundInactive by name.
func (f Filter) namesInactive() bool {
	if f == (Filter{}) {
		return false
	}
	e := f.h.Value()
	switch e.kind {
	case kindAnd, kindOr:
		return slices.ContainsFunc(f.appendList(nil, e.kind), Filter.namesInactive)
	}
	return e.kind == kindState && StateSet(e.n).Has(BoundInactive)
}

// optional is a set of operations that a kernel can lack or refuse.
type optional uint32

const (
	optionalInterface optional = 1 << opInterface
	optionalMark      optional = 1 << opMark
	optionalCgroup    optional = 1 << opCgroup
)

// without returns the set of operations to go on without after the kernel has
// refused code that had those of used, and whether that is another one. The
// errno does not say which operation was unknown: the newest is given up first.
func (o optional) without(used optional, err error) (optional, bool) {
	var refused *nfnl.Error
	if !errors.As(err, &refused) {
		return o, false
	}
	var give optional
	switch used &^= o; {
	case refused.Errno != syscall.EINVAL:
	case used&optionalCgroup != 0:
		give = optionalCgroup
	case used&optionalMark != 0:
		give = optionalMark
	default:
		give = used & optionalInterface
	}
	return o | give, give != 0
}

// compiler makes the bytecode for the dump of one family.
type compiler struct {
	plan    *DumpPlan
	refused optional
	used    optional
	left    []Remainder
}

// compile makes a block that holds wherever f is want, and elsewhere only when
// the kernel cannot decide.
func (c *compiler) compile(f Filter, want bool) block {
	e := f.h.Value()
	switch e.kind {
	case kindNot:
		return c.compile(e.head, !want)
	case kindAnd, kindOr:
		var blocks []block
		for _, m := range f.appendList(nil, e.kind) {
			blocks = append(blocks, c.compile(m, want))
		}
		combine := some
		if (e.kind == kindAnd) == want {
			combine = all
		}
		b, fits := combine(blocks)
		if !fits {
			c.leave(f, "it is longer than bytecode can be")
		}
		return b
	}
	return c.condition(f, &e, want)
}

// condition compiles what is neither a list nor a negation. What the header of
// the request has decided takes no code.
func (c *compiler) condition(f Filter, e *expr, want bool) block {
	switch e.kind {
	case kindState:
		return c.state(f, shownStates(StateSet(e.n)), want)
	case kindFamily:
		return known((uint64(c.plan.Family) == e.n) == want)
	case kindPort:
		return c.port(e, want)
	case kindPrefix:
		if c.plan.Family == IPv4 && !e.prefix.Addr().Is4() {
			return known(!want)
		}
		return negated(hostBlock(e.remote, e.prefix, anyPort), want)
	case kindInterface:
		return c.optional(f, opInterface, words(uint32(e.n)), want)
	case kindMark:
		return c.optional(f, opMark, words(uint32(e.n), e.mask), want)
	case kindCgroup:
		return c.optional(f, opCgroup, binary.NativeEndian.AppendUint64(nil, e.n), want)
	case kindAutobound:
		return c.autobound(want)
	}
	return c.leave(f, "the kernel has no operation for it")
}

func negated(b block, want bool) block {
	if want {
		return b
	}
	return b.not()
}

// leave gives a condition to Match: the kernel selects whatever it says.
func (c *compiler) leave(f Filter, why string) block {
	r := Remainder{Filter: f, Why: why}
	if !slices.Contains(c.left, r) {
		c.left = append(c.left, r)
	}
	return known(true)
}

// state is decided by the mask of states alone.
func (c *compiler) state(f Filter, set StateSet, want bool) block {
	rows := shownStates(c.plan.States)
	if !want {
		set = ^set
	}
	switch {
	case rows&^set == 0:
		return known(true)
	case rows&set == 0:
		return known(false)
	}
	return c.leave(f, "the kernel takes one set of states for the whole filter")
}

func (c *compiler) port(e *expr, want bool) block {
	header := c.plan.LocalPort
	if e.remote {
		header = c.plan.RemotePort
	}
	if header != 0 {
		return known(e.comparePort(header) == want)
	}
	return portBlock(e.remote, e.comparison(want), uint16(e.n))
}

func (c *compiler) optional(f Filter, code uint8, arg []byte, want bool) block {
	bit := optional(1) << code
	if c.refused&bit != 0 {
		return c.leave(f, "this kernel has no operation for it")
	}
	c.used |= bit
	return negated(op(code, arg), want)
}

// autobound asks for what bind(2) left open (SOCK_BINDPORT_LOCK), which is so of
// accepted connections as well, on a port that the kernel chooses. Only the
// port is known to Match, so its opposite is the port's.
func (c *compiler) autobound(want bool) block {
	if port := c.plan.LocalPort; port != 0 && (port < firstEphemeral || port > lastEphemeral) {
		return known(!want)
	}
	low, high := portOp(opLocalGE, firstEphemeral), portOp(opLocalLE, lastEphemeral)
	both, _ := all([]block{low, high})
	if !want {
		return both.not()
	}
	auto, _ := all([]block{op(opAuto, nil), both})
	return auto
}
