package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// table is the connection tracking table of a private namespace.
type table struct {
	net   *lab.Network
	host  *lab.Host
	conn  *conntrack.Conn
	flows []conntrack.Flow
	asked int
}

func openTable(n int) (place, error) {
	network, err := lab.Open()
	if err != nil {
		return nil, err
	}
	host, err := network.Host("table")
	if err != nil {
		return nil, err
	}
	limit, err := fs.ReadFile(host.FS(), "sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return nil, err
	}
	t := &table{net: network, host: host, asked: n}
	// Beyond 95 % the kernel begins to drop entries early.
	if most, err := strconv.Atoi(strings.TrimSpace(string(limit))); err != nil {
		return nil, err
	} else if most > 0 {
		n = min(n, most/100*95)
	}
	t.flows = flows(n)
	if t.conn, err = conntrack.Dial(&conntrack.Config{NetNS: host.NetNS()}); err != nil {
		return nil, err
	}
	return t, errors.Join(
		host.SetSysctl("net.netfilter.nf_conntrack_acct", "1"),
		host.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"))
}

// String describes the table.
func (t *table) String() string {
	s := fmt.Sprintf("%d entries: 70 %% TCP and 15 %% UDP over IPv4, 15 %% TCP over IPv6; two in five not answered; counters and times on",
		len(t.flows))
	if len(t.flows) < t.asked {
		s += fmt.Sprintf("\n(not %d: nf_conntrack_max does not allow more)", t.asked)
	}
	return s
}

// flows are n different entries.
func flows(n int) []conntrack.Flow {
	list := make([]conntrack.Flow, n)
	for i := range list {
		low := byte(i)
		f := conntrack.Flow{Timeout: 10 * time.Hour, TCP: conntrack.TCPInfo{State: conntrack.TCPSynSent}}
		f.Original = conntrack.Tuple{Proto: conntrack.ProtoTCP, SrcPort: uint16(1024 + i%60000), DstPort: 443,
			Src: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), low}),
			Dst: netip.AddrFrom4([4]byte{192, 0, 2, low})}
		switch kind := i % 20; {
		case kind < 3:
			f.Original.Proto = conntrack.ProtoUDP
		case kind < 6:
			f.Original.Src = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: low})
			f.Original.Dst = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 15: low})
		}
		if i%5 > 1 {
			f.Status, f.TCP.State = conntrack.SeenReply|conntrack.Assured, conntrack.TCPEstablished
		}
		f.Reply = f.Original.Invert()
		list[i] = f
	}
	return list
}

// fill makes the entries, unless there are any.
func (t *table) fill(ctx context.Context) error {
	for _, err := range t.conn.All(ctx, nil) {
		return err
	}
	for _, f := range t.flows {
		if err := t.conn.Create(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) size() int                { return len(t.flows) }
func (t *table) do(fn func() error) error { return t.host.Do(fn) }
func (t *table) Close() error             { return errors.Join(t.conn.Close(), t.net.Close()) }
