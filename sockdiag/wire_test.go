package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// capture reads a row captured from a kernel.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	if bigEndian {
		t.Skip("the captured rows come from a little-endian machine")
	}
	return fixture.Read(t, "testdata/"+name+".hex")
}

const (
	// connFields are those of a connection with a socket, read by root.
	connFields = FieldShutdown | FieldMark | FieldCgroup | FieldOptions
	// connOptions are those of a TCP socket that nobody has changed. IPv6 has
	// an IPV6_MULTICAST_ALL of its own, which the kernel does not tell.
	connOptions   = v6ConnOptions | OptionMulticastAll
	v6ConnOptions = OptionIsICSK | OptionMulticastLoop
	// allInfo is what Linux 6.7 and later give.
	allInfo = InfoTimeouts<<1 - 1

	ms = time.Millisecond
	us = time.Microsecond
)

var (
	established = Socket{
		Protocol: TCP, Family: IPv4, State: Established, Timer: TimerKeepalive, Options: connOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("127.0.0.1:46488"),
		Remote: netip.MustParseAddrPort("127.0.0.1:8080"),
		Inode:  41276, Mark: 42, Cookie: 0x12, CgroupID: 1, RecvQueue: 5,
		Expires: 7199900 * ms,
	}
	establishedInfo = TCPInfo{
		Fields: allInfo,
		State:  Established, CAState: CAOpen, Options: OptTimestamps | OptSACK | OptWscale,
		SndWscale: 10, RcvWscale: 10, AppLimited: true,
		RTO: 204 * ms, ATO: 40 * ms, SndMSS: 35328, RcvMSS: 536,
		LastDataSent: 108 * ms, LastDataRecv: 108 * ms, LastAckRecv: 108 * ms,
		PMTU: 65535, RcvSsthresh: 65495, RTT: 14 * us, RTTVar: 13 * us,
		SndSsthresh: InfiniteSsthresh, SndCwnd: 15, AdvMSS: 65483, Reordering: 3, RcvSpace: 65495,
		PacingRate: 807697440000 / 8, MaxPacingRate: 1<<64 - 1,
		BytesAcked: 5001, BytesReceived: 5, SegsOut: 8, SegsIn: 7,
		MinRTT: us, DataSegsIn: 1, DataSegsOut: 5, DeliveryRate: 282624000000 / 8,
		Delivered: 6, BytesSent: 5000, SndWnd: 70656, RcvWnd: 65536,
	}
	mappedInfo = TCPInfo{
		Fields: allInfo,
		State:  Established, Options: OptTimestamps | OptSACK | OptWscale,
		SndWscale: 10, RcvWscale: 10, AppLimited: true,
		RTO: 204 * ms, SndMSS: 32768, RcvMSS: 536,
		LastDataSent: 4 * ms, LastDataRecv: 4 * ms, LastAckRecv: 4 * ms,
		PMTU: 65535, RcvSsthresh: 65483, RTT: 9 * us, RTTVar: 4 * us,
		SndSsthresh: InfiniteSsthresh, SndCwnd: 10, AdvMSS: 65483, Reordering: 3, RcvSpace: 65483,
		PacingRate: 832409595032 / 8, MaxPacingRate: 1<<64 - 1, SegsIn: 2, MinRTT: 9 * us,
		Delivered: 1, SndWnd: 65536, RcvWnd: 65483,
	}
)

func withInfo(s Socket, info TCPInfo) Socket {
	s.Fields |= FieldInfo
	s.Info = info
	return s
}

