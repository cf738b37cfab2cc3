package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func init() {
	maps.Copy(calls, callsOfTables)
}

func lastError[T any](seq func(func(T, error) bool)) (err error) {
	for _, err = range seq {
		if err != nil {
			break
		}
	}
	return err
}

// callsOfTables are the calls about what is not a flow.
var callsOfTables = map[string]func(context.Context, *Conn, Flow) error{
	"dying":        func(ctx context.Context, c *Conn, _ Flow) error { return lastError(c.Dying(ctx)) },
	"unconfirmed":  func(ctx context.Context, c *Conn, _ Flow) error { return lastError(c.Unconfirmed(ctx)) },
	"expectations": func(ctx context.Context, c *Conn, _ Flow) error { return lastError(c.Expectations(ctx)) },
	"get expectation": func(ctx context.Context, c *Conn, f Flow) error {
		_, err := c.Expectation(ctx, f.Original, f.Zone)
		return err
	},
	"create expectation": func(ctx context.Context, c *Conn, f Flow) error {
		return c.CreateExpectation(ctx, announced(f.Original, 1))
	},
	"delete expectation": func(ctx context.Context, c *Conn, f Flow) error {
		return c.DeleteExpectation(ctx, Expectation{Tuple: f.Original, Fields: ExpectFieldID})
	},
	"delete expectations": func(ctx context.Context, c *Conn, _ Flow) error {
		return c.DeleteExpectationsOfHelper(ctx, "ftp")
	},
	"flush expectations": func(ctx context.Context, c *Conn, _ Flow) error { return c.FlushExpectations(ctx) },
	"expectation events": func(ctx context.Context, c *Conn, _ Flow) error { return lastError(c.ExpectationEvents(ctx, nil)) },
	"stats":              func(ctx context.Context, c *Conn, _ Flow) error { _, err := c.Stats(ctx); return err },
	"usage":              func(ctx context.Context, c *Conn, _ Flow) error { _, err := c.Usage(ctx); return err },
	"timeout policies":   func(ctx context.Context, c *Conn, _ Flow) error { return lastError(c.TimeoutPolicies(ctx)) },
	"get timeout policy": func(ctx context.Context, c *Conn, _ Flow) error {
		_, err := c.TimeoutPolicy(ctx, "p")
		return err
	},
	"create timeout policy": func(ctx context.Context, c *Conn, _ Flow) error {
		return c.CreateTimeoutPolicy(ctx, policyTCP)
	},
	"replace timeout policy": func(ctx context.Context, c *Conn, _ Flow) error {
		return c.ReplaceTimeoutPolicy(ctx, policyTCP)
	},
	"delete timeout policy": func(ctx context.Context, c *Conn, _ Flow) error { return c.DeleteTimeoutPolicy(ctx, "p") },
	"default timeouts":      func(ctx context.Context, c *Conn, _ Flow) error { _, err := c.DefaultTimeouts(ctx); return err },
}

var policyTCP = TimeoutPolicy{Name: "p", Family: FamilyIPv4, Proto: ProtoTCP, Timeouts: Timeouts{TCPEstablished: time.Hour}}

// TestRefusalsOfTables checks what is added to the kernel's errno, and that
// nothing is where the request itself may be to blame.
func TestRefusalsOfTables(t *testing.T) {
	for op, call := range callsOfTables {
		if op == "expectation events" {
			continue // no request
		}
		c, _ := fake(t, refuse(syscall.EPERM))
		if err := call(t.Context(), c, parse(t, lineTCP)); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || !isOp(err, op) {
			t.Errorf("%s: %v", op, err)
		}
		c, _ = fake(t, refuse(syscall.EINVAL)) // everything: no such subsystem
		err := call(t.Context(), c, parse(t, lineTCP))
		module := "nf_conntrack_netlink"
		if strings.Contains(op, "timeout") {
			module = "nfnetlink_cttimeout"
		}
		blame := op != "get expectation" && op != "create expectation" && !strings.HasPrefix(op, "delete expectation")
		if errors.Is(err, errors.ErrUnsupported) != blame || strings.Contains(err.Error(), module) != blame || !isOp(err, op) {
			t.Errorf("%s: %v", op, err)
		}
	}
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == nfnl.DumpAll {
			return [][]byte{nfnltest.Done(r.Seq, 0)}
		}
		return refuse(syscall.EINVAL)(r)
	})
	if err := c.ReplaceTimeoutPolicy(t.Context(), policyTCP); !errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a request that is to blame: %v", err)
	}
}

