package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// fake returns a Conn whose kernel is h.
func fake(t testing.TB, h nfnltest.Handler) (*Conn, *nfnltest.Peer) {
	nl, peer := nfnltest.Dial(h)
	t.Cleanup(func() { _ = nl.Close() }) // some tests close it themselves
	return &Conn{nl: nl}, peer
}

// parse reads a line as a test's input.
func parse(t testing.TB, line string) Flow {
	t.Helper()
	f, err := ParseFlow(line)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	lineTCP  = "tcp 6 100 ESTABLISHED src=192.0.2.1 dst=198.51.100.7 sport=40000 dport=443 src=198.51.100.7 dst=192.0.2.1 sport=443 dport=40000 [ASSURED] mark=0 use=1 id=11"
	lineUDP  = "udp 17 29 src=192.0.2.1 dst=198.51.100.7 sport=40000 dport=53 [UNREPLIED] src=198.51.100.7 dst=192.0.2.1 sport=53 dport=40000 mark=5 zone=3 use=1 id=12"
	lineUDP6 = "udp 17 29 src=2001:db8::1 dst=2001:db8::7 sport=40000 dport=53 src=2001:db8::7 dst=2001:db8::1 sport=53 dport=40000 mark=0 use=1 id=13"
)

// payload is f as ctnetlink sends it.
func payload(f Flow) []byte {
	b := nfnl.NewNetfilter(subsystem, opNew, 0, f.Original.family())
	f.Original.encode(b, ctaTupleOrig, f.OriginalZone)
	f.Reply.encode(b, ctaTupleReply, f.ReplyZone)
	if f.Has(FieldZone) {
		b.U16(ctaZone, f.Zone)
	}
	for _, v := range []struct {
		field Fields
		typ   uint16
		value uint32
	}{
		{FieldStatus, ctaStatus, uint32(f.Status)},
		{FieldMark, ctaMark, f.Mark},
		{FieldID, ctaID, f.ID},
		{FieldUse, ctaUse, f.Use},
		{FieldTimeout, ctaTimeout, uint32(f.Timeout / time.Second)},
	} {
		if f.Has(v.field) {
			b.U32(v.typ, v.value)
		}
	}
	if f.Has(FieldTCP) {
		f.TCP.encode(b)
	}
	return b.Message().Data
}

func row(r nfnltest.Request, f Flow) []byte {
	return nfnltest.Message(subsystem<<8|opNew, nfnl.Multi, r.Seq, payload(f))
}

// table is a kernel whose dump is flows, whatever filter it is asked for. It
// knows no other request.
func table(flows ...Flow) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == 0 {
			return refuse(syscall.EOPNOTSUPP)(r)
		}
		var out [][]byte
		for _, f := range flows {
			out = append(out, row(r, f))
		}
		return append(out, nfnltest.Done(r.Seq, 0))
	}
}

// refuse is a kernel that refuses everything.
func refuse(errno syscall.Errno) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte { return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)} }
}

func silent(nfnltest.Request) [][]byte { return nil }

// all collects a dump. An error must come last, once, and with the zero Flow.
func all(t testing.TB, c *Conn, filter *Filter) ([]Flow, error) {
	t.Helper()
	var flows []Flow
	var last error
	for f, err := range c.All(t.Context(), filter) {
		switch {
		case last != nil:
			t.Errorf("%v, %v after an error", f, err)
		case err != nil && f != (Flow{}):
			t.Errorf("%v with %+v", err, plain(f))
		case err != nil:
			last = err
		default:
			flows = append(flows, f)
		}
	}
	return flows, last
}

