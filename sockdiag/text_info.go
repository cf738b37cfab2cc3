package sockdiag

import (
	"math"
	"strconv"
	"time"
)

// appendInfo writes what ss -i does (tcp_stats_print): what is zero is left
// out.
func (s *Socket) appendInfo(b []byte, options bool) []byte {
	if s.Protocol != TCP || !s.Has(FieldInfo) {
		return b
	}
	w, i := ssWriter{b}, &s.Info
	d := s.Details()
	w.head(i, d.Congestion, options)
	w.segments(i)
	w.views(&d, s.State)
	w.rates(i)
	w.limits(i)
	w.losses(s)
	w.receiver(i)
	if d.ULP != "" {
		w.b = append(append(w.b, " tcp-ulp-"...), d.ULP...)
	}
	return w.b
}

// ssWriter writes TCPInfo. It does not keep it, so that it stays on the stack.
type ssWriter struct{ b []byte }

func (w *ssWriter) word(s string) { w.b = append(append(w.b, ' '), s...) }

// key writes a number that is not zero.
func (w *ssWriter) key(name string, n uint64) {
	if n != 0 {
		w.b = appendKey(w.b, name, n)
	}
}

// millis writes a time that is not zero.
func (w *ssWriter) millis(name string, d time.Duration) {
	if d != 0 {
		w.word(name)
		w.b = appendFloat(append(w.b, ':'), d)
	}
}

// appendFloat writes milliseconds as C's %g.
func appendFloat(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d/time.Microsecond)/1000, 'g', 6, 64)
}

// defaultRTO is TCP_TIMEOUT_FALLBACK, which ss leaves out.
const defaultRTO = 3 * time.Second

func (w *ssWriter) head(i *TCPInfo, congestion string, options bool) {
	for _, o := range [...]struct {
		bit  uint8
		word string
	}{{OptTimestamps, "ts"}, {OptSACK, "sack"}, {OptECN, "ecn"}, {OptECNSeen, "ecnseen"}, {OptSynData, "fastopen"}} {
		if options && i.Options&o.bit != 0 {
			w.word(o.word)
		}
	}
	if congestion != "" {
		w.word(congestion)
	}
	if i.Options&OptWscale != 0 {
		w.b = appendKey(w.b, "wscale", uint64(i.SndWscale))
		w.b = appendUint(append(w.b, ','), uint64(i.RcvWscale))
	}
	if i.RTO != defaultRTO {
		w.millis("rto", i.RTO)
	}
	w.key("backoff", uint64(i.Backoff))
	if i.RTT != 0 {
		w.millis("rtt", i.RTT)
		w.b = appendFloat(append(w.b, '/'), i.RTTVar)
	}
	w.millis("ato", i.ATO)
}

func (w *ssWriter) segments(i *TCPInfo) {
	w.key("mss", uint64(i.SndMSS))
	w.key("pmtu", uint64(i.PMTU))
	w.key("rcvmss", uint64(i.RcvMSS))
	w.key("advmss", uint64(i.AdvMSS))
	w.key("cwnd", uint64(i.SndCwnd))
	if i.SndSsthresh < 0xffff {
		w.key("ssthresh", uint64(i.SndSsthresh))
	}
	w.key("bytes_sent", i.BytesSent)
	w.key("bytes_retrans", i.BytesRetrans)
	w.key("bytes_acked", i.BytesAcked)
	w.key("bytes_received", i.BytesReceived)
	w.key("segs_out", uint64(i.SegsOut))
	w.key("segs_in", uint64(i.SegsIn))
	w.key("data_segs_out", uint64(i.DataSegsOut))
	w.key("data_segs_in", uint64(i.DataSegsIn))
}

// views writes what the congestion control knows.
func (w *ssWriter) views(d *Details, state State) {
	if i := &d.DCTCP; i.Enabled {
		w.b = appendKey(w.b, "dctcp:(ce_state", uint64(i.CEState))
		w.b = appendUint(append(w.b, ",alpha:"...), uint64(i.Alpha))
		w.b = appendUint(append(w.b, ",ab_ecn:"...), uint64(i.ABECN))
		w.b = append(appendUint(append(w.b, ",ab_tot:"...), uint64(i.ABTotal)), ')')
	} else if d.Congestion == "dctcp" {
		w.word("dctcp:fallback_mode")
	}
	// Before the handshake all of it is 0. From TimeWait on the kernel gives
	// none (inet_sk_diag_fill).
	if i := &d.BBR; *i != (BBRInfo{}) || d.Congestion == "bbr" && state < TimeWait {
		w.b = appendBits(append(w.b, " bbr:(bw:"...), i.Bandwidth)
		w.b = appendFloat(append(w.b, ",mrtt:"...), i.MinRTT)
		w.gain(",pacing_gain:", i.PacingGain)
		w.gain(",cwnd_gain:", i.WindowGain)
		w.b = append(w.b, ')')
	}
}

