package sockdiag

import (
	"strconv"
	"time"
)

// CAState is the state of a connection's congestion control (enum
// tcp_ca_state in linux/tcp.h).
type CAState uint8

// The states of congestion control.
const (
	CAOpen     CAState = 0 // TCP_CA_Open: nothing dubious
	CADisorder CAState = 1 // TCP_CA_Disorder: selective or duplicate acknowledgements
	CACWR      CAState = 2 // TCP_CA_CWR: the window is being reduced
	CARecovery CAState = 3 // TCP_CA_Recovery: fast retransmission
	CALoss     CAState = 4 // TCP_CA_Loss: after a retransmission timeout
)

var caStateNames = [...]string{"open", "disorder", "cwr", "recovery", "loss"}

// String returns open, disorder, cwr, recovery or loss; another state is
// written as CAState(5).
func (s CAState) String() string {
	if int(s) < len(caStateNames) {
		return caStateNames[s]
	}
	return "CAState(" + strconv.Itoa(int(s)) + ")"
}

// The bits of TCPInfo.Options (TCPI_OPT_* in linux/tcp.h).
const (
	OptTimestamps = 1  // TCPI_OPT_TIMESTAMPS
	OptSACK       = 2  // TCPI_OPT_SACK
	OptWscale     = 4  // TCPI_OPT_WSCALE: SndWscale and RcvWscale are in use
	OptECN        = 8  // TCPI_OPT_ECN: agreed on in the handshake
	OptECNSeen    = 16 // TCPI_OPT_ECN_SEEN: a packet with ECT came
	OptSynData    = 32 // TCPI_OPT_SYN_DATA: data of the SYN was acknowledged
)

// InfiniteSsthresh is the TCPInfo.SndSsthresh of a connection that has not
// lost a packet yet (TCP_INFINITE_SSTHRESH).
const InfiniteSsthresh = 0x7fffffff

// InfoFields is a set of the parts of struct tcp_info, which has grown with the
// kernel. A part is present or absent as a whole.
type InfoFields uint16

// The parts of struct tcp_info, each with the Linux release it came with.
const (
	InfoBase        InfoFields = 1 << iota // up to TotalRetrans
	InfoPacing                             // PacingRate, MaxPacingRate: 3.15
	InfoBytes                              // BytesAcked, BytesReceived: 4.1
	InfoSegs                               // SegsOut, SegsIn: 4.2
	InfoDataSegs                           // NotsentBytes, MinRTT, DataSegsIn, DataSegsOut: 4.6
	InfoDelivery                           // DeliveryRate, AppLimited: 4.9
	InfoLimits                             // BusyTime, RwndLimited, SndbufLimited: 4.10
	InfoDelivered                          // Delivered, DeliveredCE: 4.18
	InfoRetransmits                        // BytesSent, BytesRetrans, DSACKDups, ReordSeen: 4.19
	InfoWindow                             // RcvOOOPack, SndWnd: 5.4
	InfoRehash                             // RcvWnd, Rehash: 6.2
	InfoTimeouts                           // TotalRTO, TotalRTORecoveries, TotalRTOTime: 6.7
)

