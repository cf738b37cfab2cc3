package lab

import (
	"encoding/binary"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// inject sends on a packet socket: SOCK_DGRAM has the kernel write the link
// layer's header.
func inject(p, to port, packet []byte) error {
	proto := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		proto = unix.ETH_P_IPV6
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket(AF_PACKET), which takes CAP_NET_RAW", err)
	}
	defer unix.Close(fd) //nolint:errcheck // only written to
	addr := &unix.SockaddrLinklayer{Protocol: network16(proto), Ifindex: int(p.index), Halen: uint8(len(to.mac))}
	copy(addr.Addr[:], to.mac[:])
	return os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, addr))
}

// network16 is a number as it is on the wire (htons).
func network16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Queues of a socket (linux/tcp.h).
const (
	recvQueue = 1 // TCP_RECV_QUEUE
	sendQueue = 2 // TCP_SEND_QUEUE
)

// sequences asks a socket in repair mode (TCP_REPAIR) for the sequence numbers
// of its queues.
func sequences(c net.Conn) (send, recv uint32, err error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return
		}
		send, err = queueSeq(int(fd), sendQueue)
		if err == nil {
			recv, err = queueSeq(int(fd), recvQueue)
		}
		// Without a window probe: nothing is sent.
		if e := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP); err == nil {
			err = e
		}
	})
	if cerr != nil {
		return 0, 0, cerr
	}
	return send, recv, os.NewSyscallError("setsockopt TCP_REPAIR, which takes CAP_NET_ADMIN", err)
}

func queueSeq(fd, queue int) (uint32, error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return 0, err
	}
	seq, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	return uint32(seq), err
}
