package sockdiag

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// number fills every field of a struct with a value of its own.
func number(v reflect.Value, from int) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			number(f, from+16*i)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Kind() == reflect.String:
			f.SetString(string(rune('a' + i)))
		case f.Type() == reflect.TypeFor[time.Duration]():
			f.SetInt(int64(from+i) * int64(time.Microsecond))
		case f.CanUint():
			f.SetUint(uint64(from + i))
		}
	}
}

func numberedDetails() (d Details) {
	number(reflect.ValueOf(&d).Elem(), 1)
	d.BBR.Bandwidth = 0x1_0000_0002
	return d
}

// fullSocket has everything that a row can have.
func fullSocket() Socket {
	s := withInfo(captured["listen-ipv6"], numberedInfo()).WithDetails(numberedDetails())
	s.Fields = FieldAssociation<<1 - 1
	s.Shutdown, s.V6Only, s.Mark, s.Options = 1, true, 2, OptionDeferConnect|OptionRecvErr
	s.TOS, s.TClass, s.RawProtocol, s.ClassID = 3, 4, 5, 6
	number(reflect.ValueOf(&s.Memory).Elem(), 7)
	return s
}

// TestDetailsLayout checks every offset against structures in C's order, whose
// sizes are those of the kernel's headers.
func TestDetailsLayout(t *testing.T) {
	want := fullSocket()
	got, err := decodeSocket(encodeSocket(want))
	if err != nil || got != want {
		t.Errorf("%v\ngot  %+v\nwant %+v\n%+v\n%+v", err, got, want, got.Details(), want.Details())
	}
	d := want.Details()
	for name, c := range map[string]struct{ got, want int }{
		"SK_MEMINFO_VARS": {len(encodeMemory(&want.Memory)), 36},
		"tcp_bbr_info":    {len(encodeBBR(d.BBR)), 20},
		"tcp_dctcp_info":  {len(encodeDCTCP(d.DCTCP)), 16},
		"tcpvegas_info":   {len(encodeVegas(d.Vegas)), 16},
	} {
		if c.got != c.want {
			t.Errorf("%s has %d bytes, want %d", name, c.got, c.want)
		}
	}
}

// TestDecodeCapturedOthers reads rows of other protocols. The texts above each
// row in testdata say what ss made of the same socket.
func TestDecodeCapturedOthers(t *testing.T) {
	for name, want := range map[string]Socket{
		"udp": {
			Protocol: UDP, Family: IPv4, State: Close, Fields: connFields | FieldMemory,
			Options: OptionMulticastLoop | OptionMulticastAll,
			Local:   netip.MustParseAddrPort("127.0.0.1:8200"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			Inode: 2152905, Cookie: 0xa59e0, CgroupID: 1, RecvQueue: 832,
			Memory: Memory{RcvAlloc: 832, RcvBuf: 212992, SndBuf: 212992, FwdAlloc: 3264},
		},
		"mptcp": {
			Protocol: MPTCP, Family: IPv4, State: Established, Fields: connFields, Options: connOptions,
			Local: netip.MustParseAddrPort("127.0.0.1:8300"), Remote: netip.MustParseAddrPort("127.0.0.1:34916"),
			Inode: 2152923, Cookie: 0xa59e4, CgroupID: 1,
		},
	} {
		got := Socket{Protocol: want.Protocol}
		if err := got.decode(capture(t, name)); err != nil || got != want {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, want)
		}
	}
	s, err := decodeSocket(capture(t, "subflow"))
	want := Details{ULP: "mptcp", MPTCP: SubflowInfo{LocalToken: 0x3da969d2, Flags: 0xc1}}
	if err != nil || s.Details() != want || s.Inode != 2152923 || s.Info.RTT != 20*us || s.Info.SegsIn != 2 {
		t.Errorf("subflow: %v, %+v\n%+v, want %+v", err, s, s.Details(), want)
	}
}

