package sockdiag

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

func TestSnapshotDuplicates(t *testing.T) {
	later := numbered(IPv4, 2)
	later.State, later.Inode = TimeWait, 0
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		if f == IPv6 {
			return [][]byte{row(seq, numbered(f, 4)), done(seq)}
		}
		return [][]byte{
			append(row(seq, numbered(f, 1)), row(seq, numbered(f, 2))...),
			append(row(seq, numbered(f, 1)), row(seq, later)...),
			row(seq, numbered(f, 3)),
			done(seq),
		}
	})
	snap, err := c.Snapshot(t.Context(), Query{LocalPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	want := []Socket{numbered(IPv4, 1), later, numbered(IPv4, 3), numbered(IPv6, 4)}
	if !slices.Equal(snap.Sockets, want) || snap.Duplicates != 2 {
		t.Errorf("%d duplicates, %v\nwant 2, %v", snap.Duplicates, snap.Sockets, want)
	}
	if !slices.Equal(snap.Families, []Family{IPv4, IPv6}) || snap.Query != (Query{LocalPort: 80}) {
		t.Errorf("families %v, query %+v", snap.Families, snap.Query)
	}
	if snap.Start.IsZero() || snap.Duration <= 0 {
		t.Errorf("start %v, duration %v", snap.Start, snap.Duration)
	}
}

// TestSnapshotGrows takes snapshots of a table of changing size, at the same
// time too: what is expected of the last one must not show.
func TestSnapshotGrows(t *testing.T) {
	var mu sync.Mutex
	size := 0
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		answer := make([][]byte, 0, size+1)
		for n := range size {
			answer = append(answer, row(seq, numbered(f, uint64(n+1))))
		}
		answer = append(answer, row(seq, numbered(f, 1)), done(seq))
		return answer
	})
	for _, n := range []int{1, smallestBlock, smallestBlock + 1, 3 * largestBlock, 3 * largestBlock, 10, 12} {
		mu.Lock()
		size = n
		mu.Unlock()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { grown(t, c, n) })
		}
		wg.Wait()
	}
}

func grown(t *testing.T, c *Conn, n int) {
	snap, err := c.Snapshot(t.Context(), Query{Family: IPv6})
	if err != nil {
		t.Error(err)
		return
	}
	if len(snap.Sockets) != n || snap.Duplicates != 1 {
		t.Errorf("%d sockets, %d duplicates; want %d, 1", len(snap.Sockets), snap.Duplicates, n)
	}
	for i, s := range snap.Sockets {
		if s.Cookie != uint64(i+1) {
			t.Errorf("row %d of %d: cookie %d", i, n, s.Cookie)
			return
		}
	}
}

// TestDedupAssociations: all associations of an endpoint have its cookie,
// and each is one row.
func TestDedupAssociations(t *testing.T) {
	const n = 5000
	endpoint := numbered(IPv4, 7)
	endpoint.Protocol, endpoint.State, endpoint.Remote = SCTP, Listen, netip.MustParseAddrPort("0.0.0.0:0")
	rows := []Socket{endpoint}
	for port := range uint16(n) {
		a := numbered(IPv4, 7)
		a.Protocol, a.Fields, a.Remote = SCTP, FieldAssociation, netip.AddrPortFrom(a.Remote.Addr(), 1+port)
		rows = append(rows, a)
	}
	s := &Snapshot{Sockets: slices.Concat(rows, rows)}
	s.dedup()
	if s.Duplicates != n+1 || !slices.Equal(s.Sockets, rows) {
		t.Errorf("%d sockets, %d duplicates; want %d of each", len(s.Sockets), s.Duplicates, n+1)
	}
}

func TestSameSocket(t *testing.T) {
	s := numbered(IPv4, 7)
	a, b := s, numbered(IPv4, 8)
	a.Fields, b.Fields, b.Cookie = FieldAssociation, FieldAssociation, 7
	moved := s
	moved.State, moved.Remote = TimeWait, b.Remote
	for name, c := range map[string]struct {
		a, b Socket
		want bool
	}{
		"itself":           {s, s, true},
		"of another state": {s, moved, true},
		"another cookie":   {s, numbered(IPv4, 8), false},
		"its association":  {s, a, false},
		"one association":  {a, a, true},
		"two associations": {a, b, false},
	} {
		if sameSocket(&c.a, &c.b) != c.want || sameSocket(&c.b, &c.a) != c.want {
			t.Errorf("%s: not %v", name, c.want)
		}
	}
}

// TestIndexCollision: cookies that are alike in their low half are different.
func TestIndexCollision(t *testing.T) {
	sockets := []Socket{numbered(IPv4, 1), numbered(IPv4, 1<<32|1), numbered(IPv4, 1<<33|1)}
	x := indexOf(sockets)
	for i := range sockets {
		if _, at := x.find(sockets, &sockets[i]); at != i {
			t.Errorf("row %d found at %d", i, at)
		}
	}
	if _, at := x.find(sockets, &Socket{Cookie: 1<<34 | 1}); at >= 0 {
		t.Errorf("a stranger found at %d", at)
	}
}

// TestSnapshotFields: the record tells what any row told.
func TestSnapshotFields(t *testing.T) {
	marked := numbered(IPv4, 2)
	marked.Fields, marked.Mark = FieldMark|FieldShutdown, 42
	c := kernel(t, func(f Family, seq uint32) [][]byte {
		if f == IPv6 {
			return [][]byte{done(seq)}
		}
		return [][]byte{row(seq, numbered(f, 1)), row(seq, marked), done(seq)}
	})
	snap, err := c.Snapshot(t.Context(), Query{})
	if err != nil || snap.Fields != marked.Fields {
		t.Fatalf("fields %b, %v; want %b", snap.Fields, err, marked.Fields)
	}
	var again []Socket
	for s, err := range snap.All() {
		if err != nil {
			t.Error(err)
		}
		again = append(again, s)
	}
	if !slices.Equal(again, snap.Sockets) {
		t.Errorf("All yields %v, not %v", again, snap.Sockets)
	}
}

func TestSnapshotUnknownFamily(t *testing.T) {
	c := kernel(t, unfinished)
	var op *OpError
	if snap, err := c.Snapshot(t.Context(), Query{Family: 3}); snap != nil || !errors.As(err, &op) {
		t.Errorf("%v, %v; want an *OpError", snap, err)
	}
}
