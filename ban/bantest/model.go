package bantest

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// testModel makes random calls on the backend and on a ban.Memory, and compares
// what is in force after each.
func testModel(t *testing.T, r *run) {
	steps := 150
	if testing.Short() {
		steps = 40
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &model{run: r, rand: rand.New(rand.NewPCG(seed, 0)), hosts: r.hosts(6)}
	for range steps {
		m.step(t)
		r.want(t, slices.Collect(maps.Values(list(t, &m.memory)))...)
		if t.Failed() {
			t.Fatalf("after %q", m.last)
		}
	}
}

type model struct {
	*run
	memory ban.Memory
	rand   *rand.Rand
	hosts  []netip.Prefix
	last   string
}

// ends that do not come while the test runs, and one that has come.
func (m *model) until() ban.Until {
	switch m.rand.IntN(5) {
	case 0, 1:
		return ban.Forever
	case 2:
		return in(-time.Second)
	}
	return in(time.Duration(20+m.rand.IntN(4)*600) * time.Minute)
}

func (m *model) step(t *testing.T) {
	t.Helper()
	n := 1 + m.rand.IntN(4)
	switch m.rand.IntN(5) {
	case 0:
		m.unban(t, n)
	case 1:
		m.last = "open anew"
		m.Backend = m.open(t)
	default:
		var entries []ban.Entry
		for range n {
			entries = append(entries, bans(m.until(), m.hosts[m.rand.IntN(len(m.hosts))])...)
		}
		m.last = ""
		for _, e := range entries {
			m.last += "ban " + e.String() + "; "
		}
		m.ban(t, entries...)
		if err := m.memory.Ban(t.Context(), entries...); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *model) unban(t *testing.T, n int) {
	t.Helper()
	var prefixes []netip.Prefix
	for _, i := range m.rand.Perm(len(m.hosts))[:n] {
		prefixes = append(prefixes, m.hosts[i])
	}
	m.last = "unban"
	for _, p := range prefixes {
		m.last += " " + p.String()
	}
	got, want := m.Unban(t.Context(), prefixes...), m.memory.Unban(t.Context(), prefixes...)
	g, only := ban.Failed(got)
	w, _ := ban.Failed(want)
	if !only || len(g) != len(w) || got != nil && !errors.Is(got, fs.ErrNotExist) {
		t.Errorf("%s: %v; want %v", m.last, got, want)
	}
}