// TestDetailsNumbers has the numbers of linux/inet_diag.h, linux/tls.h and
// linux/mptcp.h, not those of this package.
func TestDetailsNumbers(t *testing.T) {
	r := nfnl.NewBuilder(0, 0)
	r.Bytes(3, native(cVegas{RTTCnt: 30}))     // INET_DIAG_VEGASINFO
	r.String(4, "dctcp")                       // INET_DIAG_CONG
	r.Bytes(9, native(cDCTCP{Alpha: 90}))      // INET_DIAG_DCTCPINFO
	r.Bytes(16, native(cBBR{PacingGain: 160})) // INET_DIAG_BBRINFO
	r.Nested(19, func() {                      // INET_DIAG_ULP_INFO
		r.String(1, "tls")   // INET_ULP_INFO_NAME
		r.Nested(2, func() { // INET_ULP_INFO_TLS
			for typ := range uint16(4) { // TLS_INFO_VERSION, _CIPHER, _TXCONF, _RXCONF
				hostU16(r, typ+1, 20+typ)
			}
			r.Flag(5) // TLS_INFO_ZC_RO_TX
		})
		r.Nested(3, func() { // INET_ULP_INFO_MPTCP
			for typ := range uint16(10) { // MPTCP_SUBFLOW_ATTR_TOKEN_REM … _ID_LOC
				r.HostU32(typ+1, 30+uint32(typ))
			}
		})
	})
	s, err := decodeSocket(append(encodeSocket(captured["established-ipv6"]), r.Message().Data...))
	want := Details{
		Congestion: "dctcp", Vegas: VegasInfo{RTTCount: 30}, DCTCP: DCTCPInfo{Alpha: 90}, BBR: BBRInfo{PacingGain: 160},
		ULP: "tls", TLS: TLSInfo{Version: 20, Cipher: 21, SendMode: 22, ReceiveMode: 23},
		MPTCP: SubflowInfo{RemoteToken: 30, LocalToken: 31, Flags: 37, RemoteID: 38, LocalID: 39},
	}
	if bigEndian {
		want.MPTCP.RemoteID, want.MPTCP.LocalID = 0, 0 // the first of four bytes
	}
	if err != nil || s.Details() != want {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, s.Details(), want)
	}
}

// TestDetailsSentinels covers the values that are no measurements.
func TestDetailsSentinels(t *testing.T) {
	r := nfnl.NewBuilder(0, 0)
	r.Bytes(attrBBR, native(cBBR{MinRTT: 1<<32 - 1, PacingGain: 256}))
	r.Bytes(attrVegas, native(cVegas{RTTCnt: 2, RTT: 1<<31 - 1, MinRTT: 1<<31 - 1}))
	s, err := decodeSocket(append(encodeSocket(captured["established-ipv6"]), r.Message().Data...))
	want := Details{BBR: BBRInfo{PacingGain: 256}, Vegas: VegasInfo{RTTCount: 2}}
	if err != nil || s.Details() != want {
		t.Errorf("%v, %+v; want %+v", err, s.Details(), want)
	}
}

// TestSnapshotMixed: rows with TLS, MPTCP and what is to come stand beside
// others in one answer, and the rows after them have nothing of them.
func TestSnapshotMixed(t *testing.T) {
	plain := withInfo(numbered(IPv4, 1), establishedInfo)
	tls, mptcp, last := plain, plain, plain
	tls.Cookie, mptcp.Cookie, last.Cookie = 2, 3, 4
	tls.setDetails(Details{ULP: "tls", TLS: TLSInfo{Version: 0x0304, Cipher: 52, SendMode: 2, ReceiveMode: 3}})
	mptcp.setDetails(Details{ULP: "mptcp", MPTCP: SubflowInfo{LocalToken: 7, Flags: 1}})
	c := kernel(t, func(_ Family, seq uint32) [][]byte {
		future := nfnl.NewBuilder(0, 0)
		future.Nested(attrULP, func() { future.Nested(9, func() { future.U8(1, 1) }) })
		future.Bytes(60, []byte{1, 2, 3})
		unknown := nfnltest.Message(byFamily, nfnl.Multi, seq, append(encodeSocket(plain), future.Message().Data...))
		return [][]byte{unknown, row(seq, tls), row(seq, mptcp), row(seq, last), done(seq)}
	})
	snap, err := c.Snapshot(t.Context(), Query{Family: IPv4, Info: true})
	if want := []Socket{plain, tls, mptcp, last}; err != nil || !slices.Equal(snap.Sockets, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, snap, want)
	}
}

// TestMemoryLength reads the list of each kernel: Drops came with Linux 4.7.
func TestMemoryLength(t *testing.T) {
	want := fullSocket().Memory
	b := encodeMemory(&want)
	for n := range len(b) + 9 {
		given := append(bytes.Clone(b), make([]byte, 8)...)[:n]
		got := Memory{RcvAlloc: 99, Drops: 99}
		got.decode(given)
		if rest := encodeMemory(&got); !bytes.HasPrefix(rest, b[:min(n&^3, len(b))]) ||
			n < len(b) && !bytes.Equal(rest[n&^3:], make([]byte, len(b)-n&^3)) {
			t.Errorf("%d bytes: %+v", n, got)
		}
	}
}

// TestOptions checks each bit field against its place in struct
// inet_diag_sockopt, for both orders.
func TestOptions(t *testing.T) {
	fields := []Options{
		OptionRecvErr, OptionIsICSK, OptionFreebind, OptionHdrIncl, OptionMulticastLoop, OptionTransparent,
		OptionMulticastAll, OptionNodefrag, OptionBindAddressNoPort, OptionRecvErrRFC4884, OptionDeferConnect,
	}
	for i, want := range fields {
		little, big := make([]byte, 2), make([]byte, 2)
		little[i/8], big[i/8] = 1<<(i%8), 0x80>>(i%8)
		if l, b := socketOptions(little, false), socketOptions(big, true); l != want || b != want {
			t.Errorf("field %d: %b and %b, want %b", i, l, b, want)
		}
	}
	if o := socketOptions([]byte{1, 1, 0xff}, false); o != OptionRecvErr|OptionBindAddressNoPort {
		t.Errorf("a longer structure: %b", o)
	}
}

