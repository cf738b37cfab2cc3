package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// destroyer returns a Conn to a fake kernel that has the sockets, by cookie, and
// answers a request for one of them with an errno.
func destroyer(t *testing.T, answer func(typ uint16, cookie uint64) syscall.Errno) *Conn {
	t.Helper()
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == nfnl.DumpAll {
			return [][]byte{done(r.Seq)}
		}
		if len(r.Data) != requestLen {
			t.Errorf("request of %d bytes", len(r.Data))
		}
		switch errno := answer(r.Type, cookie(r.Data[48:56])); {
		case errno == lost:
			return [][]byte{nil}
		case errno != 0 || r.Flags&nfnl.Ack != 0:
			return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
		}
		return nil
	})
	c := &Conn{nl: nl}
	t.Cleanup(func() { _ = c.Close() }) // some tests have closed it
	return c
}

// lost stands for an answer that is dropped.
const lost = syscall.Errno(4000)

// crew yields n established sockets, with cookies from 1 on.
func crew(n int) iter.Seq[Socket] {
	return func(yield func(Socket) bool) {
		for i := range n {
			if !yield(numbered(IPv4, uint64(i+1))) {
				return
			}
		}
	}
}

func TestDestroyAll(t *testing.T) {
	gone := func(_ uint16, cookie uint64) syscall.Errno {
		switch cookie % 10 {
		case 3:
			return syscall.ENOENT
		case 7:
			return syscall.EOPNOTSUPP
		}
		return 0
	}
	tests := map[string]struct {
		answer func(uint16, uint64) syscall.Errno
		n      int
		opts   DestroyOptions
		want   string
		err    error
	}{
		"none":    {gone, 0, DestroyOptions{}, "nothing to destroy", nil},
		"mixed":   {gone, 1000, DestroyOptions{}, "destroyed 800, gone 100, refused 100", nil},
		"dry run": {gone, 1000, DestroyOptions{DryRun: true}, "gone 100, refused 100, would destroy 800", nil},
		"limit":   {gone, 1000, DestroyOptions{Limit: 400}, "destroyed 400, gone 50, refused 50, stopped at the limit", nil},
		"limit not reached": {gone, 10, DestroyOptions{Limit: 8},
			"destroyed 8, gone 1, refused 1", nil},
		"denied": {func(_ uint16, cookie uint64) syscall.Errno {
			if cookie > 128 {
				return syscall.EPERM
			}
			return 0
		}, 1000, DestroyOptions{}, "destroyed 128, refused 128", fs.ErrPermission},
		"broken": {func(_ uint16, cookie uint64) syscall.Errno {
			switch {
			case cookie == 10: // no reason for that of 138, which is Unknown
				return syscall.EOPNOTSUPP
			case cookie == 200:
				return lost
			case cookie == 190:
				return syscall.ENOENT
			}
			return 0
		}, 1000, DestroyOptions{}, "destroyed 189, gone 1, refused 1, unknown 65", nfnl.ErrOverrun}, // not 191 to 255
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := destroyer(t, func(typ uint16, cookie uint64) syscall.Errno {
				if (typ == byFamily) != tt.opts.DryRun || typ != byFamily && typ != destroySocket {
					t.Errorf("request of type %d", typ)
				}
				return tt.answer(typ, cookie)
			})
			var told, next DestroyReport
			expect := uint64(1)
			tt.opts.Outcome = func(s Socket, o DestroyOutcome, err error) {
				*told.count(o)++
				if s.Cookie != expect || (err != nil) != (o == Refused) {
					t.Errorf("%d, want %d: %v, %v", s.Cookie, expect, o, err)
				}
				expect++
			}
			tt.opts.Progress = func(r DestroyReport) { next = r }
			report, err := c.DestroyAll(t.Context(), crew(tt.n), &tt.opts)
			text, _, _ := strings.Cut(report.String(), ", in ")
			if text != tt.want || !errors.Is(err, tt.err) || next != report {
				t.Errorf("got %q, %v; want %q, %v", text, err, tt.want, tt.err)
			}
			told.Limited, told.Duration = report.Limited, report.Duration
			if told != report || report.Total() != int(expect-1) {
				t.Errorf("told %v, reported %v", told, report)
			}
		})
	}
}

