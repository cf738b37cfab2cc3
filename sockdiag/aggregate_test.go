package sockdiag

import (
	"cmp"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// values yields sockets, and then an error if there is one.
func values(sockets []Socket, last error) iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		for _, s := range sockets {
			if !yield(s, nil) {
				return
			}
		}
		if last != nil {
			yield(Socket{}, last)
		}
	}
}

// groups is Aggregate of what cannot fail.
func groups(t *testing.T, sockets []Socket, by By) *Groups {
	t.Helper()
	g, err := Aggregate(values(sockets, nil), by)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// diverse are n sockets that differ in all that a Key holds.
func diverse(n int) []Socket {
	r := rand.New(rand.NewPCG(1, 2))
	sockets := make([]Socket, n)
	for i := range sockets {
		s := numbered([]Family{IPv4, IPv6}[r.IntN(2)], uint64(i+1))
		s.Protocol, s.State = []Protocol{TCP, MPTCP}[r.IntN(2)], State(1+r.IntN(11))
		s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(80+r.IntN(3)))
		a := s.Remote.Addr().AsSlice()
		a[len(a)-1], a[len(a)-2], a[2] = byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(3))
		peer, _ := netip.AddrFromSlice(a)
		s.Remote = netip.AddrPortFrom(peer, uint16(1000+r.IntN(3)))
		s.Inode, s.UID = uint32(r.IntN(3)), uint32(r.IntN(3))
		s.Fields, s.CgroupID = FieldCgroup, uint64(r.IntN(3))
		s.queues(uint32(r.IntN(9)), uint32(r.IntN(9)))
		sockets[i] = s
	}
	return sockets
}

func TestAggregateKey(t *testing.T) {
	full := Socket{
		Protocol: TCP, Family: IPv6, State: CloseWait, Inode: 9, UID: 1000, Fields: FieldCgroup, CgroupID: 77,
		Local: netip.MustParseAddrPort("[2001:db8::1]:443"), Remote: netip.MustParseAddrPort("[2001:db8:1:2:3::4]:5000"),
	}
	mapped, orphan, listener := full, full, full
	mapped.Remote = netip.MustParseAddrPort("192.0.2.77:5000")
	orphan.Inode, orphan.UID, orphan.Fields, orphan.CgroupID = 0, 0, 0, 0
	listener.State, listener.Remote = Listen, netip.MustParseAddrPort("[::]:0")
	prefix := netip.MustParsePrefix
	for name, c := range map[string]struct {
		s    Socket
		by   By
		want Key
	}{
		"nothing":         {full, By{}, Key{}},
		"protocol":        {full, By{Keys: KeyProtocol}, Key{Protocol: TCP}},
		"family":          {full, By{Keys: KeyFamily}, Key{Family: IPv6}},
		"state":           {full, By{Keys: KeyState}, Key{State: CloseWait}},
		"ports":           {full, By{Keys: KeyLocalPort | KeyRemotePort}, Key{LocalPort: 443, RemotePort: 5000}},
		"local port":      {full, By{Keys: KeyLocalPort}, Key{LocalPort: 443}},
		"remote port":     {full, By{Keys: KeyRemotePort}, Key{RemotePort: 5000}},
		"user":            {full, By{Keys: KeyUser}, Key{Owned: true, UID: 1000}},
		"nobody":          {orphan, By{Keys: KeyUser}, Key{}},
		"cgroup":          {full, By{Keys: KeyCgroup}, Key{CgroupID: 77}},
		"no cgroup":       {orphan, By{Keys: KeyCgroup}, Key{}},
		"peer /64":        {full, By{Keys: KeyPeer}, Key{Peer: prefix("2001:db8:1:2::/64")}},
		"peer /48":        {full, By{Keys: KeyPeer, IPv6Bits: 48}, Key{Peer: prefix("2001:db8:1::/48")}},
		"peer /128":       {full, By{Keys: KeyPeer, IPv6Bits: 128}, Key{Peer: prefix("2001:db8:1:2:3::4/128")}},
		"IPv4 peer":       {mapped, By{Keys: KeyPeer}, Key{Peer: prefix("192.0.2.77/32")}},
		"IPv4 peer /24":   {mapped, By{Keys: KeyPeer, IPv4Bits: 24}, Key{Peer: prefix("192.0.2.0/24")}},
		"no peer":         {listener, By{Keys: KeyPeer}, Key{}},
		"no address":      {Socket{}, By{Keys: KeyPeer}, Key{}},
		"state and owner": {full, By{Keys: KeyState | KeyUser}, Key{State: CloseWait, Owned: true, UID: 1000}},
	} {
		g := groups(t, []Socket{c.s}, c.by)
		if top := g.Top(-1, nil); len(top) != 1 || top[0] != (Group{c.want, top[0].Sums}) || top[0].Sockets != 1 {
			t.Errorf("%s: %+v, want %+v", name, top, c.want)
		}
	}
}

