package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// The structures of a row, field by field in C's order (linux/unix_diag.h).
type (
	cUnixRow struct {
		Family, Type, State, Pad uint8
		Ino                      uint32
		Cookie                   [2]uint32
	}
	cUnixVFS    struct{ Ino, Dev uint32 }
	cUnixQueues struct{ RQueue, WQueue uint32 }
)

// encodeUnix is the inverse of decodeUnix.
func encodeUnix(s UnixSocket) []byte {
	b := native(cUnixRow{
		Family: uint8(familyUnix), Type: uint8(s.Type), State: uint8(s.State), Ino: s.Inode,
		Cookie: [2]uint32{uint32(s.Cookie), uint32(s.Cookie >> 32)},
	})
	r := nfnl.NewBuilder(0, 0)
	switch {
	case s.Abstract:
		r.Bytes(unixName, []byte("\x00"+s.Path[1:]))
	case s.Has(UnixFieldPath):
		r.String(unixName, s.Path)
	}
	if s.Has(UnixFieldFile) {
		r.Bytes(unixVFS, native(cUnixVFS{s.File.Inode, s.File.Major<<20 | s.File.Minor}))
	}
	if s.Has(UnixFieldPeer) {
		r.HostU32(unixPeer, s.Peer)
	}
	if s.pending != "" {
		r.Bytes(unixIcons, []byte(s.pending))
	}
	if s.Has(UnixFieldQueues) {
		r.Bytes(unixQueues, native(cUnixQueues{s.RecvQueue + s.AcceptQueue, s.SendQueue + s.Backlog}))
	}
	if s.Has(UnixFieldMemory) {
		r.Bytes(unixMemory, encodeMemory(&s.Memory))
	}
	if s.Has(UnixFieldShutdown) {
		r.U8(unixShutdown, s.Shutdown)
	}
	if s.Has(UnixFieldUID) {
		r.HostU32(unixUID, s.UID)
	}
	return append(b, r.Message().Data...)
}

var (
	unixListener = UnixSocket{
		Type: UnixSeqpacket, State: Listen, Inode: 11, Cookie: 1<<40 | 2, UID: 1000, Shutdown: ShutdownSend,
		Fields: UnixFieldUID<<1 - 1, Path: "/run/x y.sock", File: UnixFile{12, 254, 1<<20 - 1}, Peer: 13,
		AcceptQueue: 2, Backlog: 1<<32 - 1, pending: string(native([]uint32{21, 0})),
	}
	unixAbstract = UnixSocket{
		Type: UnixDatagram, State: Close, Inode: 31, Cookie: 3, Fields: UnixFieldPath | UnixFieldQueues,
		Abstract: true, Path: "@a\x00b\xff", RecvQueue: 4, SendQueue: 5,
	}
	unixUnnamed = UnixSocket{Type: UnixStream, State: Established, Inode: 41, Cookie: 4, Peer: 42, Fields: UnixFieldPeer}
)

func init() { number(reflect.ValueOf(&unixListener.Memory).Elem(), 50) }

