package sockdiag

import (
	"encoding/binary"
	"strconv"
)

// UnixType is the kind of a UNIX socket (SOCK_*).
type UnixType uint8

// The kinds of UNIX sockets.
const (
	UnixStream    UnixType = 1 // SOCK_STREAM
	UnixDatagram  UnixType = 2 // SOCK_DGRAM
	UnixSeqpacket UnixType = 5 // SOCK_SEQPACKET
)

// String returns stream, dgram or seqpacket; another kind is written as
// UnixType(3).
func (t UnixType) String() string {
	switch t {
	case UnixStream:
		return "stream"
	case UnixDatagram:
		return "dgram"
	case UnixSeqpacket:
		return "seqpacket"
	}
	return "UnixType(" + strconv.Itoa(int(t)) + ")"
}

// UnixQuery selects UNIX sockets. The zero UnixQuery is all of them. It is
// comparable.
type UnixQuery struct {
	// States is which states to show, of Established, Listen and Close; 0 is
	// all. The kernel selects.
	States StateSet
	// Type is which kind to show; 0 is all. It is selected here.
	Type UnixType
	// Memory asks for what the buffers hold.
	Memory bool
}

// UnixFields is a set of the parts of a UnixSocket that can be absent.
type UnixFields uint8

// The parts of a UnixSocket that can be absent.
const (
	UnixFieldPath     UnixFields = 1 << iota // Path: the socket is bound
	UnixFieldFile                            // File: it is bound to a path of the file system
	UnixFieldPeer                            // Peer: it is connected
	UnixFieldQueues                          // RecvQueue, SendQueue, AcceptQueue, Backlog
	UnixFieldMemory                          // Memory, when UnixQuery.Memory asked for it
	UnixFieldShutdown                        // Shutdown, from Linux 3.8
	UnixFieldUID                             // UID, from Linux 5.2
)

// UnixFile is the file a UNIX socket is bound to: its inode, of which the
// kernel gives 32 bits, and the number of the device that holds it. The path
// may be gone, or lead to another file by now.
type UnixFile struct {
	Inode, Major, Minor uint32
}

// UnixSocket is one UNIX socket (struct unix_diag_msg and its attributes). It
// is comparable; the zero UnixSocket is no socket's.
//
// Connections that wait for accept(2) have no row of their own: see Pending.
type UnixSocket struct {
	// Type is the kind of the socket.
	Type UnixType
	// State is Listen, Established when it is connected, else Close.
	State State
	// Shutdown says which directions are closed: ShutdownReceive,
	// ShutdownSend. Present with UnixFieldShutdown.
	Shutdown uint8
	// Abstract tells that Path is a name without a file.
	Abstract bool
	// Fields says which of the values that can be absent the kernel gave.
	Fields UnixFields
	// Inode is the socket's inode number, as in the links of /proc/PID/fd.
	Inode uint32
	// Peer is the inode number of the socket it is connected to; 0 when that
	// waits for accept(2). Present with UnixFieldPeer. A datagram socket's
	// peer need not be connected to it in turn.
	Peer uint32
	// UID is the user who made the socket, in the user namespace of the
	// reader. Present with UnixFieldUID.
	UID uint32
	// Cookie is the socket's unique number on this host until the next boot
	// (SO_COOKIE).
	Cookie uint64
	// Path is the name the socket is bound to, as the process wrote it: a path,
	// perhaps a relative one, or with Abstract "@" and what follows the NUL,
	// which can be any bytes. Empty when unnamed. An accepted connection has
	// the name of its listener.
	Path string
	// File is what Path was when the socket was bound. Present with
	// UnixFieldFile.
	File UnixFile
	// RecvQueue is how many received bytes the process has not read, of a
	// datagram socket those of the next datagram alone; and SendQueue how much
	// memory, in bytes, holds what the peer has not read. Both are 0 in Listen.
	RecvQueue, SendQueue uint32
	// AcceptQueue is how many connections wait for accept(2), and Backlog the
	// argument of listen(2), bounded by net.core.somaxconn; the kernel lets one
	// more wait. Both are 0 but in Listen.
	AcceptQueue, Backlog uint32
	// Memory is what the socket's buffers hold. Present with UnixFieldMemory.
	Memory Memory

	pending string // UNIX_DIAG_ICONS as it came
}

// Has reports whether all of the fields were given.
func (s UnixSocket) Has(fields UnixFields) bool { return s.Fields&fields == fields }

// Pending returns the inode numbers of the clients that wait for accept(2), in
// order of their coming; 0 for one that has closed already.
func (s UnixSocket) Pending() []uint32 {
	clients := make([]uint32, len(s.pending)/4)
	for i := range clients {
		clients[i] = binary.NativeEndian.Uint32([]byte(s.pending[4*i : 4*i+4]))
	}
	return clients
}
