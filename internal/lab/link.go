package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"
)

// firstIndex is where interface indexes of links begin. Below it are lo and
// the tunnel devices some kernels put into every namespace. The two ends of a
// link have different ones: where they are alike, the kernel lets up to a
// second pass before the first end is up (linkwatch_urgent_event,
// net/core/link_watch.c).
const firstIndex = 100

// Link connects two hosts by a veth pair. Of each prefix the first usable
// address goes to a and the second to b; a zero prefix leaves the family out.
// The interface on a is named after b, and that on b after a. Packets pass
// when Link returns.
func (n *Network) Link(a, b *Host, v4, v6 netip.Prefix) error {
	if err := n.link(a, b, v4, v6); err != nil {
		return fmt.Errorf("lab: link %s to %s: %w", a.name, b.name, err)
	}
	return nil
}

func (n *Network) link(a, b *Host, v4, v6 netip.Prefix) error {
	if _, linked := a.port(b); linked || a == b {
		return fmt.Errorf("%w: hosts have at most one link", fs.ErrExist)
	}
	if v4.IsValid() && !v4.Addr().Is4() || v6.IsValid() && !v6.Addr().Is6() {
		return fmt.Errorf("%w: prefixes are IPv4 first, then IPv6", fs.ErrInvalid)
	}
	a4, b4, err4 := pair(v4)
	a6, b6, err6 := pair(v6)
	if err := errors.Join(err4, err6); err != nil {
		return err
	}
	n.mu.Lock()
	n.links++
	id := uint32(n.links)
	n.mu.Unlock()
	at := port{peer: b, index: firstIndex + 2*id, v4: a4, v6: a6, mac: mac(id, 1)}
	bt := port{peer: a, index: firstIndex + 2*id + 1, v4: b4, v6: b6, mac: mac(id, 2)}
	if err := a.addVeth(at, bt); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := errors.Join(a.connect(at, bt, v4, v6), b.connect(bt, at, v4, v6)); err != nil {
		return err
	}
	if err := errors.Join(a.await(at), b.await(bt)); err != nil {
		return err
	}
	a.plug(at)
	b.plug(bt)
	return nil
}

// pair returns the first two usable addresses of a prefix: without the
// network's own address, unless the prefix has only two.
func pair(p netip.Prefix) (a, b netip.Addr, err error) {
	if !p.IsValid() {
		return
	}
	spare := p.Addr().BitLen() - p.Bits()
	if spare < 1 {
		return a, b, fmt.Errorf("%w: %v has no two addresses", fs.ErrInvalid, p)
	}
	a = p.Masked().Addr()
	if spare > 1 {
		a = a.Next()
	}
	return a, a.Next(), nil
}

// mac is a locally administered address, unique in the network.
func mac(link uint32, end byte) [6]byte {
	m := [6]byte{0x02, 0, 0, 0, 0, end}
	binary.BigEndian.PutUint16(m[3:], uint16(link))
	return m
}

// connect sets the host's end of a link up.
func (h *Host) connect(mine, theirs port, v4, v6 netip.Prefix) error {
	// accept_dad is for the link-local address, which the kernel makes itself.
	conf := "net.ipv6.conf." + mine.peer.name
	if err := h.trySysctls("0", conf+".accept_dad", conf+".router_solicitations"); err != nil {
		return err
	}
	if err := h.up(mine.index); err != nil {
		return fmt.Errorf("%s up: %w", h.name, err)
	}
	for _, end := range []struct {
		mine, theirs netip.Addr
		prefix       netip.Prefix
	}{{mine.v4, theirs.v4, v4}, {mine.v6, theirs.v6, v6}} {
		if !end.mine.IsValid() {
			continue
		}
		if err := h.addAddr(mine.index, netip.PrefixFrom(end.mine, end.prefix.Bits())); err != nil {
			return fmt.Errorf("%s address %v: %w", h.name, end.mine, err)
		}
		if err := h.addNeighbour(mine.index, end.theirs, theirs.mac); err != nil {
			return fmt.Errorf("%s neighbour %v: %w", h.name, end.theirs, err)
		}
	}
	return nil
}

// await returns when packets go out by the port and those for its addresses
// come in.
func (h *Host) await(p port) error {
	if err := poll(func() (bool, error) { return h.isUp(p.index) }); err != nil {
		return fmt.Errorf("%s waits for its interface: %w", h.name, err)
	}
	for _, a := range []netip.Addr{p.v4, p.v6} {
		if !a.IsValid() {
			continue
		}
		if err := poll(func() (bool, error) { return h.isLocal(a) }); err != nil {
			return fmt.Errorf("%s waits for its address %v: %w", h.name, a, err)
		}
	}
	return nil
}

var errSlow = errors.New("not there in time")

// poll asks until the answer is yes.
func poll(ready func() (bool, error)) error {
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok, err := ready(); ok || err != nil {
			return err
		}
	}
	return errSlow
}