// captured are the rows of testdata. The texts above each row there say what
// ss made of the same socket.
var captured = map[string]Socket{
	"established":      established,
	"established-info": withInfo(soon(established, 8*ms), establishedInfo),
	"established-ipv6": {
		Protocol: TCP, Family: IPv6, State: Established, Options: v6ConnOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("[::1]:45202"),
		Remote: netip.MustParseAddrPort("[::1]:8081"),
		Inode:  41291, Cookie: 0x14, CgroupID: 1,
	},
	"mapped": withInfo(Socket{
		Protocol: TCP, Family: IPv6, State: Established, Options: v6ConnOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("127.0.0.1:8081"),
		Remote: netip.MustParseAddrPort("127.0.0.1:38640"),
		Inode:  41294, Cookie: 0x16, CgroupID: 1,
	}, mappedInfo),
	"listen-ipv6": {
		Protocol: TCP, Family: IPv6, State: Listen, Options: v6ConnOptions, Fields: connFields | FieldV6Only,
		Local:  netip.MustParseAddrPort("[::]:8081"),
		Remote: netip.MustParseAddrPort("[::]:0"),
		Inode:  41290, Cookie: 0x13, CgroupID: 1, Backlog: 7,
	},
	"listen-queue": withInfo(Socket{
		Protocol: TCP, Family: IPv4, State: Listen, Options: connOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("127.0.0.1:8082"),
		Remote: netip.MustParseAddrPort("0.0.0.0:0"),
		Inode:  41307, Cookie: 0x17, CgroupID: 1, AcceptQueue: 2, Backlog: 2,
	}, TCPInfo{
		Fields: allInfo, State: Listen, SndCwnd: 10, Reordering: 3,
		PacingRate: 1<<64 - 1, MaxPacingRate: 1<<64 - 1,
	}),
	"unaccepted": {
		Protocol: TCP, Family: IPv4, State: Established, Options: connOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("127.0.0.1:8082"),
		Remote: netip.MustParseAddrPort("127.0.0.1:39170"),
		Cookie: 0x1c, CgroupID: 1,
	},
	"close-wait": {
		Protocol: TCP, Family: IPv4, State: CloseWait, Options: connOptions, Fields: connFields, Shutdown: ShutdownReceive,
		Local:  netip.MustParseAddrPort("127.0.0.1:8080"),
		Remote: netip.MustParseAddrPort("127.0.0.1:46504"),
		Inode:  41319, Cookie: 0x1e, CgroupID: 1, RecvQueue: 1,
	},
	"fin-wait2": {
		Protocol: TCP, Family: IPv4, State: FinWait2, Timer: TimerTimeWait, Fields: FieldMark,
		Local:  netip.MustParseAddrPort("127.0.0.1:46504"),
		Remote: netip.MustParseAddrPort("127.0.0.1:8080"),
		Cookie: 0x1d, Expires: 59952 * ms,
	},
	"time-wait": {
		Protocol: TCP, Family: IPv4, State: TimeWait, Timer: TimerTimeWait, Fields: FieldMark,
		Local:  netip.MustParseAddrPort("127.0.0.1:46504"),
		Remote: netip.MustParseAddrPort("127.0.0.1:8080"),
		Cookie: 0x1d, Expires: 59948 * ms,
	},
	"syn-sent": {
		Protocol: TCP, Family: IPv4, State: SynSent, Timer: TimerOn, Retransmits: 1, Options: connOptions, Fields: connFields,
		Local:  netip.MustParseAddrPort("192.0.2.1:42354"),
		Remote: netip.MustParseAddrPort("192.0.2.9:9"),
		Inode:  41332, Cookie: 0x1f, CgroupID: 1, SendQueue: 1, Expires: 816 * ms,
	},
	"syn-recv": {
		Protocol: TCP, Family: IPv4, State: SynRecv, Timer: TimerOn, Fields: FieldMark,
		Local:  netip.MustParseAddrPort("127.0.0.1:7070"),
		Remote: netip.MustParseAddrPort("127.0.0.1:49860"),
		Cookie: 0x21, Expires: 524 * ms,
	},
}

func soon(s Socket, by time.Duration) Socket {
	s.Expires -= by
	return s
}