// TCPInfo is struct tcp_info (linux/tcp.h): what the kernel knows of a
// connection. Fields bear the kernel's names without the prefix tcpi_. Those
// the kernel did not give are zero: see Has. Packets are counted as the kernel
// does, in segments of at most SndMSS bytes. It is comparable.
//
// In Listen little of it means anything: tcpi_unacked and tcpi_sacked, which
// then are the accept queue and the backlog, are shown by Socket alone.
type TCPInfo struct {
	// Fields says which parts the kernel gave.
	Fields InfoFields

	State       State
	CAState     CAState
	Retransmits uint8 // retransmission timeouts in a row
	Probes      uint8 // keepalive or zero window probes unanswered
	Backoff     uint8 // doublings of the retransmission timeout
	Options     uint8 // OptTimestamps, …
	SndWscale   uint8 // window scale shift of the peer, 0 to 14
	RcvWscale   uint8 // our window scale shift, 0 to 14
	AppLimited  bool  // DeliveryRate was measured while there was too little to send
	// FastOpenFail is why TCP Fast Open failed on the client (enum
	// tcp_fastopen_client_fail), 0 to 3; always 0 before Linux 5.5.
	FastOpenFail uint8

	RTO    time.Duration // retransmission timeout; microseconds
	ATO    time.Duration // delayed acknowledgement timeout; microseconds
	SndMSS uint32        // bytes in the segments sent
	RcvMSS uint32        // bytes in the segments received, estimated

	Unacked uint32 // packets sent and not acknowledged
	Sacked  uint32 // packets selectively acknowledged
	Lost    uint32 // packets held for lost
	Retrans uint32 // packets retransmitted and not acknowledged
	Fackets uint32 // packets up to the highest selective acknowledgement; 0 from Linux 4.15

	// Times since the last of each, in milliseconds. What never was counts
	// from a moment before the connection.
	LastDataSent time.Duration
	LastAckSent  time.Duration // always 0: the kernel does not keep it
	LastDataRecv time.Duration
	LastAckRecv  time.Duration

	PMTU        uint32        // path MTU, bytes
	RcvSsthresh uint32        // limit of the window offered now, bytes
	RTT         time.Duration // smoothed round trip time; microseconds; 0 before the first
	RTTVar      time.Duration // its mean deviation; microseconds
	SndSsthresh uint32        // slow start threshold, packets; InfiniteSsthresh
	SndCwnd     uint32        // congestion window, packets
	AdvMSS      uint32        // MSS we advertised, bytes
	Reordering  uint32        // reordering tolerated, packets

	RcvRTT   time.Duration // receiver's estimate of the round trip time; microseconds; 0 before the first
	RcvSpace uint32        // what the receive buffer is tuned to, bytes

	TotalRetrans uint32 // packets retransmitted in all

	PacingRate    uint64 // bytes per second; math.MaxUint64 is no limit
	MaxPacingRate uint64 // SO_MAX_PACING_RATE, bytes per second; math.MaxUint64 is no limit
	BytesAcked    uint64 // bytes sent and acknowledged, the SYN as one
	BytesReceived uint64 // bytes received in sequence, the FIN as one
	SegsOut       uint32 // segments sent
	SegsIn        uint32 // segments received

	NotsentBytes uint32        // bytes written and not sent once
	MinRTT       time.Duration // least round trip time of late; microseconds; 0 before the first
	DataSegsIn   uint32        // segments with data received
	DataSegsOut  uint32        // segments with data sent

	DeliveryRate uint64 // latest throughput, bytes per second

	BusyTime      time.Duration // time with data to send; microseconds
	RwndLimited   time.Duration // of it, held up by the peer's window
	SndbufLimited time.Duration // of it, held up by the send buffer

	Delivered   uint32 // packets delivered, the SYN included
	DeliveredCE uint32 // of them, with ECN's congestion mark

	BytesSent    uint64 // bytes of data sent, retransmissions included
	BytesRetrans uint64 // bytes of data retransmitted
	DSACKDups    uint32 // duplicates reported by the peer (RFC 2883)
	ReordSeen    uint32 // reorderings seen

	RcvOOOPack uint32 // segments received out of order
	SndWnd     uint32 // window the peer offers, bytes

	RcvWnd uint32 // window we offer, bytes
	Rehash uint32 // changes of the path by a new hash: timeouts and PLB

	TotalRTO           uint16        // retransmission timeouts, of the handshake and repeated ones too
	TotalRTORecoveries uint16        // recoveries from them, one under way included
	TotalRTOTime       time.Duration // time spent in recoveries, one under way included; milliseconds
}

// Has reports whether the kernel gave all of the parts.
func (t TCPInfo) Has(parts InfoFields) bool { return t.Fields&parts == parts }