func TestDestroyAllEnded(t *testing.T) {
	c := destroyer(t, func(uint16, uint64) syscall.Errno { return 0 })
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	opts := &DestroyOptions{Progress: func(DestroyReport) { cancel(why) }}
	report, err := c.DestroyAll(ctx, crew(1000), opts)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, why) || report.Destroyed != 128 || report.Skipped != 128 {
		t.Errorf("%v, %v", report, err)
	}
	if _, err := c.DestroyAll(t.Context(), crew(1), &DestroyOptions{Limit: -1}); err == nil {
		t.Error("a negative limit: no error")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	report, err = c.DestroyAll(t.Context(), crew(1), nil)
	if !errors.Is(err, net.ErrClosed) || report.Destroyed != 0 {
		t.Errorf("closed: %v, %v", report, err)
	}
}

// TestDestroyDoubtful: the kernel's answer does not say what became of some, and a
// second look does.
func TestDestroyDoubtful(t *testing.T) {
	kept := numbered(IPv4, 1) // and left, as kernels before Linux 6.11 do
	kept.State, kept.Inode = LastAck, 0
	ended := kept
	ended.Cookie = 2
	shadowed := numbered(IPv6, 3)
	shadowed.State = Listen
	gone := shadowed
	gone.Cookie = 4
	all := []Socket{kept, ended, shadowed, gone}
	broken := false
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Flags&nfnl.DumpAll == nfnl.DumpAll {
			var rows []byte
			for _, s := range []Socket{kept, shadowed} {
				if r.Data[0] == uint8(s.Family) && StateSet(binary.NativeEndian.Uint32(r.Data[4:])).Has(s.State) {
					rows = append(rows, row(r.Seq, s)...)
				}
			}
			return [][]byte{append(rows, done(r.Seq)...)}
		}
		switch c := cookie(r.Data[48:56]); {
		case c == 4 && broken:
			return [][]byte{nil}
		case c >= 3:
			return [][]byte{nfnltest.Acknowledge(r, syscall.ENOENT, "", 0)}
		case r.Flags&nfnl.Ack != 0:
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}
		return nil
	})
	c := &Conn{nl: nl}
	defer c.Close() //nolint:errcheck // nothing under way
	for i, want := range []error{errKept, nil, errShadowed, fs.ErrNotExist} {
		if err := c.DestroyAny(t.Context(), all[i]); !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", i+1, err, want)
		}
	}
	var told []string
	opts := &DestroyOptions{Listeners: true, Orphans: true, Outcome: func(_ Socket, o DestroyOutcome, err error) {
		told = append(told, o.String())
		if errors.Is(err, errKept) || errors.Is(err, errShadowed) {
			told = append(told, "because")
		}
	}}
	want := "[refused because destroyed refused because gone]"
	if _, err := c.DestroyAll(t.Context(), slices.Values(all), opts); err != nil || fmt.Sprint(told) != want {
		t.Errorf("%v, %v; want %v", told, err, want)
	}
	broken, told = true, nil
	want = "[unknown unknown unknown unknown]" // the third was not looked for again
	if _, err := c.DestroyAll(t.Context(), slices.Values(all), opts); !errors.Is(err, nfnl.ErrOverrun) || fmt.Sprint(told) != want {
		t.Errorf("%v, %v; want %v", told, err, want)
	}
}