// TestAggregateSums adds two listeners, two connections and one in TIME_WAIT.
func TestAggregateSums(t *testing.T) {
	var l, c, full Socket
	l.State, l.Fields = Listen, FieldInfo|FieldMemory
	l.queues(5, 4)
	l.Memory.Drops = 27
	full.State = Listen
	full.queues(4, 4)
	c.State, c.Fields = Established, FieldInfo|FieldMemory
	c.queues(10, 20)
	c.Memory = Memory{RcvAlloc: 100, RcvBuf: 7, SndAlloc: 7, SndBuf: 7, FwdAlloc: 1000, SndQueued: 10000, Drops: 3}
	c.Info.BytesAcked, c.Info.BytesReceived, c.Info.BytesRetrans, c.Info.TotalRetrans = 1<<40, 2, 3, 4
	negative := c
	negative.Memory.FwdAlloc = ^uint32(0)
	want := Sums{
		Sockets: 5, RecvQueue: 20, SendQueue: 40, AcceptQueue: 9, Backlog: 8, Overflown: 1,
		Infos: 3, BytesAcked: 2 << 40, BytesReceived: 4, BytesRetrans: 6, TotalRetrans: 8,
		Memories: 3, Memory: 21200, Drops: 33,
	}
	g := groups(t, []Socket{l, full, c, negative, {State: TimeWait}}, By{})
	if got, ok := g.Get(Key{}); !ok || got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	byState := groups(t, []Socket{l, full, c, negative, {State: TimeWait}}, By{Keys: KeyState, Limit: 1})
	if got := byState.Total(); got != want {
		t.Errorf("total %+v, want %+v", got, want)
	}
	if got, ok := byState.Get(Key{State: TimeWait}); ok || got != (Sums{}) {
		t.Errorf("left out: %+v, %v", got, ok)
	}
}

// TestSumsAdd: no number is forgotten.
func TestSumsAdd(t *testing.T) {
	var a, b Sums
	for i := range reflect.TypeFor[Sums]().NumField() {
		reflect.ValueOf(&a).Elem().Field(i).SetUint(uint64(i + 1))
		reflect.ValueOf(&b).Elem().Field(i).SetUint(uint64(3 * (i + 1)))
	}
	sum := a
	sum.add(&a)
	sum.add(&a)
	if sum != b {
		t.Errorf("%+v, want %+v", sum, b)
	}
}

// TestAggregateAgainstMaps groups by every combination of keys, and by a map
// that holds the sockets themselves.
func TestAggregateAgainstMaps(t *testing.T) {
	sockets := diverse(300)
	for keys := range KeyCgroup << 1 {
		by := By{Keys: keys, IPv4Bits: 24, IPv6Bits: 24}
		want := make(map[Key]uint64)
		for i := range sockets {
			want[by.key(&sockets[i])]++
		}
		g, got := groups(t, sockets, by), make(map[Key]uint64)
		for _, group := range g.Top(-1, nil) {
			got[group.Key] = group.Sockets
		}
		if !maps.Equal(got, want) || g.Len() != len(want) || g.Other() != (Sums{}) {
			t.Fatalf("keys %b: %d groups, want %d", keys, len(got), len(want))
		}
	}
}

