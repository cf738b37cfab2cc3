package sockdiag

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Attributes that Details holds (enum in linux/inet_diag.h), and those nested
// in them.
const (
	attrVegas      = 3  // INET_DIAG_VEGASINFO
	attrCongestion = 4  // INET_DIAG_CONG
	attrDCTCP      = 9  // INET_DIAG_DCTCPINFO
	attrBBR        = 16 // INET_DIAG_BBRINFO
	attrULP        = 19 // INET_DIAG_ULP_INFO

	ulpName  = 1 // INET_ULP_INFO_NAME
	ulpTLS   = 2 // INET_ULP_INFO_TLS
	ulpMPTCP = 3 // INET_ULP_INFO_MPTCP

	tlsVersion = 1 // TLS_INFO_VERSION
	tlsCipher  = 2 // TLS_INFO_CIPHER
	tlsSend    = 3 // TLS_INFO_TXCONF
	tlsReceive = 4 // TLS_INFO_RXCONF

	subflowRemoteToken = 1  // MPTCP_SUBFLOW_ATTR_TOKEN_REM
	subflowLocalToken  = 2  // MPTCP_SUBFLOW_ATTR_TOKEN_LOC
	subflowFlags       = 8  // MPTCP_SUBFLOW_ATTR_FLAGS
	subflowRemoteID    = 9  // MPTCP_SUBFLOW_ATTR_ID_REM
	subflowLocalID     = 10 // MPTCP_SUBFLOW_ATTR_ID_LOC
)

// decodeDetails reads what Socket.attributes left: it walks them once more, so
// that sockets without details never have them in their way.
func (s *Socket) decodeDetails(b []byte) error {
	var d Details
	a := nfnl.Walk(b)
	for a.Next() {
		var err error
		switch a.Type {
		case attrCongestion:
			d.Congestion = a.String()
		case attrBBR:
			err = d.BBR.decode(a.Attr)
		case attrDCTCP:
			err = d.DCTCP.decode(a.Attr)
		case attrVegas:
			err = d.Vegas.decode(a.Attr)
		case attrULP:
			err = d.decodeULP(a.Value)
		}
		if err != nil {
			return err
		}
	}
	s.setDetails(d)
	return a.Err()
}

// fixed returns the n bytes that a structure takes, or the fault.
func fixed(a nfnl.Attr, n int) ([]byte, error) {
	if len(a.Value) < n {
		return nil, &nfnl.AttrError{Type: a.Type, Have: len(a.Value), Want: n}
	}
	return a.Value[:n], nil
}

func hostU32(b []byte, at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }

// noVegasRTT stands for no sample yet (tcp_vegas_enable).
const noVegasRTT = math.MaxInt32

// sample reads microseconds, 0 when they are none.
func sample(b []byte, at int, none uint32) time.Duration {
	n := hostU32(b, at)
	if n == none {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

func (i *BBRInfo) decode(a nfnl.Attr) error {
	b, err := fixed(a, 20)
	if err == nil {
		*i = BBRInfo{
			Bandwidth: uint64(hostU32(b, 0)) | uint64(hostU32(b, 4))<<32, MinRTT: sample(b, 8, math.MaxUint32),
			PacingGain: hostU32(b, 12), WindowGain: hostU32(b, 16),
		}
	}
	return err
}

func (i *DCTCPInfo) decode(a nfnl.Attr) error {
	b, err := fixed(a, 16)
	if err == nil {
		*i = DCTCPInfo{
			Enabled: binary.NativeEndian.Uint16(b) != 0, CEState: binary.NativeEndian.Uint16(b[2:]),
			Alpha: hostU32(b, 4), ABECN: hostU32(b, 8), ABTotal: hostU32(b, 12),
		}
	}
	return err
}

func (i *VegasInfo) decode(a nfnl.Attr) error {
	b, err := fixed(a, 16)
	if err == nil {
		*i = VegasInfo{
			Enabled: hostU32(b, 0) != 0, RTTCount: hostU32(b, 4),
			RTT: sample(b, 8, noVegasRTT), MinRTT: sample(b, 12, noVegasRTT),
		}
	}
	return err
}

func (d *Details) decodeULP(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		var err error
		switch a.Type {
		case ulpName:
			d.ULP = a.String()
		case ulpTLS:
			err = d.TLS.decode(a.Value)
		case ulpMPTCP:
			err = d.MPTCP.decode(a.Value)
		}
		if err != nil {
			return err
		}
	}
	return a.Err()
}

func (i *TLSInfo) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case tlsVersion:
			i.Version = a.HostU16()
		case tlsCipher:
			i.Cipher = a.HostU16()
		case tlsSend:
			i.SendMode = a.HostU16()
		case tlsReceive:
			i.ReceiveMode = a.HostU16()
		}
	}
	return a.Err()
}

func (i *SubflowInfo) decode(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case subflowRemoteToken:
			i.RemoteToken = a.HostU32()
		case subflowLocalToken:
			i.LocalToken = a.HostU32()
		case subflowFlags:
			i.Flags = a.HostU32()
		case subflowRemoteID:
			i.RemoteID = a.U8()
		case subflowLocalID:
			i.LocalID = a.U8()
		}
	}
	return a.Err()
}
