package bantest_test

import (
	"testing"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
)

// place is that of a Memory.
type place struct{ memory *ban.Memory }

func (p *place) Backend(*testing.T) ban.Backend {
	p.memory = p.memory.Reopen()
	return p.memory
}

func (*place) Small(_ *testing.T, n int) ban.Backend { return &ban.Memory{Max: n} }
func (*place) Wipe(t *testing.T)                     { t.Fatal("not reached") }
func (*place) Remove(t *testing.T)                   { t.Fatal("not reached") }

func TestMemory(t *testing.T) {
	bantest.Run(t, bantest.Suite{
		Open: func(*testing.T) bantest.Place { return &place{new(ban.Memory)} },
		No:   bantest.NoWipe,
	})
}
