package sockdiag

import (
	"net/netip"
	"strconv"
	"time"
	"unique"
)

// Family is the address family of a socket (AF_*).
type Family uint8

// The families of the Internet's sockets.
const (
	IPv4 Family = 2  // AF_INET
	IPv6 Family = 10 // AF_INET6
)

// String returns "IPv4" or "IPv6"; another family is written as Family(7).
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return "Family(" + strconv.Itoa(int(f)) + ")"
}

// Protocol is the protocol of a socket (IPPROTO_*). Raw stands for that of all
// raw sockets, whatever they send.
type Protocol uint16

// The protocols that sock_diag tells of.
const (
	TCP     Protocol = 6   // IPPROTO_TCP
	UDP     Protocol = 17  // IPPROTO_UDP
	SCTP    Protocol = 132 // IPPROTO_SCTP
	UDPLite Protocol = 136 // IPPROTO_UDPLITE
	Raw     Protocol = 255 // IPPROTO_RAW
	MPTCP   Protocol = 262 // IPPROTO_MPTCP: Linux 5.9
)

var protocolNames = map[Protocol]string{
	TCP: "tcp", UDP: "udp", SCTP: "sctp", UDPLite: "udplite", Raw: "raw", MPTCP: "mptcp",
}

// String returns tcp, udp, sctp, udplite, raw or mptcp; another protocol is
// written as Protocol(7).
func (p Protocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return "Protocol(" + strconv.Itoa(int(p)) + ")"
}

// Timer says for what a socket waits (idiag_timer).
type Timer uint8

// The timers of a TCP socket.
const (
	TimerOff       Timer = 0
	TimerOn        Timer = 1 // retransmission, loss probe or reordering; in SynRecv the SYN-ACK's
	TimerKeepalive Timer = 2 // keepalive; in FinWait2 without an owner its end
	TimerTimeWait  Timer = 3 // the end of TimeWait, or of FinWait2 without an owner
	TimerProbe     Timer = 4 // zero window probe: the peer takes no more
	TimerDelayAck  Timer = 5 // delayed acknowledgement, from Linux 7.1
)

var timerNames = [...]string{"off", "on", "keepalive", "timewait", "persist", "delack"}

// String returns the word of ss -o: off, on, keepalive, timewait, persist. A
// timer that has none is written as Timer(6).
func (t Timer) String() string {
	if int(t) < len(timerNames) {
		return timerNames[t]
	}
	return "Timer(" + strconv.Itoa(int(t)) + ")"
}

// The bits of Socket.Shutdown (include/net/sock.h).
const (
	ShutdownReceive = 1 // RCV_SHUTDOWN: no more can be read, or the peer has closed
	ShutdownSend    = 2 // SEND_SHUTDOWN: no more can be written
)

// Fields is a set of the parts of a Socket that can be absent.
type Fields uint16

// The parts of a Socket that can be absent. TimeWait and SynRecv rows, and
// those of FinWait2 without an owner, have FieldMark at most.
const (
	FieldShutdown    Fields = 1 << iota // Shutdown, from Linux 3.8
	FieldMark                           // Mark, from Linux 4.9 and with CAP_NET_ADMIN
	FieldCgroup                         // CgroupID, from Linux 5.8
	FieldV6Only                         // V6Only, of IPv6 sockets in Listen or Close
	FieldInfo                           // Info, when Query.Info asked for it
	FieldMemory                         // Memory, when Query.Memory asked for it
	FieldTOS                            // TOS, when Query.TOS asked for it
	FieldTClass                         // TClass of IPv6 sockets, when Query.TOS asked for it
	FieldClassID                        // ClassID, when Query.TOS asked for it, from Linux 4.14
	FieldOptions                        // Options, from Linux 5.10
	FieldRawProtocol                    // RawProtocol, of raw sockets
	FieldDetails                        // any of Details
	FieldAssociation                    // an association of SCTP; a row of SCTP without it is an endpoint
)