func TestAll(t *testing.T) {
	tcp, udp, udp6 := parse(t, lineTCP), parse(t, lineUDP), parse(t, lineUDP6)
	tests := map[string]struct {
		filter *Filter
		family byte
		status string // attributes of the request
		want   []Flow
	}{
		"no filter":   {nil, 0, "", []Flow{tcp, udp, udp6}},
		"zero filter": {&Filter{}, 0, "", []Flow{tcp, udp, udp6}},
		"family":      {&Filter{IPv4Only: true}, 2, "", []Flow{tcp, udp}},
		"other":       {&Filter{IPv6Only: true}, 10, "", []Flow{udp6}},
		"status set":  {&Filter{StatusSet: Assured}, 0, "3=4 26=4 ", []Flow{tcp}},
		"unset":       {&Filter{StatusUnset: SeenReply}, 0, "3=0 26=2 ", []Flow{udp}},
		"in Go alone": {&Filter{Proto: ProtoUDP}, 0, "", []Flow{udp, udp6}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := fake(t, func(r nfnltest.Request) [][]byte {
				if r.Type != 0x101 || r.Flags != 0x301 || r.Data[0] != tt.family || numbers(r.Data) != tt.status {
					t.Errorf("type %#x, flags %#x, family %d, attributes %q", r.Type, r.Flags, r.Data[0], numbers(r.Data))
				}
				return table(tcp, udp, udp6)(r)
			})
			if got, err := all(t, c, tt.filter); !slices.Equal(got, tt.want) || err != nil {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

// TestAllMalformed checks that a message that cannot be read ends the dump
// after those before it.
func TestAllMalformed(t *testing.T) {
	tcp := parse(t, lineTCP)
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == 0 { // the count that Snapshot asks for
			return refuse(syscall.EPERM)(r)
		}
		bad := nfnl.NewNetfilter(subsystem, opNew, 0, familyIPv4)
		bad.U16(ctaMark, 1)
		return [][]byte{row(r, tcp), nfnltest.Message(0x100, 0, r.Seq, bad.Message().Data), row(r, tcp), nfnltest.Done(r.Seq, 0)}
	})
	got, err := all(t, c, nil)
	attr, ok := errors.AsType[*nfnl.AttrError](err)
	if !slices.Equal(got, []Flow{tcp}) || !ok || attr.Type != ctaMark || !isOp(err, "dump") {
		t.Errorf("got %v, %v", got, err)
	}
	if s, err := c.Snapshot(t.Context(), nil); s != nil || !errors.As(err, &attr) {
		t.Errorf("snapshot: %v, %v", s, err)
	}
}

func isOp(err error, op string) bool {
	e, ok := errors.AsType[*OpError](err)
	return ok && e.Op == op && strings.HasPrefix(err.Error(), "conntrack: "+op+": ")
}

// TestAllBreak breaks off and dumps again: nothing of the first is left.
func TestAllBreak(t *testing.T) {
	tcp, udp := parse(t, lineTCP), parse(t, lineUDP)
	c, _ := fake(t, table(tcp, udp))
	for range c.All(t.Context(), nil) {
		break
	}
	if got, err := all(t, c, nil); !slices.Equal(got, []Flow{tcp, udp}) || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestRequestInsideAll asks for each flow again while the dump is read.
func TestRequestInsideAll(t *testing.T) {
	tcp, udp := parse(t, lineTCP), parse(t, lineUDP)
	c, peer := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == nfnl.DumpAll {
			return table(tcp, udp)(r)
		}
		return [][]byte{row(r, tcp), nfnltest.Acknowledge(r, 0, "", 0)}
	})
	for f, err := range c.All(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(t.Context(), f.Original, f.Zone); got != tcp || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if n := peer.Sockets(); n != 2 {
		t.Errorf("%d sockets", n)
	}
}

func TestGet(t *testing.T) {
	tcp := parse(t, lineTCP)
	tests := map[string]struct {
		answer nfnltest.Handler
		want   Flow
		err    error
	}{
		"found": {func(r nfnltest.Request) [][]byte {
			return [][]byte{nfnltest.Message(0x100, 0, r.Seq, payload(tcp)), nfnltest.Acknowledge(r, 0, "", 0)}
		}, tcp, nil},
		"flagged as if a DONE followed": {func(r nfnltest.Request) [][]byte {
			return [][]byte{row(r, tcp), nfnltest.Acknowledge(r, 0, "", 0)}
		}, tcp, nil},
		"refused": {refuse(syscall.ENOENT), Flow{}, fs.ErrNotExist},
		"no row":  {refuse(0), Flow{}, fs.ErrNotExist},
		"malformed": {func(r nfnltest.Request) [][]byte {
			return [][]byte{nfnltest.Message(0x100, 0, r.Seq, []byte{2, 0}), nfnltest.Acknowledge(r, 0, "", 0)}
		}, Flow{}, errShort},
	}
	for name, tt := range tests {
		c, _ := fake(t, tt.answer)
		got, err := c.Get(t.Context(), tcp.Original, 0)
		if got != tt.want || !errors.Is(err, tt.err) || err != nil && !isOp(err, "get") {
			t.Errorf("%s: got %v, %v; want %v, %v", name, got, err, tt.want, tt.err)
		}
	}
	c, _ := fake(t, func(nfnltest.Request) [][]byte { t.Error("asked the kernel"); return nil })
	if _, err := c.Get(t.Context(), Tuple{}, 0); !isOp(err, "get") {
		t.Errorf("no tuple: %v", err)
	}
}

// calls are the calls of a Conn, by the operation their errors name.
var calls = map[string]func(context.Context, *Conn, Flow) error{
	"dump": func(ctx context.Context, c *Conn, _ Flow) (last error) {
		for _, err := range c.All(ctx, nil) {
			last = err
		}
		return last
	},
	"get": func(ctx context.Context, c *Conn, f Flow) error {
		_, err := c.Get(ctx, f.Original, f.Zone)
		return err
	},
	"delete": func(ctx context.Context, c *Conn, f Flow) error { return c.Delete(ctx, f) },
	"create": func(ctx context.Context, c *Conn, f Flow) error { return c.Create(ctx, f) },
	"update": func(ctx context.Context, c *Conn, f Flow) error { return c.Update(ctx, f, Change{Mark: 9}) },
	"flush":  func(ctx context.Context, c *Conn, _ Flow) error { return c.Flush(ctx) },
	"events": func(ctx context.Context, c *Conn, _ Flow) (last error) {
		for _, err := range c.Events(ctx, nil) {
			last = err
		}
		return last
	},
}

// TestRefusals checks that what the kernel's errno does not tell is added, and
// what it tells is kept.
func TestRefusals(t *testing.T) {
	tests := []struct {
		op    string
		errno syscall.Errno
		is    error
		text  string
	}{
		{"dump", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"get", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"delete", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"create", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"update", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"flush", syscall.EPERM, fs.ErrPermission, "CAP_NET_ADMIN"},
		{"flush", syscall.EINVAL, errors.ErrUnsupported, "nf_conntrack_netlink"},
		{"update", syscall.ENOENT, fs.ErrNotExist, ""},
		{"dump", syscall.EINVAL, errors.ErrUnsupported, "nf_conntrack_netlink"},
		{"dump", syscall.EOPNOTSUPP, errors.ErrUnsupported, ""},
		{"delete", syscall.ENOENT, fs.ErrNotExist, ""},
		{"create", syscall.EEXIST, fs.ErrExist, ""},
	}
	for _, tt := range tests {
		c, _ := fake(t, refuse(tt.errno))
		err := calls[tt.op](t.Context(), c, parse(t, lineTCP))
		if !errors.Is(err, tt.is) || !errors.Is(err, tt.errno) || !isOp(err, tt.op) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s, %v: %v", tt.op, tt.errno, err)
		}
	}
	for _, err := range []error{opError("dial", syscall.EPERM), opError("get", syscall.EINVAL)} {
		if strings.Contains(err.Error(), "CAP_NET_ADMIN") || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("added to what it does not hold for: %v", err)
		}
	}
}

// TestCloseAndCancel ends every call before it begins and while it waits.
func TestCloseAndCancel(t *testing.T) {
	cause := errors.New("the operator's reason")
	for op, call := range calls {
		t.Run(op, func(t *testing.T) {
			c, _ := fake(t, silent)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(5*time.Millisecond, func() { cancel(cause) })
			for range 2 {
				if err := call(ctx, c, parse(t, lineTCP)); !errors.Is(err, cause) || !isOp(err, op) {
					t.Errorf("cancelled: %v", err)
				}
			}
			ended, cancel2 := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel2()
			if err := call(ended, c, parse(t, lineTCP)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("timed out: %v", err)
			}
			time.AfterFunc(5*time.Millisecond, func() { _ = c.Close() })
			for range 2 {
				if err := call(t.Context(), c, parse(t, lineTCP)); !errors.Is(err, net.ErrClosed) || !isOp(err, op) {
					t.Errorf("closed: %v", err)
				}
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) || !isOp(err, "close") {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
}

func TestDialGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone")
	c, err := Dial(&Config{NetNS: path})
	if runtime.GOOS != "linux" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		return
	}
	if c != nil || !errors.Is(err, fs.ErrNotExist) || !isOp(err, "dial") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, %v", c, err)
	}
}
