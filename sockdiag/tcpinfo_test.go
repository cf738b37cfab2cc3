package sockdiag

import (
	"encoding/binary"
	"math"
	"reflect"
	"testing"
	"time"
)

// numberedInfo returns a struct tcp_info whose every field has a value of its
// own, as the decoder shows it.
func numberedInfo() TCPInfo {
	t := TCPInfo{Fields: allInfo}
	v := reflect.ValueOf(&t).Elem()
	for i := 1; i < v.NumField(); i++ {
		switch f := v.Field(i); {
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case v.Type().Field(i).Name == "FastOpenFail":
			f.SetUint(2)
		case v.Type().Field(i).Name == "SndWscale", v.Type().Field(i).Name == "RcvWscale":
			f.SetUint(uint64(i))
		case f.CanUint():
			f.SetUint(uint64(i))
		default:
			f.SetInt(int64(i) * int64(time.Second))
		}
	}
	return t
}

// TestInfoLayout checks every offset against a struct in C's order.
func TestInfoLayout(t *testing.T) {
	want := numberedInfo()
	b, err := binary.Append(nil, binary.NativeEndian, cInfoOf(&want))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 280 {
		t.Fatalf("struct tcp_info of Linux 6.18 has %d bytes, want 280", len(b))
	}
	var got TCPInfo
	got.decode(b)
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestInfoLength reads the struct of each kernel: parts that are not there, or
// not as a whole, are absent and zero.
func TestInfoLength(t *testing.T) {
	full := encodeInfo(new(numberedInfo()))
	for n := infoBaseLen; n <= len(full)+40; n++ {
		b := make([]byte, n)
		copy(b, full)
		var got TCPInfo
		got.decode(b)
		parts := 0
		for _, end := range infoEnds {
			if end <= n {
				parts++
			}
		}
		if want := InfoFields(1)<<parts - 1; got.Fields != want {
			t.Errorf("%d bytes: parts %b, want %b", n, got.Fields, want)
		}
		if rest := encodeInfo(&got); string(rest) != string(full[:len(rest)]) {
			t.Errorf("%d bytes: %+v", n, got)
		}
		whole := got
		whole.Fields = allInfo
		for _, c := range encodeInfo(&whole)[infoEnds[parts-1]:] {
			if c != 0 {
				t.Fatalf("%d bytes: absent parts are not zero: %+v", n, got)
			}
		}
	}
}

func TestInfoBits(t *testing.T) {
	type bits struct {
		snd, rcv     uint8
		appLimited   bool
		fastOpenFail uint8
	}
	for _, c := range []struct {
		scales, flags uint8
		big           bool
		want          bits
	}{
		{0x7a, 0b001, false, bits{10, 7, true, 0}},
		{0x7a, 0b110, false, bits{10, 7, false, 3}},
		{0x0e, 0b11111010, false, bits{14, 0, false, 1}},
		{0xa7, 0b10000000, true, bits{10, 7, true, 0}},
		{0xa7, 0b01100000, true, bits{10, 7, false, 3}},
		{0xe0, 0b00111111, true, bits{14, 0, false, 1}},
	} {
		var got bits
		got.snd, got.rcv, got.appLimited, got.fastOpenFail = infoBits(c.scales, c.flags, c.big)
		if got != c.want {
			t.Errorf("%#x %#b big=%v: %+v, want %+v", c.scales, c.flags, c.big, got, c.want)
		}
	}
}

// TestInfoSentinels covers the values that are no measurements.
func TestInfoSentinels(t *testing.T) {
	c := cInfo{State: uint8(Established), MinRTT: math.MaxUint32, BusyTime: math.MaxUint64, Unacked: 3, Sacked: 4}
	b, err := binary.Append(nil, binary.NativeEndian, &c)
	if err != nil {
		t.Fatal(err)
	}
	var got TCPInfo
	got.decode(b)
	if got.MinRTT != 0 {
		t.Errorf("MinRTT before the first sample: %v, want 0", got.MinRTT)
	}
	if got.BusyTime < math.MaxInt64-time.Microsecond {
		t.Errorf("BusyTime that does not fit: %v, want the longest", got.BusyTime)
	}
	if got.Unacked != 3 || got.Sacked != 4 {
		t.Errorf("Unacked %d, Sacked %d; want 3, 4", got.Unacked, got.Sacked)
	}
	b[0] = uint8(Listen)
	got.decode(b)
	if got.Unacked != 0 || got.Sacked != 0 {
		t.Errorf("Unacked %d, Sacked %d in Listen; want 0, 0", got.Unacked, got.Sacked)
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"recovery": CARecovery.String(), "loss": CALoss.String(), "CAState(5)": CAState(5).String(),
		"off": TimerOff.String(), "persist": TimerProbe.String(), "Timer(6)": Timer(6).String(),
		"udplite": UDPLite.String(), "mptcp": MPTCP.String(), "Protocol(7)": Protocol(7).String(),
		"udp_diag": UDPLite.module(), "raw_diag": Raw.module(), "mptcp_diag": MPTCP.module(), "inet_diag": Protocol(7).module(),
		"IPv4": IPv4.String(), "IPv6": IPv6.String(), "Family(1)": Family(1).String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
