package sockdiag

import (
	"time"
	"unique"
)

// Memory is what the buffers of a socket hold and may hold, in bytes
// (SK_MEMINFO_*, ss -m).
type Memory struct {
	RcvAlloc   uint32 // received data waiting, with the kernel's overhead (SK_MEMINFO_RMEM_ALLOC)
	RcvBuf     uint32 // limit of it (SK_MEMINFO_RCVBUF)
	SndAlloc   uint32 // packets on their way to the device (SK_MEMINFO_WMEM_ALLOC)
	SndBuf     uint32 // limit of what waits to be sent (SK_MEMINFO_SNDBUF)
	FwdAlloc   uint32 // reserved and not used (SK_MEMINFO_FWD_ALLOC)
	SndQueued  uint32 // data waiting to be sent, with the kernel's overhead (SK_MEMINFO_WMEM_QUEUED)
	OptMem     uint32 // options and filters (SK_MEMINFO_OPTMEM)
	RcvBacklog uint32 // received while a process had the socket locked (SK_MEMINFO_BACKLOG)
	// Drops is how many packets were dropped, not bytes: of UDP those that
	// did not fit, of a listener the handshakes that found its queue full
	// (SK_MEMINFO_DROPS: Linux 4.7).
	Drops uint32
}

// Options is a set of socket options that are on (struct inet_diag_sockopt).
type Options uint16

// The socket options that a row tells.
const (
	OptionRecvErr           Options = 1 << iota // IP_RECVERR
	OptionIsICSK                                // the socket is a connection's (INET_IS_ICSK)
	OptionFreebind                              // IP_FREEBIND
	OptionHdrIncl                               // IP_HDRINCL
	OptionMulticastLoop                         // IP_MULTICAST_LOOP
	OptionTransparent                           // IP_TRANSPARENT
	OptionMulticastAll                          // IP_MULTICAST_ALL
	OptionNodefrag                              // IP_NODEFRAG
	OptionBindAddressNoPort                     // IP_BIND_ADDRESS_NO_PORT
	OptionRecvErrRFC4884                        // IP_RECVERR_RFC4884
	OptionDeferConnect                          // TCP_FASTOPEN_CONNECT, not sent yet
)

// Details are what few sockets have, or few queries ask for. It is comparable.
type Details struct {
	// Congestion is the name of the congestion control (TCP_CONGESTION), when
	// Query.Congestion asked for it, and BBR, DCTCP or Vegas its view.
	Congestion string
	BBR        BBRInfo
	DCTCP      DCTCPInfo
	Vegas      VegasInfo
	// ULP is the name of the upper layer protocol (TCP_ULP), such as "tls" or
	// "mptcp", and TLS or MPTCP its state; they come with Query.Info, from
	// Linux 5.4.
	ULP   string
	TLS   TLSInfo
	MPTCP SubflowInfo
}

// BBRInfo is struct tcp_bbr_info.
type BBRInfo struct {
	Bandwidth              uint64        // bytes per second
	MinRTT                 time.Duration // microseconds; 0 before the first
	PacingGain, WindowGain uint32        // 256 is 1
}

// DCTCPInfo is struct tcp_dctcp_info.
type DCTCPInfo struct {
	Enabled        bool
	CEState        uint16
	Alpha          uint32 // 1024 is 1
	ABECN, ABTotal uint32 // bytes acknowledged with and without the mark, and all
}

// VegasInfo is struct tcpvegas_info.
type VegasInfo struct {
	Enabled     bool
	RTTCount    uint32
	RTT, MinRTT time.Duration // microseconds; 0 before the first
}

// TLSInfo is the kernel's part in TLS (TLS_INFO_*).
type TLSInfo struct {
	Version uint16 // 0x0303 is TLS 1.2, 0x0304 is TLS 1.3
	Cipher  uint16 // TLS_CIPHER_* of linux/tls.h
	// SendMode and ReceiveMode are TLS_CONF_*: 1 none, 2 software, 3 offloaded,
	// 4 offloaded records.
	SendMode, ReceiveMode uint16
}

// SubflowInfo is a TCP connection's part in one of MPTCP (MPTCP_SUBFLOW_ATTR_*).
type SubflowInfo struct {
	// LocalToken and RemoteToken name the MPTCP connection at each end. The
	// remote one is 0 but in subflows that joined it later (MP_JOIN).
	RemoteToken, LocalToken uint32
	Flags                   uint32 // MPTCP_SUBFLOW_FLAG_*
	RemoteID, LocalID       uint8  // address IDs
}

// Details returns what few sockets have, or few queries ask for.
func (s Socket) Details() Details {
	if s.details == (unique.Handle[Details]{}) {
		return Details{}
	}
	return s.details.Value()
}

// WithDetails returns s with other details.
func (s Socket) WithDetails(d Details) Socket {
	s.setDetails(d)
	return s
}

func (s *Socket) setDetails(d Details) {
	s.details, s.Fields = unique.Handle[Details]{}, s.Fields&^FieldDetails
	if d != (Details{}) {
		s.details, s.Fields = unique.Make(d), s.Fields|FieldDetails
	}
}
