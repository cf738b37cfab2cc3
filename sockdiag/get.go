package sockdiag

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Get returns the socket that takes packets of TCP, UDP or UDPLite from remote
// to local: the connection, also one in SynRecv or TimeWait, or else the
// listener or unconnected socket that takes a first packet. For a remote that is
// unspecified, with port 0, it is the latter. The kernel looks it up as it does
// for a packet, so it costs the same however many sockets there are; those bound
// to an interface it does not find. The row of TCP has Info.
//
// There being none is fs.ErrNotExist, and so is, unlike in All, a kernel
// without sock_diag for the protocol. It takes no privilege.
func (c *Conn) Get(ctx context.Context, p Protocol, local, remote netip.AddrPort) (Socket, error) {
	s := Socket{Protocol: p, Family: IPv4, Local: local, Remote: remote, Cookie: ^uint64(0)} // INET_DIAG_NOCOOKIE
	if local.Addr().Is6() {
		s.Family = IPv6
	}
	row, err := c.get(ctx, &s)
	if err != nil {
		return Socket{}, &OpError{Op: "get " + p.String(), Err: err}
	}
	return row, nil
}

func (c *Conn) get(ctx context.Context, s *Socket) (row Socket, err error) {
	known := s.Protocol == TCP || s.Protocol == UDP || s.Protocol == UDPLite
	if !known || !s.Local.IsValid() || s.Local.Addr().BitLen() != s.Remote.Addr().BitLen() {
		return row, fmt.Errorf("a socket of %v cannot be asked for by %v and %v", s.Protocol, s.Local, s.Remote)
	}
	var b [requestLen]byte
	req := s.exact(byFamily, b[:])
	b[2] = Query{Info: s.Protocol == TCP}.extensions()
	found := false
	err = c.nl.Do(ctx, req, func(m nfnl.Message) error {
		found, row = true, Socket{Protocol: s.Protocol}
		return row.decode(m.Data)
	})
	if err == nil && !found {
		err = fs.ErrNotExist
	}
	return row, err
}