func TestDecodeCaptured(t *testing.T) {
	for name, want := range captured {
		t.Run(name, func(t *testing.T) {
			b := capture(t, name)
			got, err := decodeSocket(b)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if n := testing.AllocsPerRun(100, func() { sink, _ = decodeSocket(b) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if back, err := decodeSocket(encodeSocket(got)); err != nil || back != got {
				t.Errorf("encoded and decoded: %+v, %v", back, err)
			}
		})
	}
}

var sink Socket

// TestDecodeExtensions reads a row with every extension asked for.
func TestDecodeExtensions(t *testing.T) {
	got, err := decodeSocket(capture(t, "established-all-extensions"))
	if err != nil {
		t.Fatal(err)
	}
	info := establishedInfo
	info.LastDataSent, info.LastDataRecv, info.LastAckRecv = 112*ms, 112*ms, 112*ms
	want := withInfo(soon(established, 12*ms), info).WithDetails(Details{
		Congestion: "bbr",
		BBR:        BBRInfo{Bandwidth: 282624000000 / 8, MinRTT: us, PacingGain: 739, WindowGain: 739},
	})
	want.Fields |= FieldMemory | FieldTOS | FieldClassID
	want.Memory = Memory{RcvAlloc: 837, RcvBuf: 131072, SndBuf: 3939840, FwdAlloc: 3259}
	if got != want {
		t.Errorf("got  %+v\nwant %+v\n     %+v\nwant %+v", got, want, got.Details(), want.Details())
	}
}

// TestDecodeFuture puts attributes of a kernel to come before and after those
// known, nested ones and empty ones too.
func TestDecodeFuture(t *testing.T) {
	want := captured["established-ipv6"]
	b := encodeSocket(want)
	future := nfnl.NewBuilder(0, 0)
	future.Nested(200, func() { future.U32(attrMark, 7) })
	future.Flag(0x3fff)
	future.Bytes(201, bytes.Repeat([]byte{0xff}, 301))
	extra := future.Message().Data
	b = bytes.Join([][]byte{b[:rowLen], extra, b[rowLen:], extra}, nil)
	if got, err := decodeSocket(b); err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestDecodeMalformed(t *testing.T) {
	row := encodeSocket(captured["established-ipv6"])
	attr := func(typ uint16, v ...byte) []byte {
		r := nfnl.NewBuilder(0, 0)
		r.Bytes(typ, v)
		return append(row[:rowLen:rowLen], r.Message().Data...)
	}
	family := bytes.Clone(row)
	family[0] = 1 // AF_UNIX
	for name, b := range map[string][]byte{
		"empty":           {},
		"cut header":      row[:rowLen-1],
		"other family":    family,
		"cut attribute":   row[:len(row)-5],
		"stray byte":      append(row[:rowLen:rowLen], 0),
		"short shutdown":  attr(attrShutdown),
		"short v6only":    attr(attrV6Only),
		"short mark":      attr(attrMark, 1, 2, 3),
		"short cgroup ID": attr(attrCgroupID, 1, 2, 3, 4),
		"short info":      attr(attrInfo, make([]byte, infoBaseLen-1)...),
	} {
		if s, err := decodeSocket(b); err == nil || s != (Socket{}) {
			t.Errorf("%s: %+v, %v; want the zero Socket and an error", name, s, err)
		}
	}
	if _, err := decodeSocket(row[:8]); !errors.Is(err, nfnl.ErrTruncated) {
		t.Errorf("cut header: %v, want ErrTruncated", err)
	}
}

// TestDecodeExpires covers kernels that subtract jiffies unchecked.
func TestDecodeExpires(t *testing.T) {
	b := encodeSocket(established)
	for ms, want := range map[uint32]time.Duration{
		0: 0, 1: time.Millisecond, 1<<31 - 1: (1<<31 - 1) * time.Millisecond,
		1 << 31: 0, 1<<32 - 4: 0,
	} {
		binary.NativeEndian.PutUint32(b[52:], ms)
		if s, err := decodeSocket(b); err != nil || s.Expires != want {
			t.Errorf("idiag_expires %d: %v, %v; want %v", ms, s.Expires, err, want)
		}
	}
}

func TestPresence(t *testing.T) {
	tw, conn, mapped := captured["time-wait"], established, captured["mapped"]
	if tw.HasOwner() || !conn.HasOwner() {
		t.Error("HasOwner: TIME_WAIT must have none, ESTABLISHED one")
	}
	if !conn.Has(FieldMark|FieldCgroup) || conn.Has(FieldMark|FieldInfo) || tw.Has(FieldShutdown) {
		t.Error("Has must tell whether all fields are there")
	}
	v6 := captured["established-ipv6"]
	if !mapped.Mapped() || conn.Mapped() || v6.Mapped() {
		t.Error("Mapped must tell IPv4 over an IPv6 socket only")
	}
}

func TestRequest(t *testing.T) {
	q := Query{States: States(Listen, SynRecv), LocalPort: 0x1f90, RemotePort: 0x01bb, Info: true}
	m := q.request(IPv6)
	want := make([]byte, requestLen)
	copy(want, []byte{10, 6, 2, 0})
	binary.NativeEndian.PutUint32(want[4:], 1<<10|1<<3|1<<12)
	copy(want[8:], []byte{0x1f, 0x90, 0x01, 0xbb})
	copy(want[48:], bytes.Repeat([]byte{0xff}, 8))
	if m.Type != 20 || !bytes.Equal(m.Data, want) {
		t.Errorf("type %d\n%x, want\n%x", m.Type, m.Data, want)
	}
	m = Query{Protocol: MPTCP, Info: true, Memory: true, Congestion: true, TOS: true}.request(IPv4)
	copy(want, []byte{2, 0, 0x7e, 0}) // every extension but MEMINFO and SHUTDOWN
	binary.NativeEndian.PutUint32(want[4:], 0x1ffe)
	copy(want[8:], []byte{0, 0, 0, 0})
	want = binary.NativeEndian.AppendUint16(want, 8)
	want = binary.NativeEndian.AppendUint16(want, 3) // INET_DIAG_REQ_PROTOCOL
	want = binary.NativeEndian.AppendUint32(want, 262)
	if !bytes.Equal(m.Data, want) {
		t.Errorf("MPTCP\n%x, want\n%x", m.Data, want)
	}
	if m = (Query{Protocol: UDPLite}).request(IPv4); m.Data[1] != 136 || len(m.Data) != requestLen {
		t.Errorf("UDPLite\n%x", m.Data)
	}
	all := Query{}.request(IPv4).Data
	if got := binary.NativeEndian.Uint32(all[4:]); got != 0x1ffe {
		t.Errorf("states of the zero Query: %#x, want 0x1ffe", got)
	}
}