// TestPolicyInUse has a kernel that would remove a policy in use.
func TestPolicyInUse(t *testing.T) {
	for use, want := range map[uint32][]uint16{1: {0x801, 0x802}, 2: {0x801}} {
		var asked []uint16
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			asked = append(asked, r.Type)
			b := nfnl.NewNetfilter(subsystemTimeout, opTimeoutNew, 0, 0)
			b.String(ctaTimeoutName, "p")
			b.U32(ctaTimeoutUse, use)
			return [][]byte{nfnltest.Message(0x800, 0, r.Seq, b.Message().Data), nfnltest.Acknowledge(r, 0, "", 0)}
		})
		err := c.DeleteTimeoutPolicy(t.Context(), "p")
		if errors.Is(err, syscall.EBUSY) != (use > 1) || err != nil && !isOp(err, "delete timeout policy") || !slices.Equal(asked, want) {
			t.Errorf("used %d: %v after requests %#x, want %#x", use, err, asked, want)
		}
	}
}

func TestDecodePolicy(t *testing.T) {
	b := fixture.Netlink(t, "testdata/policy/tcp.hex", nfgenmsgLen)
	want := TimeoutPolicy{Name: "keep", Family: FamilyIPv4, Proto: ProtoTCP, Use: 1, Timeouts: Timeouts{
		TCPSynSent: 2 * time.Minute, TCPSynRecv: time.Minute, TCPEstablished: 7 * time.Hour, TCPFinWait: 2 * time.Minute,
		TCPCloseWait: time.Minute, TCPLastAck: 30 * time.Second, TCPTimeWait: 2 * time.Minute, TCPClose: 10 * time.Second,
		TCPSynSent2: 2 * time.Minute, TCPMaxRetrans: 5 * time.Minute, TCPUnacknowledged: 5 * time.Minute,
	}}
	var p TimeoutPolicy
	if err := decodePolicy(b, &p); p != want || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", p, err, want)
	}
	if err := decodePolicy(b[:len(b)-2], &p); err == nil || p != (TimeoutPolicy{}) {
		t.Errorf("cut short: %+v, %v", p, err)
	}
	if err := decodePolicy(b[:3], &p); !errors.Is(err, errShort) {
		t.Errorf("got %v", err)
	}
	unknown := nfnl.NewNetfilter(subsystemTimeout, opTimeoutNew, 0, 0)
	unknown.U8(ctaTimeoutL4Proto, 33) // DCCP
	unknown.Nested(ctaTimeoutData, func() { unknown.U32(1, 5) })
	if err := decodePolicy(unknown.Message().Data, &p); err != nil || p != (TimeoutPolicy{Proto: ProtoDCCP}) {
		t.Errorf("of a protocol that is not read: %+v, %v", p, err)
	}
}

// TestPolicyRefused checks what is refused without asking the kernel: above
// all names, without which a delete request removes all policies not in use.
func TestPolicyRefused(t *testing.T) {
	c := &Conn{} // a request that is made would panic
	for _, name := range []string{"", "a\x00b", strings.Repeat("x", 32)} {
		if err := c.DeleteTimeoutPolicy(t.Context(), name); !isOp(err, "delete timeout policy") {
			t.Errorf("delete %q: %v", name, err)
		}
		if _, err := c.TimeoutPolicy(t.Context(), name); !isOp(err, "get timeout policy") {
			t.Errorf("get %q: %v", name, err)
		}
	}
	for want, spoil := range map[string]func(*TimeoutPolicy){
		"policy name":                        func(p *TimeoutPolicy) { p.Name = "" },
		"family NFPROTO_7":                   func(p *TimeoutPolicy) { p.Family = 7 },
		"protocol 112":                       func(p *TimeoutPolicy) { p.Proto = 112 },
		"timeouts of other protocols":        func(p *TimeoutPolicy) { p.Timeouts.UDP = time.Second },
		"timeout 1.5s: want whole seconds":   func(p *TimeoutPolicy) { p.Timeouts.TCPClose = 1500 * time.Millisecond },
		"timeout -1s: want whole seconds":    func(p *TimeoutPolicy) { p.Timeouts.TCPClose = -time.Second },
		"timeout 1194h0m0s: want whole seco": func(p *TimeoutPolicy) { p.Timeouts.TCPClose = 1194 * time.Hour },
	} {
		p := policyTCP
		spoil(&p)
		if err := c.CreateTimeoutPolicy(t.Context(), p); !isOp(err, "create timeout policy") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for f, want := range map[Family]string{FamilyIPv4: "ipv4", FamilyIPv6: "ipv6", 7: "NFPROTO_7"} {
		if got := f.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// FuzzDecodePolicy checks that no bytes panic, that an error comes with the
// zero TimeoutPolicy, and that what can be made decodes to the same.
func FuzzDecodePolicy(f *testing.F) {
	f.Add(fixture.Netlink(f, "testdata/policy/tcp.hex", nfgenmsgLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := TimeoutPolicy{Use: 7}
		if err := decodePolicy(b, &p); err != nil {
			if p != (TimeoutPolicy{}) {
				t.Fatalf("%v with %+v", err, p)
			}
			return
		}
		m, err := p.encode(0)
		if err != nil {
			return // not one that could be made
		}
		var again TimeoutPolicy
		must(t, decodePolicy(m.Data, &again))
		if p.Use = 0; again != p {
			t.Fatalf("got  %+v\nwant %+v", again, p)
		}
	})
}