// TestDecodeInPlace decodes a row of every kind after one of every kind: none
// of the former may be left.
func TestDecodeInPlace(t *testing.T) {
	rows := map[string]Socket{"full": fullSocket()}
	maps.Copy(rows, captured)
	for field := FieldShutdown; field <= FieldAssociation; field <<= 1 {
		only := fullSocket()
		only.Fields = field // encodeSocket leaves out the rest
		rows[fmt.Sprintf("field %#x", field)], _ = decodeSocket(encodeSocket(only))
	}
	for before, first := range rows {
		for after, want := range rows {
			got := first
			if err := got.decode(encodeSocket(want)); err != nil || got != want {
				t.Errorf("%s after %s: %v\ngot  %+v\nwant %+v", after, before, err, got, want)
			}
		}
	}
}

// TestDetailsInterned: equal details are one value, so that sockets stay
// comparable, and reading them again allocates no more.
func TestDetailsInterned(t *testing.T) {
	d := numberedDetails()
	a, b := established.WithDetails(d), established.WithDetails(d)
	if a != b || a.Details() != d || !a.Has(FieldDetails) {
		t.Errorf("equal details make other sockets: %+v, %+v", a.Details(), b.Details())
	}
	if none := a.WithDetails(Details{}); none != established || none.Has(FieldDetails) {
		t.Errorf("without details: %+v", none)
	}
	row := encodeSocket(a)
	var s Socket
	if n := testing.AllocsPerRun(100, func() { _ = s.decode(row) }); n > 2 {
		t.Errorf("%v allocations, want those of the two names at most", n)
	}
}

// TestDecodeOtherInfo: INET_DIAG_INFO of another protocol is another structure,
// and must not spoil the row.
func TestDecodeOtherInfo(t *testing.T) {
	row := encodeSocket(established)
	for _, n := range []int{0, 1, 72, 300} {
		for _, p := range []Protocol{MPTCP, UDP, Raw} {
			r := nfnl.NewBuilder(0, 0)
			r.Bytes(attrInfo, bytes.Repeat([]byte{0xa5}, n))
			s, want := Socket{Protocol: p}, established
			want.Protocol = p
			if err := s.decode(append(row[:len(row):len(row)], r.Message().Data...)); err != nil || s != want {
				t.Errorf("%v, %d bytes: %v\ngot  %+v\nwant %+v", p, n, err, s, want)
			}
		}
	}
}

// TestDecodeMalformedDetails cuts every structure short.
func TestDecodeMalformedDetails(t *testing.T) {
	row := encodeSocket(captured["established-ipv6"])
	attr := func(write func(r *nfnl.Builder)) []byte {
		r := nfnl.NewBuilder(0, 0)
		write(r)
		return append(row[:len(row):len(row)], r.Message().Data...)
	}
	short := func(typ uint16, n int) []byte {
		return attr(func(r *nfnl.Builder) { r.Bytes(typ, make([]byte, n)) })
	}
	ulp := func(typ uint16, v ...byte) []byte {
		return attr(func(r *nfnl.Builder) { r.Nested(attrULP, func() { r.Bytes(typ, v) }) })
	}
	for name, b := range map[string][]byte{
		"BBR": short(attrBBR, 19), "DCTCP": short(attrDCTCP, 15), "Vegas": short(attrVegas, 15),
		"TOS": short(attrTOS, 0), "TClass": short(attrTClass, 0), "class ID": short(attrClassID, 3),
		"protocol": short(attrRawProtocol, 0), "ULP": short(attrULP, 3),
		"TLS": ulp(ulpTLS, 5, 0, tlsVersion, 0, 9), "MPTCP": ulp(ulpMPTCP, 7, 0, subflowFlags, 0, 1, 2, 3),
		"stray byte in TLS": ulp(ulpTLS, 1),
	} {
		if s, err := decodeSocket(b); err == nil || s != (Socket{}) {
			t.Errorf("%s: %+v, %v; want the zero Socket and an error", name, s, err)
		}
	}
	// What is not known inside is skipped, and a name without NUL ends with
	// its attribute.
	got, err := decodeSocket(attr(func(r *nfnl.Builder) {
		r.Nested(attrULP, func() {
			r.Bytes(77, []byte{1})
			r.Nested(ulpTLS, func() { r.Flag(99) })
			r.Bytes(ulpName, []byte("espintcp"))
		})
	}))
	if want := (Details{ULP: "espintcp"}); err != nil || got.Details() != want {
		t.Errorf("%+v, %v; want %+v", got.Details(), err, want)
	}
}
