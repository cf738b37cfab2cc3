package sockdiag

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// The structures of the rarer attributes, field by field in C's order
// (linux/inet_diag.h, linux/sock_diag.h).
type (
	// cMemory is the array that INET_DIAG_SKMEMINFO holds, by SK_MEMINFO_*.
	cMemory struct {
		RmemAlloc, Rcvbuf, WmemAlloc, Sndbuf, FwdAlloc, WmemQueued, Optmem, Backlog, Drops uint32
	}
	// cBBR is struct tcp_bbr_info.
	cBBR struct{ BWLo, BWHi, MinRTT, PacingGain, CwndGain uint32 }
	// cDCTCP is struct tcp_dctcp_info.
	cDCTCP struct {
		Enabled, CEState    uint16
		Alpha, ABECN, ABTot uint32
	}
	// cVegas is struct tcpvegas_info.
	cVegas struct{ Enabled, RTTCnt, RTT, MinRTT uint32 }
)

// native writes a structure of fixed size as C does.
func native(v any) []byte {
	b, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

// encodeOptions is the inverse of socketOptions.
func encodeOptions(o Options, big bool) []byte {
	b := []byte{byte(o), byte(o >> 8)}
	if big {
		b[0], b[1] = bits.Reverse8(b[0]), bits.Reverse8(b[1])
	}
	return b
}

func encodeMemory(m *Memory) []byte {
	return native(cMemory{
		RmemAlloc: m.RcvAlloc, Rcvbuf: m.RcvBuf, WmemAlloc: m.SndAlloc, Sndbuf: m.SndBuf, FwdAlloc: m.FwdAlloc,
		WmemQueued: m.SndQueued, Optmem: m.OptMem, Backlog: m.RcvBacklog, Drops: m.Drops,
	})
}

// encodeRare writes what most rows do not have.
func encodeRare(r *nfnl.Builder, s *Socket) {
	if s.Has(FieldOptions) {
		r.Bytes(attrOptions, encodeOptions(s.Options, bigEndian))
	}
	if s.Has(FieldMemory) {
		r.Bytes(attrMemory, encodeMemory(&s.Memory))
	}
	if s.Has(FieldTOS) {
		r.U8(attrTOS, s.TOS)
	}
	if s.Has(FieldTClass) {
		r.U8(attrTClass, s.TClass)
	}
	if s.Has(FieldClassID) {
		r.HostU32(attrClassID, s.ClassID)
	}
	if s.Has(FieldRawProtocol) {
		r.U8(attrRawProtocol, s.RawProtocol)
	}
	if s.Has(FieldAssociation) {
		r.Bytes(attrPeers, make([]byte, 128)) // struct sockaddr_storage
	}
	if s.Has(FieldDetails) {
		encodeDetails(r, s.Details())
	}
}

func encodeDetails(r *nfnl.Builder, d Details) {
	if d.Congestion != "" {
		r.Bytes(attrCongestion, []byte(d.Congestion))
	}
	if d.BBR != (BBRInfo{}) {
		r.Bytes(attrBBR, encodeBBR(d.BBR))
	}
	if d.DCTCP != (DCTCPInfo{}) {
		r.Bytes(attrDCTCP, encodeDCTCP(d.DCTCP))
	}
	if d.Vegas != (VegasInfo{}) {
		r.Bytes(attrVegas, encodeVegas(d.Vegas))
	}
	if d.ULP != "" || d.TLS != (TLSInfo{}) || d.MPTCP != (SubflowInfo{}) {
		r.Nested(attrULP, func() { encodeULP(r, d) })
	}
}

func micros(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

func flag(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

func encodeBBR(i BBRInfo) []byte {
	return native(cBBR{
		BWLo: uint32(i.Bandwidth), BWHi: uint32(i.Bandwidth >> 32), MinRTT: micros(i.MinRTT),
		PacingGain: i.PacingGain, CwndGain: i.WindowGain,
	})
}

func encodeDCTCP(i DCTCPInfo) []byte {
	return native(cDCTCP{
		Enabled: uint16(flag(i.Enabled)), CEState: i.CEState, Alpha: i.Alpha, ABECN: i.ABECN, ABTot: i.ABTotal,
	})
}

func encodeVegas(i VegasInfo) []byte {
	return native(cVegas{
		Enabled: flag(i.Enabled), RTTCnt: i.RTTCount, RTT: micros(i.RTT), MinRTT: micros(i.MinRTT),
	})
}

// encodeULP writes what tcp_diag_put_ulp does.
func encodeULP(r *nfnl.Builder, d Details) {
	if d.ULP != "" {
		r.Bytes(ulpName, []byte(d.ULP))
	}
	if d.TLS != (TLSInfo{}) {
		r.Nested(ulpTLS, func() {
			hostU16(r, tlsVersion, d.TLS.Version)
			hostU16(r, tlsCipher, d.TLS.Cipher)
			hostU16(r, tlsSend, d.TLS.SendMode)
			hostU16(r, tlsReceive, d.TLS.ReceiveMode)
		})
	}
	if d.MPTCP != (SubflowInfo{}) {
		r.Nested(ulpMPTCP, func() {
			r.HostU32(subflowRemoteToken, d.MPTCP.RemoteToken)
			r.HostU32(subflowLocalToken, d.MPTCP.LocalToken)
			r.HostU32(subflowFlags, d.MPTCP.Flags)
			r.U8(subflowRemoteID, d.MPTCP.RemoteID)
			r.U8(subflowLocalID, d.MPTCP.LocalID)
		})
	}
}

func hostU16(r *nfnl.Builder, typ uint16, v uint16) {
	r.Bytes(typ, binary.NativeEndian.AppendUint16(nil, v))
}
