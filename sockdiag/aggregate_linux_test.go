package sockdiag

import (
	"maps"
	"testing"
)

// TestAggregateAgainstSS counts the states of a scene with ss.
func TestAggregateAgainstSS(t *testing.T) {
	h := newScene(t)
	want := make(map[Key]uint64)
	for _, r := range ssOf(t, h, "-tanOeiH") {
		want[Key{Family: r.Family, State: r.State, LocalPort: r.Local.Port()}]++
	}
	g, err := Aggregate(dialHost(t, h).All(t.Context(), Query{}), By{Keys: KeyFamily | KeyState | KeyLocalPort})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[Key]uint64)
	for _, group := range g.Top(-1, nil) {
		got[group.Key] = group.Sockets
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// TestAggregateScene: what a listener has in its queue is not bytes.
func TestAggregateScene(t *testing.T) {
	c := dialHost(t, newScene(t))
	q := Query{LocalPort: portQueued, Info: true, Memory: true}
	g, err := Aggregate(c.All(t.Context(), q), By{Keys: KeyState})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := g.Get(Key{State: Listen})
	if l.Sockets != 1 || l.AcceptQueue != 2 || l.Backlog == 0 || l.RecvQueue != 0 || l.SendQueue != 0 || l.Overflown != 0 {
		t.Errorf("listener: %+v", l)
	}
	e, _ := g.Get(Key{State: Established})
	if e.Sockets != 2 || e.Infos != 2 || e.Memories != 2 || e.AcceptQueue != 0 {
		t.Errorf("its queue: %+v", e)
	}
}

// TestAggregateStream: a group by of thousands of sockets allocates what a dump
// does, and nothing per socket.
func TestAggregateStream(t *testing.T) {
	if testing.Short() {
		t.Skip("the allocations depend on no kernel, and it takes long")
	}
	c := dialHost(t, crowd(t, 4000))
	n := testing.AllocsPerRun(5, func() {
		g, err := Aggregate(c.All(t.Context(), Query{}), By{Keys: KeyState | KeyPeer | KeyUser})
		if err != nil || g.Total().Sockets < 3000 {
			t.Fatal(g, err)
		}
	})
	if n > 60 {
		t.Errorf("%v allocations, want at most 60", n)
	}
}