// TestDestroyable: what must not be asked for is not asked for.
func TestDestroyable(t *testing.T) {
	asked := 0
	c := destroyer(t, func(uint16, uint64) syscall.Errno { asked++; return 0 })
	change := func(fn func(*Socket)) Socket {
		s := numbered(IPv6, 9)
		fn(&s)
		return s
	}
	for name, tt := range map[string]struct {
		s    Socket
		want error // nil is any
	}{
		"zero":         {Socket{}, errors.ErrUnsupported},
		"no cookie":    {change(func(s *Socket) { s.Cookie = 0 }), nil},
		"NOCOOKIE":     {change(func(s *Socket) { s.Cookie = ^uint64(0) }), nil},
		"no address":   {change(func(s *Socket) { s.Remote = netip.AddrPort{} }), nil},
		"wrong family": {change(func(s *Socket) { s.Family = IPv4 }), nil},
		"no family":    {change(func(s *Socket) { s.Family = 0 }), nil},
		"SCTP":         {change(func(s *Socket) { s.Protocol = SCTP }), errors.ErrUnsupported},
		"MPTCP":        {change(func(s *Socket) { s.Protocol = MPTCP }), errors.ErrUnsupported},
		"listener":     {change(func(s *Socket) { s.State = Listen }), ErrProtected},
		"closed":       {change(func(s *Socket) { s.State = Close }), ErrProtected},
		"no peer": {change(func(s *Socket) {
			s.Protocol, s.Remote = UDP, netip.MustParseAddrPort("[::]:0")
		}), ErrProtected},
		"orphan": {change(func(s *Socket) { s.State, s.Inode = LastAck, 0 }), ErrProtected},
	} {
		err := c.Destroy(t.Context(), tt.s)
		var op *OpError
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !errors.As(err, &op) || op.Op != "destroy" {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if asked != 0 {
		t.Errorf("%d requests were sent", asked)
	}
	for name, s := range map[string]Socket{
		"not accepted": change(func(s *Socket) { s.Inode = 0 }),
		"FIN_WAIT2":    change(func(s *Socket) { s.State, s.Inode, s.Timer = FinWait2, 0, TimerTimeWait }),
		"with owner":   change(func(s *Socket) { s.State = FinWait1 }),
	} {
		if err := c.Destroy(t.Context(), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExact compares a request with struct inet_diag_req_v2 by hand.
func TestExact(t *testing.T) {
	s := Socket{
		Protocol: UDP, Family: IPv6, Interface: 3, Cookie: 0x1122334455667788,
		Local: netip.MustParseAddrPort("192.0.2.1:53"), Remote: netip.MustParseAddrPort("192.0.2.2:5353"),
	}
	for typ, ends := range map[uint16][2]netip.AddrPort{destroySocket: {s.Local, s.Remote}, byFamily: {s.Remote, s.Local}} {
		want := []byte{10, 17, 0, 0, 0, 0, 0, 0}
		for _, a := range ends {
			want = binary.BigEndian.AppendUint16(want, a.Port())
		}
		for _, a := range ends {
			mapped := a.Addr().As16()
			want = append(want, mapped[:]...)
		}
		for _, n := range []uint32{3, 0x55667788, 0x11223344} {
			want = binary.NativeEndian.AppendUint32(want, n)
		}
		var b [requestLen]byte
		if m := s.exact(typ, b[:]); m.Type != typ || !slices.Equal(m.Data, want) {
			t.Errorf("%d: %x, want %x", m.Type, m.Data, want)
		}
	}
}

// TestExactRaw: the protocol of a raw socket is in struct inet_diag_req_raw.
func TestExactRaw(t *testing.T) {
	s := numbered(IPv4, 1)
	s.Protocol, s.RawProtocol = Raw, 58
	var b [requestLen]byte
	if m := s.exact(byFamily, b[:]); string(m.Data[:4]) != "\x02\xff\x00\x3a" || m.Data[12] != 192 {
		t.Errorf("%x", m.Data)
	}
}

func TestDestroyOutcomeString(t *testing.T) {
	got := fmt.Sprint(Destroyed, Gone, Refused, Protected, WouldDestroy, Unknown, Skipped, DestroyOutcome(0), DestroyOutcome(9))
	if got != "destroyed gone refused protected would destroy unknown skipped outcome 0 outcome 9" {
		t.Error(got)
	}
}
