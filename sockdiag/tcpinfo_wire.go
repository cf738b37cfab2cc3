package sockdiag

import (
	"encoding/binary"
	"math"
	"time"
)

const (
	infoBaseLen = 104 // struct tcp_info up to tcpi_total_retrans, Linux 2.6
	// infoLen is up to tcpi_total_rto_time. What follows is the accurate ECN
	// of Linux 6.18, the last 4 bytes of which mean something else in 7.0.
	infoLen = 248
)

// infoEnds holds where each part of struct tcp_info ends, in the order of
// InfoFields.
var infoEnds = [...]int{infoBaseLen, 120, 136, 144, 160, 168, 192, 200, 224, 232, 240, infoLen}

// bigEndian tells the order of bit fields.
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// rawInfo is struct tcp_info, zero where the kernel gave nothing.
type rawInfo [infoLen]byte

func (r *rawInfo) u16(at int) uint16 { return binary.NativeEndian.Uint16(r[at:]) }
func (r *rawInfo) u32(at int) uint32 { return binary.NativeEndian.Uint32(r[at:]) }
func (r *rawInfo) u64(at int) uint64 { return binary.NativeEndian.Uint64(r[at:]) }

func (r *rawInfo) micros(at int) time.Duration { return time.Duration(r.u32(at)) * time.Microsecond }
func (r *rawInfo) millis(at int) time.Duration { return time.Duration(r.u32(at)) * time.Millisecond }

// longMicros reads 64 bits of microseconds; what does not fit is the longest
// Duration.
func (r *rawInfo) longMicros(at int) time.Duration {
	const limit = math.MaxInt64 / uint64(time.Microsecond)
	return time.Duration(min(r.u64(at), limit)) * time.Microsecond
}

// infoParts returns which parts of struct tcp_info are whole in n bytes, and
// where the last of them ends.
func infoParts(n int) (parts InfoFields, end int) {
	for i, e := range infoEnds {
		if n < e {
			break
		}
		parts, end = parts|1<<i, e
	}
	return parts, end
}

// decode reads struct tcp_info by its length. It sets every field.
func (t *TCPInfo) decode(b []byte) {
	if len(b) >= infoLen {
		t.Fields = 1<<len(infoEnds) - 1
		t.read((*rawInfo)(b))
		return
	}
	t.decodeShort(b)
}

// decodeShort reads what an older kernel gives.
func (t *TCPInfo) decodeShort(b []byte) {
	var padded rawInfo
	var end int
	t.Fields, end = infoParts(len(b))
	copy(padded[:], b[:end])
	t.read(&padded)
}

func (t *TCPInfo) read(r *rawInfo) {
	t.bytes(r)
	t.base(r)
	t.counters(r)
	t.rates(r)
}

// bytes reads the eight single bytes, the last two of which are bit fields.
func (t *TCPInfo) bytes(r *rawInfo) {
	t.State = State(r[0])
	t.CAState = CAState(r[1])
	t.Retransmits = r[2]
	t.Probes = r[3]
	t.Backoff = r[4]
	t.Options = r[5]
	t.SndWscale, t.RcvWscale, t.AppLimited, t.FastOpenFail = infoBits(r[6], r[7], bigEndian)
}

// infoBits reads the bit fields
//
//	__u8 tcpi_snd_wscale:4, tcpi_rcv_wscale:4;
//	__u8 tcpi_delivery_rate_app_limited:1, tcpi_fastopen_client_fail:2;
//
// The first of each byte has the low bits on a little-endian machine and the
// high bits on a big-endian one.
func infoBits(scales, flags uint8, big bool) (snd, rcv uint8, appLimited bool, fastOpenFail uint8) {
	if big {
		return scales >> 4, scales & 0xf, flags>>7 != 0, flags >> 5 & 3
	}
	return scales & 0xf, scales >> 4, flags&1 != 0, flags >> 1 & 3
}

func (t *TCPInfo) base(r *rawInfo) {
	t.RTO = r.micros(8)
	t.ATO = r.micros(12)
	t.SndMSS = r.u32(16)
	t.RcvMSS = r.u32(20)
	t.Unacked = r.u32(24)
	t.Sacked = r.u32(28)
	if t.State == Listen {
		t.Unacked, t.Sacked = 0, 0 // accept queue and backlog
	}
	t.Lost = r.u32(32)
	t.Retrans = r.u32(36)
	t.Fackets = r.u32(40)
	t.LastDataSent = r.millis(44)
	t.LastAckSent = r.millis(48)
	t.LastDataRecv = r.millis(52)
	t.LastAckRecv = r.millis(56)
	t.PMTU = r.u32(60)
	t.RcvSsthresh = r.u32(64)
	t.RTT = r.micros(68)
	t.RTTVar = r.micros(72)
	t.SndSsthresh = r.u32(76)
	t.SndCwnd = r.u32(80)
	t.AdvMSS = r.u32(84)
	t.Reordering = r.u32(88)
	t.RcvRTT = r.micros(92)
	t.RcvSpace = r.u32(96)
	t.TotalRetrans = r.u32(100)
}

func (t *TCPInfo) counters(r *rawInfo) {
	t.BytesAcked = r.u64(120)
	t.BytesReceived = r.u64(128)
	t.SegsOut = r.u32(136)
	t.SegsIn = r.u32(140)
	t.NotsentBytes = r.u32(144)
	t.DataSegsIn = r.u32(152)
	t.DataSegsOut = r.u32(156)
	t.Delivered = r.u32(192)
	t.DeliveredCE = r.u32(196)
	t.BytesSent = r.u64(200)
	t.BytesRetrans = r.u64(208)
	t.DSACKDups = r.u32(216)
	t.ReordSeen = r.u32(220)
	t.RcvOOOPack = r.u32(224)
	t.SndWnd = r.u32(228)
	t.RcvWnd = r.u32(232)
	t.Rehash = r.u32(236)
	t.TotalRTO = r.u16(240)
	t.TotalRTORecoveries = r.u16(242)
}

func (t *TCPInfo) rates(r *rawInfo) {
	t.PacingRate = r.u64(104)
	t.MaxPacingRate = r.u64(112)
	t.MinRTT = r.micros(148)
	if r.u32(148) == math.MaxUint32 {
		t.MinRTT = 0 // no sample yet (tcp_min_rtt); one is never 0
	}
	t.DeliveryRate = r.u64(160)
	t.BusyTime = r.longMicros(168)
	t.RwndLimited = r.longMicros(176)
	t.SndbufLimited = r.longMicros(184)
	t.TotalRTOTime = r.millis(244)
}
