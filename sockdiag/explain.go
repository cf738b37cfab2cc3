package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Plan is how a query is answered: what the kernel selects, and what is left to
// Filter.Match. Every row is checked against the whole query, whatever the
// kernel has checked.
type Plan struct {
	// Query is what was asked for.
	Query Query
	// Dumps are what the kernel is asked, in order.
	Dumps []DumpPlan
	// Left are the conditions that the kernel does not check.
	Left []Remainder
}

// DumpPlan is the request for the dump of one family.
type DumpPlan struct {
	// Family is whose sockets are dumped.
	Family Family
	// Empty tells that no socket of the family can be in the answer: the
	// kernel is not asked.
	Empty bool
	// States is which states the kernel shows (idiag_states).
	States StateSet
	// LocalPort and RemotePort are the ports that the kernel shows
	// (idiag_sport, idiag_dport); 0 is any.
	LocalPort, RemotePort uint16
	// Bytecode is what the kernel checks beyond (INET_DIAG_REQ_BYTECODE);
	// empty is nothing.
	Bytecode []byte

	used optional // of its operations
}

// Remainder is a condition that the kernel does not check; then nor does it
// check what is joined to that by or.
type Remainder struct {
	// Filter is the condition.
	Filter Filter
	// Why says what keeps the kernel from it.
	Why string
}

// Explain returns how a kernel is asked that knows every operation, to a caller
// with CAP_NET_ADMIN. The error is that of a query that cannot be asked.
func (q Query) Explain() (Plan, error) { return q.explain(0) }

// Explain returns how this kernel is asked. Which operations it lacks or
// refuses is known after the first query that needs them.
func (c *Conn) Explain(q Query) (Plan, error) { return q.explain(c.refusedOperations()) }

func (q Query) explain(refused optional) (Plan, error) {
	families, err := q.askedFamilies()
	if err != nil {
		return Plan{}, &OpError{Op: q.op(), Err: err}
	}
	p := Plan{Query: q}
	for _, f := range families {
		d, left := q.plan(f, refused)
		p.Dumps = append(p.Dumps, d)
		for _, r := range left {
			if !slices.Contains(p.Left, r) {
				p.Left = append(p.Left, r)
			}
		}
	}
	return p, nil
}

// plan decides how the dump of one family is asked for.
func (q Query) plan(f Family, refused optional) (d DumpPlan, left []Remainder) {
	d = DumpPlan{Family: f, States: q.kernelStates(), LocalPort: q.LocalPort, RemotePort: q.RemotePort}
	switch {
	case q.Filter == (Filter{}):
		return d, nil
	case q.protocol() == SCTP:
		return d, []Remainder{{q.Filter, "the dump of SCTP takes no bytecode"}}
	}
	b := q.bounds()
	d.States &= asked(b.states)
	d.LocalPort, d.RemotePort = b.local.only(), b.remote.only()
	if d.Empty = d.States == 0; d.Empty {
		return d, nil
	}
	c := &compiler{plan: &d, refused: refused}
	code := c.compile(q.Filter, true)
	d.Empty, d.Bytecode, d.used = code.verdict == never, code.code, c.used
	return d, c.left
}

// asked returns the states to ask for to get the rows that show those of set.
func asked(set StateSet) StateSet {
	if set.Has(SynRecv) {
		set |= pendingStates
	}
	if set.Has(Close) {
		set |= 1 << BoundInactive
	}
	return set
}

// String writes a plan in lines: each dump with its bytecode, and what is left.
func (p Plan) String() string {
	var b strings.Builder
	for _, d := range p.Dumps {
		fmt.Fprintf(&b, "%v %v: %v\n", p.Query.protocol(), d.Family, d)
	}
	for _, r := range p.Left {
		fmt.Fprintf(&b, "left to Match: %v (%s)\n", r.Filter, r.Why)
	}
	return b.String()
}

// String writes what the kernel is asked, the bytecode one operation a line.
func (d DumpPlan) String() string {
	if d.Empty {
		return "not asked, nothing there can match"
	}
	s := string(appendStates(nil, d.States))
	if d.LocalPort != 0 {
		s += fmt.Sprintf(", local port %d", d.LocalPort)
	}
	if d.RemotePort != 0 {
		s += fmt.Sprintf(", remote port %d", d.RemotePort)
	}
	if len(d.Bytecode) > 0 {
		s += fmt.Sprintf(", %d bytes of bytecode\n%s", len(d.Bytecode), disassemble(d.Bytecode))
	}
	return strings.TrimSuffix(s, "\n")
}

// disassemble writes a line for each operation: where it is, what it compares,
// and where to go on if that fails.
func disassemble(code []byte) string {
	var b strings.Builder
	for at := 0; at < len(code); at += int(code[at+1]) {
		o := code[at : at+int(code[at+1])]
		to := at + int(binary.NativeEndian.Uint16(o[2:]))
		target := fmt.Sprintf("%d", to)
		switch {
		case to == len(code):
			target = "select"
		case to > len(code):
			target = "skip"
		}
		if o[0] == opJump {
			fmt.Fprintf(&b, "%6d  go to %s\n", at, target)
			continue
		}
		fmt.Fprintf(&b, "%6d  %s, else %s\n", at, operation(o), target)
	}
	return b.String()
}

// operation writes one operation in the kernel's words.
func operation(o []byte) string {
	arg := o[opLen:]
	switch o[0] {
	case opLocalGE, opLocalLE, opRemoteGE, opRemoteLE:
		name := [...]string{"S_GE", "S_LE", "D_GE", "D_LE"}[o[0]-opLocalGE]
		return fmt.Sprintf("%s %d", name, binary.NativeEndian.Uint16(arg[2:]))
	case opLocal:
		return "S_COND " + hostText(arg)
	case opRemote:
		return "D_COND " + hostText(arg)
	case opInterface:
		return fmt.Sprintf("DEV_COND %d", binary.NativeEndian.Uint32(arg))
	case opMark:
		return fmt.Sprintf("MARK_COND %#x/%#x", binary.NativeEndian.Uint32(arg), binary.NativeEndian.Uint32(arg[4:]))
	case opCgroup:
		return fmt.Sprintf("CGROUP_COND %d", binary.NativeEndian.Uint64(arg))
	}
	return "AUTO"
}

func hostText(arg []byte) string {
	if a, ok := netip.AddrFromSlice(arg[8:]); ok {
		return netip.PrefixFrom(a, int(arg[1])).String()
	}
	return fmt.Sprintf("port %d", binary.NativeEndian.Uint32(arg[4:]))
}
