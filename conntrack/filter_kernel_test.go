package conntrack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func init() {
	calls["explain"] = func(ctx context.Context, c *Conn, _ Flow) error {
		_, err := c.Explain(ctx, &Filter{Mark: 1})
		return err
	}
	calls["zero counters"] = func(ctx context.Context, c *Conn, _ Flow) (last error) {
		for _, err := range c.AllZeroing(ctx, nil) {
			last = err
		}
		return last
	}
}

// attributes writes a request's as type=hexadecimal value.
func attributes(m nfnl.Message) string {
	var s strings.Builder
	fmt.Fprintf(&s, "family %d", m.Data[0])
	for a := nfnl.Walk(m.Data[nfgenmsgLen:]); a.Next(); {
		if a.Type == ctaFilter { // the flags are in the host's order
			w := nfnl.Walk(a.Value)
			w.Next()
			fmt.Fprintf(&s, " %d={%d:%b}", a.Type, w.Type, w.HostU32())
			continue
		}
		fmt.Fprintf(&s, " %d=%s", a.Type, hex.EncodeToString(a.Value))
	}
	return s.String()
}

func TestFilterRequest(t *testing.T) {
	tests := []struct{ expr, want string }{
		{"", "family 0"},
		{"-f ipv6", "family 10"},
		{"-s 10.0.0.0/8", "family 2"},
		{"-j 2001:db8::/32", "family 10"},
		{"-s 10.0.0.0/8 -d ::1", "family 0"},
		{"-m 5", "family 0 8=00000005 21=ffffffff"},
		{"-m 0x1/0xff -u ASSURED", "family 0 8=00000001 21=000000ff 3=00000004 26=00000004"},
		{"-m 0", "family 0 8=00000000 21=ffffffff"},
		{"-u UNREPLIED", "family 0 3=00000000 26=00000002"},
		{"-w 7", "family 0 18=0007"},
		{"-w 0", "family 0 18=0000"},
		{"-p tcp --sport 1", "family 0"},
		{"-f ipv6 -p tcp", "family 10 25={1:1000} 1=" + nest(2, u8(1, 6))},
		{"-f ipv6 -s 2001:db8::1", "family 10"},
		{"-f ipv6 --state CLOSE --dport 443", "family 10 25={1:101000} 1=" + nest(2, u8(1, 6), u16(3, 443))},
		{"-s 10.0.0.1", "family 2 25={1:1} 1=" + nest(1, ip(1, "10.0.0.1"))},
		{"-s ::ffff:10.0.0.1 -d 10.0.0.2 -p udp --sport 5:5 --dport 53", "family 2 25={1:111011} 1=" +
			nest(1, ip(1, "10.0.0.1"), ip(2, "10.0.0.2")) + nest(2, u8(1, 17), u16(2, 5), u16(3, 53))},
		{"-d 10.0.0.2 -p udp --dport 53:54", "family 2 25={1:1010} 1=" + nest(1, ip(2, "10.0.0.2")) + nest(2, u8(1, 17))},
		{"-f ipv4 -p sctp --dport 53", "family 2 25={1:1000} 1=" + nest(2, u8(1, 132))},
		{"-r 10.0.0.1 --reply-port-src 53", "family 2"},
		{"-f ipv4 -p icmp --icmp-id 4", "family 2 25={1:1000} 1=" + nest(2, u8(1, 1))},
	}
	for _, tt := range tests {
		f, err := ParseFilter(tt.expr)
		must(t, err)
		if got := attributes(dumpRequest(&f)); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.expr, got, tt.want)
		}
	}
}

// TestFilterRequestOfStates asks for the protocol whose states are asked for.
func TestFilterRequestOfStates(t *testing.T) {
	for _, tt := range []struct {
		filter Filter
		proto  uint8
	}{
		{Filter{IPv4Only: true, TCPStates: 1}, 6},
		{Filter{IPv4Only: true, SCTPStates: 1}, 132},
		{Filter{IPv4Only: true, Proto: ProtoUDP, TCPStates: 1}, 17},
	} {
		if got := attributes(dumpRequest(&tt.filter)); got != "family 2 25={1:1000} 1="+nest(2, u8(1, tt.proto)) {
			t.Errorf("%v: %s", tt.filter, got)
		}
	}
}

