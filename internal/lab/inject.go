package lab

import (
	"io/fs"
	"net"
)

// Inject puts an IP packet as it is on the link to a neighbour: no route,
// firewall or tracker of this host sees it, and its addresses can be anyone's.
func (h *Host) Inject(neighbour *Host, packet []byte) error {
	p, linked := h.port(neighbour)
	to, _ := neighbour.port(h)
	if !linked || len(packet) == 0 {
		return h.errorf("inject: %w: no packet, or %s is no neighbour", fs.ErrInvalid, neighbour.name)
	}
	if err := h.Do(func() error { return inject(p, to, packet) }); err != nil {
		return h.errorf("inject: %w", err)
	}
	return nil
}

// Sequences returns the sequence numbers that a TCP connection of Dial or
// Listen is at: that of the next byte it sends, and of the next it expects.
func Sequences(c net.Conn) (send, recv uint32, err error) { return sequences(c) }
