package sockdiag

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// Keys is a set of the parts of a Key.
type Keys uint16

// What sockets can be grouped by. The empty set is one group of all.
const (
	KeyProtocol   Keys = 1 << iota // Key.Protocol
	KeyFamily                      // Key.Family
	KeyState                       // Key.State
	KeyLocalPort                   // Key.LocalPort
	KeyRemotePort                  // Key.RemotePort
	KeyPeer                        // Key.Peer
	KeyUser                        // Key.Owned and Key.UID
	KeyCgroup                      // Key.CgroupID
)

// By says how to group sockets. The zero By is one group of all. It is
// comparable.
type By struct {
	// Keys is what the sockets of a group have in common.
	Keys Keys
	// IPv4Bits, 1 to 32, and IPv6Bits, 1 to 128, are how long the prefixes of
	// KeyPeer are; 0 is 32 and 64.
	IPv4Bits, IPv6Bits int
	// Limit is how many groups to keep; 0 is as many as there are. The groups
	// met first are kept, each exactly; what belongs to none of them is added
	// to Groups.Other.
	Limit int
}

// Key is what the sockets of a group have in common. Parts that By.Keys does
// not select are zero. It is comparable.
type Key struct {
	Protocol Protocol
	Family   Family
	State    State
	// Owned tells that a process has the sockets open, as Socket.HasOwner, and
	// UID who made them. Without an owner UID is 0 and means nobody.
	Owned bool
	UID   uint32

	LocalPort, RemotePort uint16
	// Peer is the prefix of Remote: the zero Prefix of sockets without a peer.
	Peer netip.Prefix
	// CgroupID is 0 when the kernel did not tell.
	CgroupID uint64
}

// Sums is what the sockets of a group have together. It is comparable. What
// Info and Memory tell is that of the rows which have it: those of TimeWait
// have neither.
type Sums struct {
	// Sockets is how many rows there are.
	Sockets uint64
	// RecvQueue and SendQueue are bytes, of listeners none.
	RecvQueue, SendQueue uint64
	// AcceptQueue and Backlog are connections that wait and may wait for
	// accept(2), of listeners only; and Overflown is how many listeners have
	// more waiting than may.
	AcceptQueue, Backlog, Overflown uint64

	// Infos is how many rows had FieldInfo. Of these are BytesAcked,
	// BytesReceived and BytesRetrans, in bytes, and TotalRetrans, in packets,
	// each since the connection began.
	Infos                                   uint64
	BytesAcked, BytesReceived, BytesRetrans uint64
	TotalRetrans                            uint64

	// Memories is how many rows had FieldMemory. Of these are Memory, in bytes
	// (RcvAlloc, SndQueued and FwdAlloc: what net.ipv4.tcp_mem and udp_mem
	// bound), and Drops, in packets.
	Memories      uint64
	Memory, Drops uint64
}

// Group is the sockets that have a Key in common.
type Group struct {
	Key Key
	Sums
}

// Groups counts sockets by what they have in common, and keeps none. It takes
// about 300 bytes for each group, and nothing for each socket. It is not safe
// for concurrent use.
type Groups struct {
	by    By
	at    map[Key]int // into list
	list  []Group
	other Sums
}

// NewGroups makes empty Groups. There is an error when By has a number out of
// its range or an unknown Key.
func NewGroups(by By) (*Groups, error) {
	switch {
	case by.Keys >= KeyCgroup<<1:
		return nil, fmt.Errorf("sockdiag: group by: unknown keys %#x", uint16(by.Keys))
	case by.IPv4Bits < 0 || by.IPv4Bits > 32 || by.IPv6Bits < 0 || by.IPv6Bits > 128:
		return nil, fmt.Errorf("sockdiag: group by: prefixes of %d and %d bits, want 1 to 32 and 1 to 128", by.IPv4Bits, by.IPv6Bits)
	case by.Limit < 0:
		return nil, fmt.Errorf("sockdiag: group by: limit %d, want 0 or more", by.Limit)
	}
	by.IPv4Bits, by.IPv6Bits = cmp.Or(by.IPv4Bits, 32), cmp.Or(by.IPv6Bits, 64)
	return &Groups{by: by, at: make(map[Key]int)}, nil
}

// Aggregate groups all of seq, which can be Conn.All or Snapshot.All: the first
// needs no memory for the sockets, but counts a row twice that the kernel tells
// twice. With an error, the first of seq or one of by, the Groups are nil.
func Aggregate(seq iter.Seq2[Socket, error], by By) (*Groups, error) {
	g, err := NewGroups(by)
	if err != nil {
		return nil, err
	}
	for s, err := range seq {
		if err != nil {
			return nil, err
		}
		g.Add(&s)
	}
	return g, nil
}

// Add counts one more socket. It does not keep the pointer. Nothing is
// allocated unless the socket begins a group.
func (g *Groups) Add(s *Socket) {
	k := g.by.key(s)
	if i, ok := g.at[k]; ok {
		g.list[i].count(s)
		return
	}
	if g.by.Limit > 0 && len(g.list) == g.by.Limit {
		g.other.count(s)
		return
	}
	g.at[k] = len(g.list)
	g.list = append(g.list, Group{Key: k})
	g.list[len(g.list)-1].count(s)
}

// Len returns how many groups there are, without Other.
func (g *Groups) Len() int { return len(g.list) }

// Get returns the sums of a group. Without it there are none; but what belongs
// to it may be in Other.
func (g *Groups) Get(k Key) (sums Sums, ok bool) {
	i, ok := g.at[k]
	if !ok {
		return Sums{}, false
	}
	return g.list[i].Sums, true
}

// Other returns the sums of what By.Limit left out: zero when it left out
// nothing. It bounds the error: no group that is missing has more than Other,
// so one with more is rightly among the first.
//
// The kernel tells the connections of a family in the order of a hash, so a
// limit of thousands hardly misses a group that matters: one with the share p
// of a family's sockets by the chance (1-p) to the power of Limit at most. But
// IPv6 comes last, when IPv4 may have filled the limit.
func (g *Groups) Other() Sums { return g.other }

// Total returns the sums of all sockets, Other included.
func (g *Groups) Total() Sums {
	total := g.other
	for i := range g.list {
		total.add(&g.list[i].Sums)
	}
	return total
}

// Top returns the n groups that have the most, all of them when n is negative
// or there are fewer. Groups that have as much come in the order of their keys:
//
//	g.Top(10, func(s sockdiag.Sums) uint64 { return s.SendQueue })
//
// A nil column is the number of sockets.
func (g *Groups) Top(n int, column func(Sums) uint64) []Group {
	if column == nil {
		column = func(s Sums) uint64 { return s.Sockets }
	}
	top := slices.Clone(g.list)
	slices.SortFunc(top, func(a, b Group) int {
		return cmp.Or(cmp.Compare(column(b.Sums), column(a.Sums)), a.Key.compare(&b.Key))
	})
	if n < 0 || n > len(top) {
		n = len(top)
	}
	return slices.Clip(top[:n])
}