// nest, u8, u16 and ip write attributes in hexadecimal.
func nest(typ uint16, attrs ...string) string {
	inner, err := hex.DecodeString(strings.Join(attrs, ""))
	if err != nil {
		panic(err)
	}
	b := nfnl.NewBuilder(0, 0)
	b.Nested(typ, func() { b.Raw(inner) })
	return hex.EncodeToString(b.Message().Data)
}

func one(write func(*nfnl.Builder)) string {
	b := nfnl.NewBuilder(0, 0)
	write(b)
	return hex.EncodeToString(b.Message().Data)
}

func u8(typ uint16, v uint8) string   { return one(func(b *nfnl.Builder) { b.U8(typ, v) }) }
func u16(typ uint16, v uint16) string { return one(func(b *nfnl.Builder) { b.U16(typ, v) }) }
func ip(typ uint16, s string) string {
	return one(func(b *nfnl.Builder) { b.Bytes(typ, netip.MustParseAddr(s).AsSlice()) })
}

// oldKernel filters by what it honours, refuses what it refuses, and ignores
// the rest. It counts the dumps it was asked for.
type oldKernel struct {
	honours, refuses pushed
	errno            syscall.Errno
	flows            []Flow
	dumps, zeroed    int
}

// attrParts are the attributes of each part.
var attrParts = map[uint16]pushed{ctaMark: pushMark, ctaStatus: pushStatus, ctaZone: pushZone, ctaFilter: pushTuple}

func (k *oldKernel) handle(r nfnltest.Request) [][]byte {
	k.dumps++
	asked := k.read(r.Data)
	for part := range asked {
		switch {
		case k.refuses&part != 0:
			return [][]byte{nfnltest.Acknowledge(r, k.errno, "", 0)}
		case k.honours&part == 0:
			delete(asked, part)
		}
	}
	var out [][]byte
	for _, flow := range k.flows {
		passes := true
		for _, f := range asked {
			passes = passes && f.Match(&flow)
		}
		if passes {
			out = append(out, row(r, flow))
			if r.Type == subsystem<<8|opGetZero {
				k.zeroed++
			}
		}
	}
	return append(out, nfnltest.Done(r.Seq, 0))
}

// read takes a request apart: a filter for each part.
func (k *oldKernel) read(b []byte) map[pushed]Filter {
	parts := map[pushed]Filter{pushFamily: {IPv4Only: b[0] == familyIPv4, IPv6Only: b[0] == familyIPv6}}
	var mark, status, tuple, zone Filter
	var bits, mask Status
	for a := nfnl.Walk(b[nfgenmsgLen:]); a.Next(); {
		switch a.Type {
		case ctaMark:
			mark.Mark = a.U32()
		case ctaMarkMask:
			mark.MarkMask = a.U32()
		case ctaStatus:
			bits = Status(a.U32())
		case ctaStatusMask:
			mask = Status(a.U32())
		case ctaZone:
			zone = Filter{InZone: true, Zone: a.U16()}
		case ctaTupleOrig: // the protocol is enough for what the tests ask
			var t Tuple
			_ = t.decodeAny(a.Value, new(uint16))
			tuple.Proto = t.Proto
		}
		if part := attrParts[a.Type]; part != 0 {
			parts[part] = Filter{}
		}
	}
	status.StatusSet, status.StatusUnset = bits, mask&^bits
	for part, f := range map[pushed]Filter{pushMark: mark, pushStatus: status, pushZone: zone, pushTuple: tuple} {
		if _, ok := parts[part]; ok {
			parts[part] = f
		}
	}
	return parts
}

func kernelFlows(t *testing.T) []Flow {
	flows := []Flow{parse(t, lineTCP), parse(t, lineUDP), parse(t, lineUDP6)}
	for i := range flows {
		flows[i].Status |= Confirmed
	}
	return flows
}

