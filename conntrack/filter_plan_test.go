package conntrack

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func TestExplain(t *testing.T) {
	tests := []struct{ expr, want string }{
		{"", "every flow matches\n"},
		{"-s 10.0.0.1 --state CLOSE --dport 1:2 --port 3", `
-f ipv4          kernel
-p tcp           kernel
-s 10.0.0.1      kernel
--dport 1:2      Go      the kernel compares single ports, not ranges
--port 3         Go      the kernel has no filter for it
--state CLOSE    Go      the kernel has no filter for it
`},
		{"-p udp --sport 7 -q 10.0.0.0/8 -d 10.0.0.0/8", `
-f ipv4        kernel
-p udp         kernel
-d 10.0.0.0/8  Go      the kernel compares whole addresses, not prefixes
-q 10.0.0.0/8  Go      kernels before 5.16 compare the reply tuple with what was not asked
--sport 7      kernel
`},
		{"-p udp --sport 7 --icmp-type 8", `
-p udp         Go  the kernel wants a family with it: -f ipv4 or -f ipv6
--sport 7      Go  the kernel wants a family with it: -f ipv4 or -f ipv6
--icmp-type 8  Go  the kernel refuses the ICMP types it does not know
`},
		{"-s 2001:db8::1 -p gre --sport 7 -m 1 -n", `
-f ipv6         kernel
-p gre          kernel
-s 2001:db8::1  Go      many kernels send the others for an IPv6 address
--sport 7       Go      the kernel wants a protocol with it: -p tcp or -p udp
-m 0x1          kernel
-n              Go      the kernel has no filter for it
`},
		{"-f ipv4 -s ::1 -p tcp", `
-f ipv4  Go  no flow is of both families
-p tcp   Go  the kernel wants a family with it: -f ipv4 or -f ipv6
-s ::1   Go  no flow has such an address
`},
	}
	k := &oldKernel{honours: pushTuple<<1 - 1, flows: kernelFlows(t)}
	c, _ := fake(t, k.handle)
	for _, tt := range tests {
		f, err := ParseFilter(tt.expr)
		must(t, err)
		plan, err := c.Explain(t.Context(), &f)
		if squeeze(plan.String()) != squeeze(tt.want) || err != nil {
			t.Errorf("%s: %v\n%v", tt.expr, err, plan)
		}
	}
	if plan, err := c.Explain(t.Context(), nil); len(plan.Parts) != 0 || !plan.Whole() || err != nil {
		t.Errorf("nil: %v, %v", plan, err)
	}
}

// squeeze leaves one space of many.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// TestPlanIsWhatIsAsked compares the plan with the request: a part is planned
// for the kernel if and only if the request has it.
func TestPlanIsWhatIsAsked(t *testing.T) {
	for _, expr := range []string{
		"-f ipv4", "-s 10.0.0.1", "-s 10.0.0.0/8 -d 10.0.0.1", "-s ::1", "-p tcp", "-p tcp -f ipv6", "-f ipv4 -p tcp --sport 1 --dport 2:3",
		"-f ipv4 --sport 1", "-f ipv4 -p sctp --sport 1", "-f ipv6 --state CLOSE --dport 9:9", "-m 1", "-w 0", "-u DYING", exprAll, "-f ipv4 -d ::1 -p udp --dport 1", "-u DYING,!DYING",
	} {
		f, err := ParseFilter(expr)
		must(t, err)
		planned, asked := pushed(0), f.pushed()
		for _, part := range f.plan().Parts {
			planned |= part.push
		}
		if planned != asked {
			t.Errorf("%s: planned %b, asked for %b", expr, planned, asked)
		}
	}
}

func TestExplainEmptyTable(t *testing.T) {
	k := &oldKernel{honours: pushTuple<<1 - 1}
	c, _ := fake(t, k.handle)
	plan, err := c.Explain(t.Context(), &Filter{Mark: 1, IPv4Only: true})
	must(t, err)
	want := Plan{Parts: []PlanPart{
		{Expr: "-f ipv4", Place: InKernel, push: pushFamily},
		{Expr: "-m 0x1", Place: PlaceUnknown, Why: "the table has no entries to tell by", push: pushMark},
	}}
	if !slices.Equal(plan.Parts, want.Parts) || plan.Whole() || !strings.Contains(plan.String(), "unknown") {
		t.Errorf("got %v", plan)
	}
	k.flows = kernelFlows(t)
	if plan, err := c.Explain(t.Context(), &Filter{Mark: 1}); err != nil || !plan.Whole() {
		t.Errorf("once it has entries: %v, %v", plan, err)
	}
}

// TestExplainVanished empties the table after the first look: nothing was there
// to be sent, so that nothing is known.
func TestExplainVanished(t *testing.T) {
	k := &oldKernel{flows: kernelFlows(t)}
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if k.dumps > 0 {
			k.flows = nil
		}
		return k.handle(r)
	})
	plan, err := c.Explain(t.Context(), &Filter{Mark: 1})
	if err != nil || plan.Parts[0].Place != PlaceUnknown {
		t.Errorf("got %v, %v", plan, err)
	}
}