// Socket is one socket of the Internet protocols (struct inet_diag_msg and its
// attributes). It is comparable; the zero Socket is no socket's. What few
// sockets have is behind Details.
//
// Sockets of UDP, UDPLite and Raw are in state Established when they have a
// peer, else in Close. The local port of a raw socket is its RawProtocol.
//
// SCTP shows an endpoint and, with FieldAssociation, each of its associations,
// all with the endpoint's cookie and inode. An association is in the state of
// TCP that means the same: SynSent (COOKIE_WAIT, COOKIE_ECHOED), Established,
// FinWait1 (SHUTDOWN_PENDING), FinWait2 (SHUTDOWN_SENT), CloseWait
// (SHUTDOWN_RECEIVED), LastAck (SHUTDOWN_ACK_SENT).
type Socket struct {
	// Protocol is what the query asked for.
	Protocol Protocol
	// Family is that of the socket, not of its addresses: an IPv6 socket can
	// carry an IPv4 connection. See Mapped.
	Family Family
	// State is the state of the connection.
	State State
	// Timer is the timer that runs.
	Timer Timer
	// Retransmits is how often in a row the timer has expired unanswered:
	// retransmissions with TimerOn (icsk_retransmits; SYN-ACKs in SynRecv),
	// probes with TimerKeepalive and TimerProbe (icsk_probes_out).
	Retransmits uint8
	// Shutdown says which directions are closed: ShutdownReceive,
	// ShutdownSend. Present with FieldShutdown.
	Shutdown uint8
	// V6Only tells that an IPv6 listener takes no IPv4 connections
	// (IPV6_V6ONLY). Present with FieldV6Only.
	V6Only bool
	// Fields says which of the values that can be absent the kernel gave.
	Fields Fields

	// Local and Remote are the ends of the connection. IPv4-mapped addresses
	// are unmapped, so that they equal those of the connection's packets.
	// Remote is unspecified, with port 0, in Listen. No zone is set on
	// link-local addresses: see Interface.
	Local, Remote netip.AddrPort

	// TOS is the field of IPv4 and TClass that of IPv6 packets sent (IP_TOS,
	// IPV6_TCLASS). Present with FieldTOS and FieldTClass.
	TOS, TClass uint8
	// RawProtocol is what a raw socket sends and receives (IPPROTO_*).
	// Present with FieldRawProtocol.
	RawProtocol uint8
	// Options are socket options that are on. Present with FieldOptions.
	Options Options

	// Interface is the index of the interface the socket is bound to
	// (SO_BINDTODEVICE, or a link-local address); 0 is none.
	Interface uint32
	// UID is the user the socket belongs to, in the user namespace of the
	// reader; 65534 (kernel.overflowuid) for one not mapped there. Without an
	// owner it is 0 and means nobody: see HasOwner.
	UID uint32
	// Inode is the socket's inode number, as in the links of /proc/PID/fd.
	// It is 0 when no process has the socket: see HasOwner.
	Inode uint32
	// Mark is SO_MARK. Present with FieldMark.
	Mark uint32
	// Cookie is the socket's unique number on this host until the next boot
	// (SO_COOKIE). A connection keeps it from SynRecv to TimeWait.
	Cookie uint64
	// CgroupID is the socket's cgroup of the v2 hierarchy: the inode number
	// of the cgroup's directory. Present with FieldCgroup.
	CgroupID uint64

	// RecvQueue is how many received bytes the process has not read, and
	// SendQueue how many written bytes the peer has not acknowledged; but of
	// UDP, UDPLite, Raw and MPTCP the memory they take, with the kernel's
	// overhead. Both are 0 in Listen.
	RecvQueue, SendQueue uint32
	// AcceptQueue is how many connections wait for accept(2), and Backlog
	// how many may (the argument of listen(2), bounded by
	// net.core.somaxconn). AcceptQueue above Backlog is an overflow. Both are
	// 0 but in Listen.
	AcceptQueue, Backlog uint32

	// ClassID is the net_cls class, or the priority (SO_PRIORITY). Present
	// with FieldClassID.
	ClassID uint32

	// Memory is what the socket's buffers hold. Present with FieldMemory.
	Memory Memory

	// Expires is when the timer expires, from the dump on, in milliseconds;
	// 0 when it is overdue or off.
	Expires time.Duration

	details unique.Handle[Details] // the zero Handle when there are none

	// Info is struct tcp_info, of TCP only. Present with FieldInfo.
	Info TCPInfo
}

// Has reports whether all of the fields were given.
func (s Socket) Has(fields Fields) bool { return s.Fields&fields == fields }

// HasOwner reports whether a process has the socket open. TimeWait and SynRecv
// have none; nor has what was closed and still sends (FinWait1, FinWait2,
// LastAck, Closing), nor a connection that waits for accept(2). UID 0 of such
// a row is not root.
func (s Socket) HasOwner() bool { return s.Inode != 0 }

// Mapped reports that an IPv6 socket carries an IPv4 connection, or listens on
// an IPv4 address: the kernel and ss(8) show its addresses as ::ffff:192.0.2.1.
func (s Socket) Mapped() bool { return s.Family == IPv6 && s.Local.Addr().Is4() }