const exprAll = "-f ipv4 -p udp -u UNREPLIED -m 5 -w 3"

// TestKernels dumps with every part from kernels that honour, ignore or refuse
// each: the flows are the same, and the plan says what the kernel does.
func TestKernels(t *testing.T) {
	filter, err := ParseFilter(exprAll)
	must(t, err)
	for honours := range pushTuple << 1 {
		for refuses := range pushTuple << 1 {
			if honours&refuses != 0 || (honours|refuses)&pushFamily != 0 {
				continue
			}
			k := &oldKernel{honours: honours | pushFamily, refuses: refuses, flows: kernelFlows(t),
				errno: []syscall.Errno{syscall.EINVAL, syscall.EOPNOTSUPP}[honours>>1&1]}
			c, _ := fake(t, k.handle)
			for range 6 {
				if got, err := all(t, c, &filter); !slices.Equal(got, k.flows[1:2]) || err != nil {
					t.Errorf("honours %b, refuses %b: got %v, %v", honours, refuses, got, err)
				}
			}
			k.dumps = 0
			_, _ = all(t, c, &filter)
			if k.dumps != 1 {
				t.Errorf("honours %b, refuses %b: %d dumps after six", honours, refuses, k.dumps)
			}
			checkPlan(t, c, k, &filter)
		}
	}
}

func checkPlan(t *testing.T, c *Conn, k *oldKernel, filter *Filter) {
	t.Helper()
	plan, err := c.Explain(t.Context(), filter)
	must(t, err)
	for _, part := range plan.Parts {
		want, why := InGo, "ignores"
		switch {
		case k.honours&part.push != 0:
			want, why = InKernel, ""
		case k.refuses&part.push != 0:
			why = "refuses"
		}
		if part.Place != want || !strings.Contains(part.Why, why) {
			t.Errorf("honours %b, refuses %b: %+v", k.honours, k.refuses, part)
		}
	}
	if len(plan.Parts) != 5 || plan.Whole() != (k.honours == pushTuple<<1-1) {
		t.Errorf("honours %b: %v: whole is %v", k.honours, plan, plan.Whole())
	}
	k.dumps = 0
	if again, err := c.Explain(t.Context(), filter); !slices.Equal(again.Parts, plan.Parts) || err != nil || k.dumps != 0 {
		t.Errorf("again: %v, %v after %d dumps", again, err, k.dumps)
	}
}

// TestRefusalIsNotForever keeps what the kernel takes: only the part whose
// leaving out helped is not sent again.
func TestRefusalIsNotForever(t *testing.T) {
	k := &oldKernel{honours: pushFamily | pushTuple | pushStatus, refuses: pushMark, errno: syscall.EINVAL, flows: kernelFlows(t)}
	c, _ := fake(t, k.handle)
	filter, err := ParseFilter(exprAll)
	must(t, err)
	_, err = all(t, c, &filter)
	must(t, err)
	if got := pushed(c.kernel.refuses.Load()); got != pushMark {
		t.Errorf("refused %b", got)
	}
	c, _ = fake(t, refuse(syscall.EOPNOTSUPP))
	if _, err := all(t, c, &filter); !errors.Is(err, syscall.EOPNOTSUPP) || c.kernel.refuses.Load() != 0 {
		t.Errorf("a kernel that refuses all: %v, %b", err, c.kernel.refuses.Load())
	}
}

// TestLateRefusal checks that an error after a row is not taken for a refusal
// of the filter.
func TestLateRefusal(t *testing.T) {
	dumps := 0
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		dumps++
		return [][]byte{row(r, parse(t, lineTCP)), nfnltest.Done(r.Seq, syscall.EINVAL)}
	})
	got, err := all(t, c, &Filter{StatusSet: Assured})
	if len(got) != 1 || !errors.Is(err, syscall.EINVAL) || dumps != 1 {
		t.Errorf("got %v, %v after %d dumps", got, err, dumps)
	}
}