// TestAllZeroing checks which filters reach the kernel as a request that
// zeroes.
func TestAllZeroing(t *testing.T) {
	every := pushTuple<<1 - 1
	tests := []struct {
		expr             string
		honours, refuses pushed
		empty            bool
		zeroed           int
		is               error
	}{
		{"", every, 0, false, 3, nil},
		{"-f ipv4", pushFamily, 0, false, 2, nil},
		{exprAll, every, 0, false, 1, nil},
		{exprAll, every &^ pushZone, 0, false, 0, errors.ErrUnsupported},
		{exprAll, every &^ pushTuple, pushTuple, false, 0, errors.ErrUnsupported},
		{"-m 5", pushFamily, 0, false, 0, errors.ErrUnsupported},
		{"-m 5", every, 0, true, 0, nil},
		{"-s 192.0.2.0/24", every, 0, false, 0, errors.ErrUnsupported},
		{"-p udp", every, 0, false, 0, errors.ErrUnsupported},
		{"--state ESTABLISHED", every, 0, false, 0, errors.ErrUnsupported},
		{"-u ASSURED,!ASSURED", every, 0, false, 0, errors.ErrUnsupported},
	}
	for _, tt := range tests {
		f, err := ParseFilter(tt.expr)
		must(t, err)
		k := &oldKernel{honours: tt.honours, refuses: tt.refuses, errno: syscall.EOPNOTSUPP, flows: kernelFlows(t)}
		if tt.empty {
			k.flows = nil
		}
		c, _ := fake(t, k.handle)
		yielded, last := 0, error(nil)
		for flow, err := range c.AllZeroing(t.Context(), &f) {
			if last = err; err == nil {
				yielded++
				if !f.Match(&flow) {
					t.Errorf("%q: zeroed %v", tt.expr, flow)
				}
			}
		}
		if k.zeroed != tt.zeroed || yielded != tt.zeroed || !errors.Is(last, tt.is) || (last != nil) != (tt.is != nil) || last != nil && !isOp(last, "zero counters") {
			t.Errorf("%q, honours %b: zeroed %d, yielded %d, %v", tt.expr, tt.honours, k.zeroed, yielded, last)
		}
	}
}

// TestZoneProbe asks for a zone in a table that is full of it, whatever zone
// that is: the kernel's honouring it is told from its ignoring it.
func TestZoneProbe(t *testing.T) {
	for _, zone := range []uint16{0, 7, 0xfff0, 0xfff1, 0xfff2, 0xffff} {
		for honours, want := range map[pushed]Place{pushFamily: InGo, pushFamily | pushZone: InKernel} {
			k := &oldKernel{honours: honours, flows: kernelFlows(t)}
			for i := range k.flows {
				k.flows[i].Zone = zone
				k.flows[i].Fields |= FieldZone
			}
			c, _ := fake(t, k.handle)
			if plan, err := c.Explain(t.Context(), &Filter{Zone: 5}); err != nil || plan.Parts[0].Place != want {
				t.Errorf("zone %d, honours %b: %v, %v", zone, honours, plan, err)
			}
		}
	}
}

// TestExplainFails breaks each of the dumps that Explain makes: nothing is told,
// and nothing is learnt.
func TestExplainFails(t *testing.T) {
	for fails := range 3 {
		k := &oldKernel{honours: pushTuple<<1 - 1, flows: kernelFlows(t)}
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if k.dumps++; k.dumps-1 == fails {
				return refuse(syscall.ENOMEM)(r)
			}
			k.dumps--
			return k.handle(r)
		})
		plan, err := c.Explain(t.Context(), &Filter{Mark: 1})
		if !errors.Is(err, syscall.ENOMEM) || !isOp(err, "explain") || len(plan.Parts) != 0 ||
			c.kernel.honours.Load()|c.kernel.ignores.Load()|c.kernel.refuses.Load() != 0 {
			t.Errorf("dump %d: %v, %v", fails, plan, err)
		}
	}
}

// TestZeroingFails ends with the error of the dump that zeroes, and with that
// of the looks before it.
func TestZeroingFails(t *testing.T) {
	for _, fails := range []uint16{opGet, opGetZero} {
		k := &oldKernel{honours: pushTuple<<1 - 1, flows: kernelFlows(t)}
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if r.Type == subsystem<<8|fails {
				return [][]byte{row(r, k.flows[1]), nfnltest.Done(r.Seq, syscall.ENOMEM)}
			}
			return k.handle(r)
		})
		var last error
		yielded := 0
		for _, err := range c.AllZeroing(t.Context(), &Filter{StatusUnset: SeenReply}) {
			if last = err; err == nil {
				yielded++
			}
		}
		if fails == opGetZero && (!errors.Is(last, syscall.ENOMEM) || !isOp(last, "zero counters") || yielded != 1) {
			t.Errorf("request %d: %d flows, then %v", fails, yielded, last)
		}
		if fails == opGet && (last == nil || yielded != 0 || k.zeroed != 0) {
			t.Errorf("request %d: %d flows, then %v", fails, yielded, last)
		}
	}
	c, _ := fake(t, table(kernelFlows(t)...))
	for range c.AllZeroing(t.Context(), nil) {
		break
	}
}