// TestDecodeUnix checks every offset against structures in C's order.
func TestDecodeUnix(t *testing.T) {
	for _, want := range []UnixSocket{unixListener, unixAbstract, unixUnnamed} {
		if got, err := decodeUnix(encodeUnix(want)); err != nil || got != want {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	}
	if got := unixListener.Pending(); !slices.Equal(got, []uint32{21, 0}) {
		t.Errorf("Pending: %v", got)
	}
	if got := unixUnnamed.Pending(); len(got) != 0 {
		t.Errorf("Pending of none: %v", got)
	}
	b := encodeUnix(UnixSocket{Type: UnixStream, State: Established})
	r := nfnl.NewBuilder(0, 0)
	r.Bytes(99, make([]byte, 5))                              // to come
	r.Bytes(unixName, nil)                                    // bound to a family alone
	r.Bytes(unixIcons, []byte{1, 2, 3})                       // cut short
	r.Bytes(unixQueues, native([]uint32{1<<32 - 1, 1 << 31})) // less than nothing
	want := UnixSocket{Type: UnixStream, State: Established, Fields: UnixFieldQueues}
	if got, err := decodeUnix(append(b, r.Message().Data...)); err != nil || got != want {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	for typ, want := range map[UnixType]string{1: "stream", 2: "dgram", 5: "seqpacket", 3: "UnixType(3)"} {
		if got := typ.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestDecodeUnixCaptured reads a row of the kernel's. ss takes the device for
// 0:65024.
func TestDecodeUnixCaptured(t *testing.T) {
	want := UnixSocket{
		Type: UnixStream, State: Listen, Inode: 2153750, Cookie: 0xa59e5,
		Fields: (UnixFieldUID<<1 - 1) &^ UnixFieldPeer, Path: "/tmp/unix1653588969/l",
		File:        UnixFile{Inode: 9994258, Major: 254},
		AcceptQueue: 2, Backlog: 3, Memory: Memory{RcvBuf: 212992, SndBuf: 212992},
		pending: string(native([]uint32{2152982, 2152983})),
	}
	got, err := decodeUnix(capture(t, "unix/listener"))
	if err != nil || got != want {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func TestDecodeUnixMalformed(t *testing.T) {
	row := encodeUnix(unixUnnamed)[:unixRowLen]
	attr := func(typ uint16, n int) []byte {
		r := nfnl.NewBuilder(0, 0)
		r.Bytes(typ, make([]byte, n))
		return append(row[:unixRowLen:unixRowLen], r.Message().Data...)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "cut header": row[:unixRowLen-1], "stray byte": append(bytes.Clone(row), 0),
		"other family": append([]byte{2}, row[1:]...), "VFS": attr(unixVFS, 7), "peer": attr(unixPeer, 3),
		"queues": attr(unixQueues, 7), "shutdown": attr(unixShutdown, 0), "UID": attr(unixUID, 3),
	} {
		if s, err := decodeUnix(b); err == nil || s != (UnixSocket{}) {
			t.Errorf("%s: %+v, %v; want the zero UnixSocket and an error", name, s, err)
		}
	}
}

// FuzzDecodeUnix asserts that no input makes decodeUnix panic, that an error
// comes with the zero UnixSocket, and that what was decoded survives being
// encoded.
func FuzzDecodeUnix(f *testing.F) {
	for _, s := range []UnixSocket{unixListener, unixAbstract, unixUnnamed} {
		f.Add(encodeUnix(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeUnix(b)
		if err != nil {
			if s != (UnixSocket{}) {
				t.Errorf("error %v with %+v", err, s)
			}
			return
		}
		if back, err := decodeUnix(encodeUnix(s)); err != nil || back != s {
			t.Errorf("decoded %+v\nagain   %+v, %v", s, back, err)
		}
		if len(s.Pending())*4 != len(s.pending) {
			t.Errorf("Pending: %v of %d bytes", s.Pending(), len(s.pending))
		}
	})
}

func TestUnixRequest(t *testing.T) {
	for q, want := range map[UnixQuery][2]uint32{
		{}:                                     {0x1ffe, 0x5f},
		{States: States(Listen), Memory: true}: {1 << 10, 0x7f},
	} {
		m := q.request()
		cookie := binary.NativeEndian.Uint64(m.Data[16:])
		states, show := hostU32(m.Data, 4), hostU32(m.Data, 12)
		if m.Type != 20 || len(m.Data) != 24 || m.Data[0] != 1 || m.Data[1] != 0 || cookie != 1<<64-1 ||
			states != want[0] || show != want[1] || hostU32(m.Data, 8) != 0 {
			t.Errorf("%+v: type %d, %x", q, m.Type, m.Data)
		}
	}
}

// TestUnixAnswers: rows nobody asked for are left out, and the kernel's
// refusals are explained.
func TestUnixAnswers(t *testing.T) {
	answer := func(errno syscall.Errno) *Conn {
		nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
			var b []byte
			for _, s := range []UnixSocket{unixListener, unixAbstract, unixUnnamed} {
				b = append(b, nfnltest.Message(byFamily, nfnl.Multi, r.Seq, encodeUnix(s))...)
			}
			b = append(b, row(r.Seq, numbered(IPv4, 1))...)
			return [][]byte{b, nfnltest.Done(r.Seq, errno)}
		})
		return &Conn{nl: nl}
	}
	for q, want := range map[UnixQuery][]UnixSocket{
		{}:                              {unixListener, unixAbstract, unixUnnamed},
		{States: States(Listen, Close)}: {unixListener, unixAbstract},
		{Type: UnixStream}:              {unixUnnamed},
		{Type: 9}:                       nil,
	} {
		if got, err := collectUnix(t, answer(0), q); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: %v, %+v", q, err, got)
		}
	}
	for errno, c := range map[syscall.Errno]struct {
		is   error
		text string
	}{
		syscall.ENOENT: {errors.ErrUnsupported, "modprobe unix_diag"},
		syscall.EPERM:  {syscall.EPERM, "security module"},
		syscall.ENOMEM: {syscall.ENOMEM, "sockdiag: dump unix: "},
	} {
		got, err := collectUnix(t, answer(errno), UnixQuery{})
		var op *OpError
		if len(got) != 3 || !errors.Is(err, c.is) || !errors.As(err, &op) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %d rows, %v; want 3, %q", errno, len(got), err, c.text)
		}
	}
}

func collectUnix(t *testing.T, c *Conn, q UnixQuery) (sockets []UnixSocket, last error) {
	t.Helper()
	for s, err := range c.Unix(t.Context(), q) {
		if last != nil {
			t.Error("ranging went on after an error")
		}
		if last = err; err == nil {
			sockets = append(sockets, s)
		}
	}
	return sockets, last
}
