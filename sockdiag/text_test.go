package sockdiag

import (
	"encoding"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const allLayouts = LayoutNetid | LayoutTimer | LayoutExtended | LayoutTOS | LayoutOptions | LayoutMemory | LayoutInfo

// carried is what Append writes of s, but Expires, Info and the Details.
func carried(s Socket) Socket {
	unknown := Fields(0)
	if s.Timer == TimerOff || int(s.Timer) >= len(timerNames) || s.Has(UnknownTimer) {
		s.Timer, s.Retransmits, unknown = 0, 0, UnknownTimer
	}
	if s.Mark == 0 { // ss leaves it out
		s.Fields &^= FieldMark
	}
	if s.Protocol == Raw {
		s.RawProtocol, s.Fields = uint8(s.Local.Port()), s.Fields|FieldRawProtocol
	} else {
		s.RawProtocol, s.Fields = 0, s.Fields&^FieldRawProtocol
	}
	if s.Protocol != TCP {
		s.Fields &^= FieldInfo
	}
	if s.State == Listen {
		s.RecvQueue, s.SendQueue = 0, 0
	} else {
		s.AcceptQueue, s.Backlog = 0, 0
	}
	if !s.Has(FieldV6Only) {
		s.V6Only = false
	}
	s.Options &= 1<<len(optionNames) - 1
	s.Shutdown &= ShutdownReceive | ShutdownSend
	s.CgroupID, s.Expires, s.Info, s.details = 0, 0, TCPInfo{}, Socket{}.details
	s.Fields = s.Fields&^(FieldCgroup|FieldAssociation|FieldDetails|UnknownTimer|UnknownBacklog) | unknown
	return s
}

func parseLine(t testing.TB, line string) Socket {
	t.Helper()
	for s, err := range ReadSockets(strings.NewReader(line)) {
		if err != nil {
			t.Fatalf("%s\n%v", line, err)
		}
		return s
	}
	t.Fatalf("%s: nothing", line)
	return Socket{}
}

func TestString(t *testing.T) {
	s := Socket{
		Protocol: TCP, Family: IPv4, State: Established, Timer: TimerKeepalive, Expires: 7199 * time.Second,
		Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: netip.MustParseAddrPort("198.51.100.7:40000"),
		UID: 33, Inode: 41, Cookie: 26, Fields: FieldShutdown,
	}
	const want = "tcp ESTAB 0 0 192.0.2.1:443 198.51.100.7:40000 timer:(keepalive,119min,0) uid:33 ino:41 sk:1a <->"
	if got := s.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if b, err := encoding.TextAppender(s).AppendText([]byte("x")); string(b) != "x"+want || err != nil {
		t.Errorf("%s, %v", b, err)
	}
	if got := string(s.Append(nil, 0)); got != "ESTAB 0 0 192.0.2.1:443 198.51.100.7:40000" {
		t.Errorf("got %s", got)
	}
	full, buf := fullSocket(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { full.Append(buf, allLayouts) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	_ = Socket{}.String() // no panic
}

// TestDuration writes and reads times in the words of ss -o.
func TestDuration(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"": 0, "001ms": time.Millisecond, "204ms": 204 * time.Millisecond, "1sec": time.Second, "1.204ms": 1204 * time.Millisecond,
		"9.999ms": 9999 * time.Millisecond, "59sec": 59*time.Second + 999*time.Millisecond, "1min": time.Minute + 999*time.Millisecond,
		"9min59sec": 10*time.Minute - 1, "10min": 10*time.Minute + 59*time.Second, "119min": 7199 * time.Second,
	} {
		if got := string(appendDuration(nil, d)); got != text {
			t.Errorf("%v: got %q, want %q", d, got, text)
		}
		back, ok := ssDuration(text)
		if again := string(appendDuration(nil, back)); !ok || again != text || back > d || d-back >= time.Minute {
			t.Errorf("%q: %v, again %q", text, back, again)
		}
	}
	for _, text := range []string{"x", "1", "1min2", "sec", "ms", "1ms2sec", "99999999999min"} {
		if d, ok := ssDuration(text); ok {
			t.Errorf("%q: %v", text, d)
		}
	}
}

// TestTextCarries reads back every captured row.
func TestTextCarries(t *testing.T) {
	for _, s := range samples(t) {
		if _, err := ParseState(s.State.SS()); err == nil {
			checkCarries(t, s)
		}
	}
}

func checkCarries(t *testing.T, s Socket) {
	t.Helper()
	line := string(s.Append(nil, allLayouts))
	back := parseLine(t, line)
	want := carried(s)
	if got := carried(back); got != want {
		t.Errorf("%s\ngot  %v %b\nwant %v %b", line, got, got.Fields, want, want.Fields)
	}
	if !back.Has(FieldInfo) {
		return
	}
	for _, k := range infoKeys {
		got, gok := k.ptr(&back.Info).(*uint64)
		if want, ok := k.ptr(&s.Info).(*uint64); k.ss != "" && gok && ok && *got != *want {
			t.Errorf("%s\n%s: got %d, want %d", line, k.ss, *got, *want)
		}
	}
	if s.Info.RTT < 100*time.Millisecond && (back.Info.RTT != s.Info.RTT || s.Info.RTT > 0 && s.Info.SndCwnd != back.Info.SndCwnd) {
		t.Errorf("%s\ngot %+v", line, back.Info)
	}
	if r := s.Info.PacingRate; r < 1<<50 && r > 0 && back.Info.PacingRate != r || r == math.MaxUint64 && back.Info.PacingRate == r-1 {
		t.Errorf("%s\npacing rate %d, want %d", line, back.Info.PacingRate, r)
	}
}

// FuzzText asserts that a row of the kernel is read back from its line as far
// as the line carries it.
func FuzzText(f *testing.F) {
	full := fullSocket()
	f.Add(encodeSocket(full), uint8(0))
	full.State, full.Family = Established, IPv4
	f.Add(encodeSocket(full), uint8(1))
	protocols := []Protocol{TCP, UDP, Raw, SCTP, UDPLite, MPTCP}
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		s := Socket{Protocol: protocols[int(n)%len(protocols)]}
		if s.decode(b) != nil {
			return
		}
		if _, err := ParseState(s.State.SS()); err != nil {
			return
		}
		if s.Protocol == Raw && s.Local.Port() > 255 {
			return // the kernel has none
		}
		s.details = Socket{}.details // names can be any bytes
		s.Fields &^= FieldDetails
		checkCarries(t, s)
	})
}

// TestLimits writes for how long data waited, and why.
func TestLimits(t *testing.T) {
	s := Socket{Protocol: TCP, State: Established, Fields: FieldInfo, Info: TCPInfo{
		Fields: InfoLimits<<1 - 1, Reordering: usualReordering,
		BusyTime: 12 * time.Millisecond, RwndLimited: 3 * time.Millisecond, SndbufLimited: 1999 * time.Microsecond,
	}}
	const want = " busy:12ms rwnd_limited:3ms(25.0%) sndbuf_limited:1ms(16.7%)"
	if got := string(s.Append(nil, LayoutInfo)); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