// TestAggregateLimit: what is kept is exact, the rest is in Other, and bounds
// the error.
func TestAggregateLimit(t *testing.T) {
	sockets := diverse(5000)
	by := By{Keys: KeyPeer | KeyState | KeyUser}
	all := groups(t, sockets, by)
	for _, limit := range []int{1, 10, 100, all.Len(), all.Len() + 1} {
		by.Limit = limit
		g := groups(t, sockets, by)
		if g.Len() != min(limit, all.Len()) || g.Total() != all.Total() {
			t.Errorf("limit %d: %d groups, total %+v, want %+v", limit, g.Len(), g.Total(), all.Total())
		}
		for _, group := range all.Top(-1, nil) {
			kept, ok := g.Get(group.Key)
			if ok && kept != group.Sums || !ok && group.Sockets > g.Other().Sockets {
				t.Errorf("limit %d: %+v, kept %v: %+v, other %+v", limit, group, ok, kept, g.Other())
			}
		}
		if limit >= all.Len() && g.Other() != (Sums{}) {
			t.Errorf("limit %d: other %+v", limit, g.Other())
		}
	}
}

// TestAggregateTop: whatever the order of the sockets, the order of the groups
// is one.
func TestAggregateTop(t *testing.T) {
	sockets := diverse(2000)
	by := By{Keys: KeyCgroup<<1 - 1}
	column := func(s Sums) uint64 { return s.SendQueue }
	want := groups(t, sockets, by).Top(-1, column)
	if !slices.IsSortedFunc(want, func(a, b Group) int { return cmp.Compare(b.SendQueue, a.SendQueue) }) {
		t.Error("not sorted")
	}
	slices.Reverse(sockets)
	g := groups(t, sockets, by)
	if got := g.Top(g.Len()+1, column); !slices.Equal(got, want) {
		t.Error("the order depends on that of the sockets")
	}
	if got := g.Top(3, column); !slices.Equal(got, want[:3]) {
		t.Errorf("top 3: %+v", got)
	}
	if got := g.Top(0, nil); len(got) != 0 {
		t.Errorf("top 0: %+v", got)
	}
	if got := groups(t, nil, by); got.Len() != 0 || len(got.Top(5, nil)) != 0 || got.Total() != (Sums{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestAggregateErrors(t *testing.T) {
	failed := errors.New("failed")
	if g, err := Aggregate(values(diverse(3), failed), By{}); g != nil || !errors.Is(err, failed) {
		t.Errorf("%v, %v; want the sequence's error", g, err)
	}
	for _, by := range []By{
		{Keys: KeyCgroup << 1}, {IPv4Bits: 33}, {IPv4Bits: -1}, {IPv6Bits: 129}, {IPv6Bits: -1}, {Limit: -1},
	} {
		if g, err := Aggregate(values(nil, nil), by); g != nil || err == nil {
			t.Errorf("%+v: %v, no error", by, g)
		}
	}
}

// TestAggregateAllocations: groups that are there cost nothing.
func TestAggregateAllocations(t *testing.T) {
	sockets := diverse(500)
	for _, by := range []By{{}, {Keys: KeyCgroup<<1 - 1}, {Keys: KeyCgroup<<1 - 1, Limit: 10}} {
		g := groups(t, sockets, by)
		if n := testing.AllocsPerRun(10, func() {
			for i := range sockets {
				g.Add(&sockets[i])
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations for %d sockets, want 0", by, n, len(sockets))
		}
	}
}

func BenchmarkAggregate(b *testing.B) {
	sockets := diverse(10000)
	for name, by := range map[string]By{
		"state": {Keys: KeyState}, "peer": {Keys: KeyPeer}, "all": {Keys: KeyCgroup<<1 - 1},
	} {
		b.Run(name, func(b *testing.B) {
			g, err := NewGroups(by)
			if err != nil {
				b.Fatal(err)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				g.Add(&sockets[i%len(sockets)])
				i++
			}
		})
	}
}