func (w *ssWriter) gain(key string, g uint32) {
	if g != 0 {
		w.b = strconv.AppendFloat(append(w.b, key...), float64(g)/256, 'g', 6, 64)
	}
}

// appendBits writes bytes as bits.
func appendBits(b []byte, bytes uint64) []byte { return appendRate(b, float64(bytes)*8) }

// appendRate writes bits per second as C's %.0f of a double, which ss keeps
// them in.
func appendRate(b []byte, bits float64) []byte {
	if bits < 1<<53 {
		b = appendUint(b, uint64(math.RoundToEven(bits)))
	} else {
		b = strconv.AppendFloat(b, bits, 'f', 0, 64)
	}
	return append(b, "bps"...)
}

// rates writes what is per second, and when what was last.
func (w *ssWriter) rates(i *TCPInfo) {
	if i.RTT > 0 && i.SndMSS != 0 && i.SndCwnd != 0 {
		send := float64(i.SndCwnd) * float64(i.SndMSS) * 8000000 / float64(i.RTT/time.Microsecond)
		w.word("send ")
		w.b = appendRate(w.b, send)
	}
	w.key("lastsnd", uint64(i.LastDataSent/time.Millisecond))
	w.key("lastrcv", uint64(i.LastDataRecv/time.Millisecond))
	w.key("lastack", uint64(i.LastAckRecv/time.Millisecond))
	if i.PacingRate != 0 && i.PacingRate != math.MaxUint64 {
		w.word("pacing_rate ")
		w.b = appendBits(w.b, i.PacingRate)
		if i.MaxPacingRate != 0 && i.MaxPacingRate != math.MaxUint64 {
			w.b = appendBits(append(w.b, '/'), i.MaxPacingRate)
		}
	}
	if i.DeliveryRate != 0 {
		w.word("delivery_rate ")
		w.b = appendBits(w.b, i.DeliveryRate)
	}
	w.key("delivered", uint64(i.Delivered))
	w.key("delivered_ce", uint64(i.DeliveredCE))
	if i.AppLimited {
		w.word("app_limited")
	}
}

// limits writes for how long there was data to send, and what held it up.
func (w *ssWriter) limits(i *TCPInfo) {
	if i.BusyTime == 0 {
		return
	}
	w.b = append(appendKey(w.b, "busy", uint64(i.BusyTime/time.Millisecond)), "ms"...)
	for _, l := range [...]struct {
		key string
		d   time.Duration
	}{{"rwnd_limited", i.RwndLimited}, {"sndbuf_limited", i.SndbufLimited}} {
		if l.d != 0 {
			share := 100 * float64(l.d/time.Microsecond) / float64(i.BusyTime/time.Microsecond)
			w.b = append(appendKey(w.b, l.key, uint64(l.d/time.Millisecond)), "ms("...)
			w.b = append(strconv.AppendFloat(w.b, share, 'f', 1, 64), "%)"...)
		}
	}
}

func (w *ssWriter) losses(s *Socket) {
	i := &s.Info
	if s.State == Listen {
		w.key("unacked", uint64(s.AcceptQueue))
	} else {
		w.key("unacked", uint64(i.Unacked))
	}
	if i.Retrans|i.TotalRetrans != 0 {
		w.b = appendKey(w.b, "retrans", uint64(i.Retrans))
		w.b = appendUint(append(w.b, '/'), uint64(i.TotalRetrans))
	}
	w.key("lost", uint64(i.Lost))
	w.key("sacked", uint64(i.Sacked))
	w.key("dsack_dups", uint64(i.DSACKDups))
	w.key("fackets", uint64(i.Fackets))
	if i.Reordering != usualReordering {
		w.b = appendKey(w.b, "reordering", uint64(i.Reordering))
	}
	w.key("reord_seen", uint64(i.ReordSeen))
}

func (w *ssWriter) receiver(i *TCPInfo) {
	w.millis("rcv_rtt", i.RcvRTT)
	w.key("rcv_space", uint64(i.RcvSpace))
	w.key("rcv_ssthresh", uint64(i.RcvSsthresh))
	w.key("notsent", uint64(i.NotsentBytes))
	w.millis("minrtt", i.MinRTT)
	w.key("rcv_ooopack", uint64(i.RcvOOOPack))
	w.key("snd_wnd", uint64(i.SndWnd))
}
